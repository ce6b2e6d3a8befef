"""Randomizer: writes what episodes draw into the model fields of their worlds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mujoco
import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.replay.mirror import Entries
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends.addresses import joint_columns
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.draws import Draws, Range, between
from robot_rl_sim.motors import GAIN_COLUMNS
from robot_rl_sim.randomization import RandomizationConfig
from robot_rl_sim.symmetry import DIRECTION, body_entries, joint_entries


@dataclass(frozen=True, slots=True)
class _Change:
    """What a drawn value (k, entries) does to a part of a model field."""

    field: str
    how: Literal["scale", "divide", "add", "set"]
    rows: slice | Tensor | None = None
    """None: all."""
    column: int | None = None
    unit: Tensor | None = None
    """(entries,): what 1 means."""

    def apply(self, values: Tensor, x: Tensor) -> None:
        """Change `values` (k, ...) in place."""
        if self.unit is not None:
            x = x * self.unit.to(x)
        part = values if self.rows is None else values[:, self.rows]
        part = part if self.column is None else part[..., self.column]
        # One drawn number per row counts for all of the row's columns.
        x = x.view_as(part) if x.numel() == part.numel() else x.view(*x.shape, *[1] * (part.dim() - x.dim()))
        match self.how:
            case "scale":
                part.mul_(x)
            case "divide":
                part.div_(x)
            case "add":
                part.add_(x)
            case "set":
                part.copy_(x.expand_as(part))
        if isinstance(self.rows, Tensor):  # of which `part` is no view, but a copy
            values[:, self.rows] = part


@dataclass(frozen=True, slots=True)
class _Term:
    name: str
    range: Range | None
    mirror: Entries
    """One number is drawn for each entry."""
    changes: tuple[_Change, ...]


class Randomizer:
    """Writes per-world model fields at reset. Their values live in the BatchSim, which also saves them."""

    def __init__(self, sim: BatchSim, robot: RobotSpec, config: RandomizationConfig, draws: Draws) -> None:
        """Raises ConfigError for an unknown `trunk_body`, or a payload that leaves it without mass."""
        self._sim = sim
        self._draws = draws
        terms = [t for t in _terms(sim.model, robot, config) if t.range is not None]
        self._columns = {t.name: (draws.add(t.name, t.mirror), t.range) for t in terms if t.range is not None}
        fields = dict.fromkeys(c.field for t in terms for c in t.changes)
        self._changes = {f: [(t.name, c) for t in terms for c in t.changes if c.field == f] for f in fields}
        self._live = {f: sim.model_field(f) for f in fields}
        self._nominal = {f: sim.nominal(f).to(live) for f, live in self._live.items()}

    def reset(self, worlds: Tensor) -> None:
        """The dynamics of the new episodes in `worlds` (k,), whose draws are drawn."""
        self.write(worlds)
        self.apply(worlds)

    def apply(self, worlds: Tensor) -> None:
        """`reset`, after `write`."""
        if self._changes:
            self._sim.apply_model(worlds)

    def write(self, worlds: Tensor) -> None:
        """The part of `reset` that is tensors alone."""
        drawn = self._draws.values[worlds]
        values = {name: between(drawn[:, columns], ends) for name, (columns, ends) in self._columns.items()}
        for f, changes in self._changes.items():
            live, nominal = self._live[f], self._nominal[f]
            new = nominal.expand(len(worlds), *nominal.shape).clone()
            for name, change in changes:
                change.apply(new, values[name].to(new))
            live.index_copy_(0, worlds, new)


def _terms(model: mujoco.MjModel, robot: RobotSpec, c: RandomizationConfig) -> tuple[_Term, ...]:
    """Everything that can be drawn, whether or not it is."""
    _, joints = joint_columns(model, robot)
    bodies = slice(1, None)
    floor = slice(0, int(model.body_geomnum[0]))  # geoms come in the order of their bodies, and the world's first
    trunk = _trunk(model, robot, c)
    limits = torch.tensor([j.effort_limit_nm for j in robot.joints], dtype=torch.float64)
    gains = GAIN_COLUMNS[c.motor.kind]
    per_body, per_joint, one = body_entries(model, robot), _unsigned(joint_entries(robot)), ((0, 1),)

    def gain(columns: tuple[tuple[str, int], ...], how: Literal["scale", "divide"] = "scale") -> tuple[_Change, ...]:
        return tuple(_Change(name, how, None, column) for name, column in columns)

    strength = (
        *gain(gains.kp), *gain(gains.kd), *gain(gains.resistance, "divide"), _Change("actuator_forcerange", "scale"),
    )  # fmt: skip
    return (
        _Term("link_mass_scale", c.link_mass_scale, per_body,
              (_Change("body_mass", "scale", bodies), _Change("body_inertia", "scale", bodies))),
        _Term("inertia_scale", c.inertia_scale, per_body, (_Change("body_inertia", "scale", bodies),)),
        _Term("payload_kg", c.payload_kg, one, (_Change("body_mass", "add", trunk),)),
        _Term("com_shift_m", c.com_shift_m, DIRECTION, (_Change("body_ipos", "add", trunk),)),
        _Term("friction_scale", c.friction_scale, one, (_Change("geom_friction", "scale", None, 0),)),
        _Term("terrain_friction", c.terrain_friction, one, (_Change("geom_friction", "set", floor, 0),)),
        _Term("motor_strength_scale", c.motor_strength_scale, per_joint, strength),
        _Term("all_motors_scale", c.all_motors_scale, one, strength),
        _Term("kp_scale", c.kp_scale, per_joint, gain(gains.kp)),
        _Term("kd_scale", c.kd_scale, per_joint, gain(gains.kd)),
        _Term("joint_damping_scale", c.joint_damping_scale, per_joint, (_Change("dof_damping", "scale", joints),)),
        _Term("joint_frictionloss_scale", c.joint_frictionloss_scale, per_joint,
              (_Change("dof_frictionloss", "scale", joints),)),
        _Term("joint_friction_share", c.joint_friction_share, per_joint,
              (_Change("dof_frictionloss", "add", joints, unit=limits),)),
        _Term("armature_scale", c.armature_scale, per_joint, (_Change("dof_armature", "scale", joints),)),
        _Term("gravity_shift_m_s2", c.gravity_shift_m_s2, DIRECTION, (_Change("opt.gravity", "add"),)),
    )  # fmt: skip


def _unsigned(entries: Entries) -> Entries:
    """Of quantities such as a gain, that have a side and no sign."""
    return tuple((entry, 1) for entry, _ in entries)


def _trunk(model: mujoco.MjModel, robot: RobotSpec, c: RandomizationConfig) -> slice:
    name = c.trunk_body or robot.root_body
    names = [model.body(i).name for i in range(1, model.nbody)]
    if name not in names:
        raise ConfigError(f"randomization trunk_body: no body {name!r}; valid: {', '.join(names)}")
    body = int(model.body(name).id)
    least = float(model.body_mass[body]) * (c.link_mass_scale or (1.0, 1.0))[0]
    if c.payload_kg is not None and least + c.payload_kg[0] <= 0:
        raise ConfigError(f"randomization payload_kg {c.payload_kg} leaves no mass to {name!r}, which has {least:g} kg")
    return slice(body, body + 1)
