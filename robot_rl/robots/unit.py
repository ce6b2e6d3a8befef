"""UnitConfig: one robot among its like, from `hardware/units/<serial>.yaml`.

What a RobotSpec cannot know: which driver and port reach this unit, how its joints are wired, where their zeros are,
and which thresholds of the safety filter its owner has changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robot_rl.errors import ConfigError
from robot_rl.robots import get_robot

MOST_BYTES, MOST_DEPTH = 100_000, 8
_KEYS = ("serial", "robot", "driver", "joints", "safety")
_JOINT_KEYS = ("id", "sign", "zero_offset_rad")


@dataclass(frozen=True, slots=True)
class JointWiring:
    """How one joint is reached: joint angle = sign * (motor angle - zero_offset_rad)."""

    id: int
    """The motor's address on its bus."""
    sign: int
    """1 where motor and joint turn the same way, else -1."""
    zero_offset_rad: float
    """Motor angle at the joint's zero."""


@dataclass(frozen=True, slots=True)
class UnitConfig:
    """One unit of a robot."""

    serial: str
    robot: str
    """Name of its RobotSpec."""
    driver: str
    """Name of an interface of `robot-rl deploy`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The driver's own settings; the driver checks them."""
    joints: tuple[JointWiring, ...] = ()
    """In the order of the RobotSpec's joints; empty where the file has none."""
    safety: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the robot's SafetyProfile, as written: field -> value."""


def load_unit(path: Path | str) -> UnitConfig:
    """Read a unit file. Raises ConfigError naming file, key and the valid values."""
    path = Path(path)
    data = _read(path)
    try:
        unit = _unit(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if unit.serial != path.stem:
        raise ConfigError(f"{path}: serial is {unit.serial!r}; a unit's file is named {unit.serial}{path.suffix}")
    return unit


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error: the last one would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = [key for i, key in enumerate(keys) if key in keys[:i]]
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"key {repeated[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes; a unit file has at most {MOST_BYTES}")
        text = path.read_text(encoding="utf-8")
        _check_events(text, path)
        data = yaml.load(text, _StrictLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return _mapping(data, str(path))


def _check_events(text: str, path: Path) -> None:
    """Refuse what makes a short file expensive: deep nesting, and aliases, of which a few lines can fill all memory."""
    depth = 0
    for event in yaml.parse(text, _StrictLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{path}: aliases (*name) are not supported")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise ConfigError(f"{path} cannot be read: nested more than {MOST_DEPTH} deep")


def _unit(data: dict[str, Any]) -> UnitConfig:
    _check_keys(data, _KEYS, "the file", required=("serial", "robot", "driver"))
    driver = _mapping(data["driver"], "driver")
    _check_keys(driver, ("name", "options"), "driver", required=("name",))
    robot = _text(data["robot"], "robot")
    return UnitConfig(
        serial=_text(data["serial"], "serial"),
        robot=robot,
        driver=_text(driver["name"], "driver.name"),
        options=_mapping(driver.get("options"), "driver.options"),
        joints=_joints(_mapping(data.get("joints"), "joints"), get_robot(robot).joint_names),
        safety=_mapping(data.get("safety"), "safety"),
    )


def _joints(data: dict[str, Any], names: tuple[str, ...]) -> tuple[JointWiring, ...]:
    if not data:
        return ()
    _check_keys(data, names, "joints", required=names)
    joints = tuple(_wiring(_mapping(data[name], f"joints.{name}"), f"joints.{name}") for name in names)
    ids = [joint.id for joint in joints]
    repeated = sorted({i for i in ids if ids.count(i) > 1})
    if repeated:
        raise ConfigError(
            f"joints: id {repeated[0]} belongs to {[n for n, i in zip(names, ids, strict=True) if i == repeated[0]]}"
        )
    return joints


def _wiring(data: dict[str, Any], where: str) -> JointWiring:
    _check_keys(data, _JOINT_KEYS, where, required=_JOINT_KEYS)
    number, sign, offset = (data[key] for key in _JOINT_KEYS)
    if type(number) is not int or number < 0:
        raise ConfigError(f"{where}.id must be a whole number from 0 up, got {number!r}")
    if type(sign) is not int or sign not in (1, -1):
        raise ConfigError(f"{where}.sign must be 1 or -1, got {sign!r}")
    if type(offset) not in (int, float) or not math.isfinite(offset):
        raise ConfigError(f"{where}.zero_offset_rad must be a finite number, got {offset!r}")
    return JointWiring(number, sign, float(offset))


def _check_keys(data: dict[str, Any], valid: tuple[str, ...], where: str, required: tuple[str, ...]) -> None:
    unknown = [key for key in data if key not in valid]
    missing = [key for key in required if key not in data]
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; valid: {', '.join(valid)}")
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")


def _mapping(data: Any, where: str) -> dict[str, Any]:
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected keys and values, got {type(data).__name__}")
    return data


def _text(data: Any, where: str) -> str:
    if not isinstance(data, str) or not data:
        raise ConfigError(f"{where} must be text, got {data!r}; quote it if it looks like a number")
    return data
