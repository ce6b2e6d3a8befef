"""Mistakes at the boundary between controller and robot, as drivers make them, put there while a policy runs.

A Mismatch changes what a simulated robot says or what it is told, in every tick, so that the run is that of a robot
with the mistake: the policy reacts to it, the safety filter may end it. Nothing here knows how parity finds them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import JointCommand, NumpyState
from robot_rl.robots import RobotSpec
from robot_rl_sim.sim_robot import SimRobot

Array = NDArray[np.float64]

IMU_FIELDS = ("imu_quat_wxyz", "imu_ang_vel_b", "imu_lin_acc_b")

FIELDS = {
    "state": ("joint_pos", "joint_vel", "joint_effort", *IMU_FIELDS),
    "joints": ("joint_pos", "joint_vel", "joint_effort"),
    **{f: (f,) for f in ("joint_pos", "joint_vel", *IMU_FIELDS)},
}
"""Signal of the sensor path -> the fields of RobotState that are struck together; "target" is the actuator path."""

# How a joint's number that is read too large by a factor or an offset shows in each field.
_SCALED = {"joint_pos", "joint_vel", "imu_ang_vel_b", "imu_lin_acc_b"}
_OFFSET_BY = {"joints": ("joint_pos",)}


@dataclass(frozen=True)
class Mismatch:
    """One mistake. `channels` are joints, or axes of a vector; empty: all of them."""

    kind: str
    """permutation, sign, scale, offset, unit, quaternion_order, quaternion_conjugate, frame or lag."""
    signal: str
    """Key of FIELDS, or "target"."""
    channels: tuple[int, ...] = ()
    value: float = 0.0
    """Factor of a scale or unit, offset in the signal's unit, lag in s."""

    def strike(self, values: Array) -> Array:
        """What arrives instead of `values` (n,)."""
        changed, c = values.copy(), list(self.channels) or slice(None)
        if self.kind == "permutation":
            changed[list(self.channels)] = values[[*self.channels[1:], self.channels[0]]]
        elif self.kind == "sign":
            changed[c] *= -1
        elif self.kind in ("scale", "unit"):
            changed[c] *= self.value
        elif self.kind == "offset":
            changed[c] += self.value
        elif self.kind == "quaternion_order":
            changed = values[[1, 2, 3, 0]]
        elif self.kind == "quaternion_conjugate":
            changed[1:] *= -1
        return changed


class MismatchedRobot:
    """A RobotInterface: `robot` behind a driver that makes `mismatches`, with training's sensor noise before it."""

    def __init__(
        self, robot: SimRobot, mismatches: Sequence[Mismatch], noise: dict[str, float], effort_gain: Array, seed: int
    ) -> None:
        """`noise`: half-widths of uniform errors by field; `effort_gain` (n_joints,): estimated over true torque."""
        self.spec: RobotSpec = robot.spec
        self.robot = robot
        self._mismatches = mismatches
        self._noise = noise
        self._effort_gain = effort_gain
        self._rng = np.random.default_rng(seed)
        self._late_states: deque[tuple[float, dict[str, Array]]] = deque()
        self._late_commands: deque[tuple[float, JointCommand]] = deque()
        self._last: tuple[NumpyState, NumpyState] | None = None

    def connect(self) -> None:
        self.robot.connect()

    def stop(self) -> None:
        self.robot.stop()

    def read(self) -> NumpyState | None:
        state = self.robot.read()
        if state is None:
            return None
        if self._last is None or state is not self._last[0]:
            self._last = (state, self._struck(state))
        return self._last[1]

    def write(self, command: JointCommand) -> JointCommand:
        """Tell the robot what the driver makes of it; returns `command`, since the driver does not know."""
        now_s = self.robot.clock.now()
        self._late_commands.append((now_s + self._lag("target"), self._as_told(command)))
        while self._late_commands and self._late_commands[0][0] <= now_s + 1e-9:
            self.robot.write(self._late_commands.popleft()[1])
        return command

    def _lag(self, signal: str) -> float:
        return sum(m.value for m in self._mismatches if m.kind == "lag" and m.signal == signal)

    def _as_told(self, command: JointCommand) -> JointCommand:
        for m in self._mismatches:
            if m.signal == "target" and m.kind != "lag":
                # Another joint's command comes with that joint's gains.
                fields = ("position", "kp", "kd") if m.kind == "permutation" else ("position",)
                command = replace(command, **{f: m.strike(getattr(command, f)) for f in fields})
        return command

    def _struck(self, state: NumpyState) -> NumpyState:
        measured = self._noisy({f: getattr(state, f)[0] for f in self._noise})
        now_s = float(state.stamp_s[0])
        self._late_states.append((now_s, measured))
        # What is late comes first: old values were struck by the other mistakes as well.
        for m in sorted(self._mismatches, key=lambda m: m.kind != "lag"):
            if m.signal == "target":
                continue
            fields = [f for f in FIELDS[m.signal] if f in measured]
            if m.kind == "lag":
                old = next((v for t, v in reversed(self._late_states) if t <= now_s - m.value + 1e-6), None)
                measured = measured | {f: (old or self._late_states[0][1])[f] for f in fields}
                continue
            if m.kind == "frame":
                turn = _matrix(self._late_states[-1][1]["imu_quat_wxyz"])
                measured = measured | {f: turn @ measured[f] for f in fields}
                continue
            if m.kind in ("scale", "unit"):
                fields = [f for f in fields if f in _SCALED]
            if m.kind == "offset":
                fields = [f for f in fields if f in _OFFSET_BY.get(m.signal, fields)]
            measured = measured | {f: m.strike(measured[f]) for f in fields}
        while self._late_states[0][0] < now_s - 1.0:
            self._late_states.popleft()
        return replace(state, **{f: v[None] for f, v in measured.items()})

    def _noisy(self, true: dict[str, Array]) -> dict[str, Array]:
        noisy = {f: v + self._rng.uniform(-1, 1, v.shape) * self._noise[f] for f, v in true.items()}
        if "joint_effort" in noisy:
            limit = np.array([j.effort_limit_nm for j in self.spec.joints])
            error = self._noise["joint_effort"] * limit * self._rng.uniform(-1, 1, len(limit))
            noisy["joint_effort"] = self._effort_gain * true["joint_effort"] + error
        if "imu_quat_wxyz" in noisy:
            turn = self._rng.uniform(-1, 1, 3) * self._noise["imu_quat_wxyz"]
            noisy["imu_quat_wxyz"] = _turned(true["imu_quat_wxyz"], turn)
        return noisy


