"""How verbs reach a robot: its interface by name, and what the file of its unit says about it."""

from __future__ import annotations

import dataclasses
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl.bundle.manifest import Manifest
    from robot_rl.robots import RobotSpec
    from robot_rl.robots.unit import UnitConfig
    from robot_rl.runtime.interface import RobotInterface

SIMULATED = frozenset({"mock", "sim"})
"""Interfaces that nobody can be hurt by: only these may be operated without an operator, or stand in for a unit."""


def driver_names() -> list[str]:
    """Interfaces that are installed."""
    return sorted({e.name for e in entry_points(group="robot_rl.drivers")})


def read_unit(path: Path | None) -> UnitConfig | None:
    from robot_rl.robots.unit import load_unit

    return None if path is None else load_unit(path)


def interface_of(interface: str | None, unit: UnitConfig | None, others: tuple[str, ...] = ()) -> str:
    """The interface to use: the one asked for, else the unit's, else `mock`.

    Raises ConfigError if it is not known, or if it would reach another robot than the unit that is named.
    """
    name = interface or (unit.driver if unit else "mock")
    valid = sorted({*driver_names(), *others})
    if name not in valid:
        hint = "; 'ros' comes with ros_ws/src/robot_rl_bridge" if name == "ros" else ""
        raise ConfigError(f"unknown interface {name!r}; valid: {', '.join(valid)}{hint}")
    if unit is not None and name not in SIMULATED and name != unit.driver:
        valid = ", ".join([unit.driver, *sorted(SIMULATED)])
        raise ConfigError(f"unit {unit.serial!r} is reached by {unit.driver!r}, not by {name!r}; valid: {valid}")
    return name


def spec_of(robot: str, unit: UnitConfig | None) -> tuple[RobotSpec, tuple[str, ...]]:
    """The robot, with the unit's thresholds where it has any, and a line about each of those.

    Raises ConfigError if the unit is another robot, or asks for thresholds that do not exist.
    """
    from robot_rl.robots import get_robot
    from robot_rl.runtime.limits import apply_overrides

    spec = get_robot(robot)
    if unit is None:
        return spec, ()
    if unit.robot != robot:
        raise ConfigError(f"unit {unit.serial!r} is a {unit.robot}, not a {robot}")
    safety, lines = apply_overrides(spec.safety, unit.safety, may_widen=True, source=f"unit {unit.serial}")
    return dataclasses.replace(spec, safety=safety), lines


def connect(
    interface: str, spec: RobotSpec, unit: UnitConfig | None, manifest: Manifest | None = None
) -> RobotInterface:
    """A connected robot. Drivers register under `robot_rl.drivers`, and take the unit if one is named; simulated ones
    instead the manifest of a bundle whose policy reads an object's pose, and bring the object."""
    driver = next(e for e in entry_points(group="robot_rl.drivers") if e.name == interface).load()
    if interface in SIMULATED:
        return driver(spec, manifest)
    return driver(spec) if unit is None else driver(spec, unit)