def _turned(quat: Array, turn: Array) -> Array:
    """Orientation `quat` (4,), off by a small rotation `turn` (3,) rad about the body's own axes."""
    w, x, y, z = quat
    a, b, c = turn / 2
    off = np.array(
        [w - x * a - y * b - z * c, x + w * a + y * c - z * b, y + w * b + z * a - x * c, z + w * c + x * b - y * a]
    )
    return off / math.sqrt(float(off @ off))


def _matrix(quat: Array) -> Array:
    """(3, 3) from body to world."""
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


_JOINTS = ("joints", "target", "joint_vel", "joint_pos")
_VECTORS = ("imu_ang_vel_b", "imu_lin_acc_b")

CATALOGUE: dict[str, tuple[str, ...]] = {
    "permutation": (*_JOINTS, *_VECTORS),
    "sign": (*_JOINTS, *_VECTORS),
    "scale": (*_JOINTS, "imu_ang_vel_b"),
    "offset": ("joints", "target", *_VECTORS),
    "unit": ("joint_pos", "joint_vel", "target", *_VECTORS),
    "quaternion_order": ("imu_quat_wxyz",),
    "quaternion_conjugate": ("imu_quat_wxyz",),
    "frame": _VECTORS,
    "lag": ("state", "target", "joint_vel", "imu_ang_vel_b"),
}
"""Kind of mistake -> signals that it can strike."""

_UNITS = {
    "joint_pos": (180 / math.pi,),
    "joint_vel": (180 / math.pi, 60 / (2 * math.pi)),
    "target": (180 / math.pi, math.pi / 180),
    "imu_ang_vel_b": (180 / math.pi,),
    "imu_lin_acc_b": (1 / 9.80665,),
}
_OFFSETS = {"joints": (0.12, 0.3), "target": (0.12, 0.3), "imu_ang_vel_b": (0.2, 0.4), "imu_lin_acc_b": (1.5, 3.0)}


def draw(rng: np.random.Generator, spec: RobotSpec, control_period_s: float, count: int) -> tuple[Mismatch, ...]:
    """`count` mistakes that a robot can have at the same time, each kind as likely as any other."""
    measured = {s for s, fields in FIELDS.items() if fields[0] in spec.state_fields} | {"target"}
    kinds = [k for k, signals in CATALOGUE.items() if measured & set(signals)]
    drawn: list[Mismatch] = []
    while len(drawn) < count:
        kind = str(rng.choice(kinds))
        signal = str(rng.choice([s for s in CATALOGUE[kind] if s in measured]))
        new = _draw_one(rng, kind, signal, spec, control_period_s)
        if not any(_entangled(new, other) for other in drawn):
            drawn.append(new)
    return tuple(drawn)


def _draw_one(rng: np.random.Generator, kind: str, signal: str, spec: RobotSpec, control_period_s: float) -> Mismatch:
    width = len(spec.joints) if signal in _JOINTS else 3
    one = (int(rng.integers(width)),)
    if kind == "permutation":
        return Mismatch(kind, signal, tuple(rng.choice(width, int(rng.integers(2, 4)), replace=False).tolist()))
    if kind == "sign":
        return Mismatch(kind, signal, one)
    if kind == "scale":
        value = float(rng.uniform(1.5, 2.0) ** rng.choice([-1, 1]))
        return Mismatch(kind, signal, one if signal in _JOINTS else (), value)
    if kind == "offset":
        least, most = _OFFSETS[signal]
        if signal in _JOINTS:
            # One that takes the default pose beyond a limit needs no parity: the robot refuses to start, and says why.
            joint = spec.joints[one[0]]
            room = min(joint.default_pos_rad - joint.lower_rad, joint.upper_rad - joint.default_pos_rad)
            most = max(least, min(most, 0.5 * room))
        return Mismatch(kind, signal, one, float(rng.uniform(least, most) * rng.choice([-1, 1])))
    if kind == "unit":
        return Mismatch(kind, signal, (), float(rng.choice(_UNITS[signal])))
    return Mismatch(kind, signal, (), control_period_s if kind == "lag" else 0.0)


def _entangled(a: Mismatch, b: Mismatch) -> bool:
    """Whether two mistakes strike the same thing, so that together they are another one, or none."""
    joints = {*_JOINTS, "state"}
    if {a.signal, b.signal} <= joints:
        # What strikes all joints alike and what strikes one of them stay apart.
        return bool(set(a.channels) & set(b.channels)) or (not a.channels and not b.channels)
    return a.signal == b.signal and (not a.channels or not b.channels or bool(set(a.channels) & set(b.channels)))
