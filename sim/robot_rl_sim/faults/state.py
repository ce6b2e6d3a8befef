"""Faults of the stream of measured states, by name. Emulator and fault table use the same."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import OBJECT_FIELDS, NumpyState
from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec, SafetyProfile
from robot_rl.runtime.measurement import JOINT_JUMP_RAD, QUAT_NORM_TOLERANCE

SPIKE_RAD = 10.0
"""Further than a joint gets between two readings."""
OFFSET_RAD = 1.0
DRIFT_RAD_S = 3.0
"""As fast as joints move, so that no reading is a jump."""
PICTURE_LATE_S = 1.0
"""Longer than any policy may go by an old picture."""
OBJECT_JUMP_M = 0.5
"""Further than an object falls between two pictures."""

Array = NDArray[np.float64]
Change = Callable[[NumpyState], NumpyState]
StateFault = Callable[[NumpyState, float], Sequence[NumpyState]]
"""(a new measurement, s on the clock) -> what arrives, in this order. Called once per measurement; has a memory."""


def _always(change: Change) -> StateFault:
    return lambda state, now_s: (change(state),)


def _once(fault: StateFault) -> StateFault:
    count = itertools.count()
    return lambda state, now_s: fault(state, now_s) if next(count) == 0 else (state,)


def _for(duration_s: float, fault: StateFault) -> StateFault:
    start: list[float] = []

    def apply(state: NumpyState, now_s: float) -> Sequence[NumpyState]:
        start.append(now_s)
        return fault(state, now_s) if now_s - start[0] < duration_s else (state,)

    return apply


def _drop(state: NumpyState, now_s: float) -> Sequence[NumpyState]:
    return ()


def _delay(by_s: float) -> StateFault:
    held: deque[NumpyState] = deque()

    def apply(state: NumpyState, now_s: float) -> Sequence[NumpyState]:
        held.append(state)
        due = []
        while held and now_s - float(held[0].stamp_s[0]) >= by_s:
            due.append(held.popleft())
        return due

    return apply


def _repeat_first() -> StateFault:
    first: list[NumpyState] = []

    def apply(state: NumpyState, now_s: float) -> Sequence[NumpyState]:
        first.append(state)
        return (first[0],)

    return apply


def _swap_neighbours() -> StateFault:
    held: list[NumpyState] = []

    def apply(state: NumpyState, now_s: float) -> Sequence[NumpyState]:
        if not held:
            held.append(state)
            return ()
        return (state, held.pop())

    return apply


def _behind(by_s: float) -> StateFault:
    """Each reading arrives at once, and then again an old one."""
    late = _delay(by_s)
    return lambda state, now_s: (state, *late(state, now_s))


def _freeze(*names: str, joint: int | None = None) -> StateFault:
    """Fields as they were at first, of one joint or of all; stamps go on."""
    first: list[NumpyState] = []

    def apply(state: NumpyState, now_s: float) -> Sequence[NumpyState]:
        first.append(state)
        fields = {}
        for name in names:
            if (old := getattr(first[0], name)) is not None:
                fields[name] = old if joint is None else _with(getattr(state, name), joint, old[0, joint])
        return (replace(state, **fields),)

    return apply


def _drift(rate_rad_s: float) -> StateFault:
    start: list[float] = []

    def apply(state: NumpyState, now_s: float) -> Sequence[NumpyState]:
        start.append(now_s)
        return (_shift(state, rate_rad_s * (now_s - start[0])),)

    return apply


def _pictures(fault: StateFault) -> StateFault:
    """A camera's: the fault is given each new picture of the object once, and states show the newest that it lets
    through, at first the one from before."""
    shown: NumpyState | None = None
    newest_s: float | None = None

    def apply(state: NumpyState, now_s: float) -> Sequence[NumpyState]:
        nonlocal shown, newest_s
        stamp_s = None if state.object_stamp_s is None else float(state.object_stamp_s[0])
        if shown is None:
            shown = state
        elif stamp_s != newest_s:
            shown = (shown, *fault(state, now_s))[-1]
        newest_s = stamp_s
        return (replace(state, **{name: getattr(shown, name) for name in (*OBJECT_FIELDS, "object_stamp_s")}),)

    return apply


def _object(change: Callable[[Array], Array], name: str) -> Change:
    """Of one of the object's fields, while it is in sight."""
    return lambda state: (
        state if getattr(state, name) is None else replace(state, **{name: change(np.asarray(getattr(state, name)))})
    )


def _with(value: Array, column: int, number: float) -> Array:
    changed = np.array(value, np.float64)
    changed[0, column] = number
    return changed


def _set(name: str, number: float) -> Change:
    """The first entry of a field."""
    return lambda state: replace(state, **{name: _with(getattr(state, name), 0, number)})


def _shift(state: NumpyState, by_rad: float) -> NumpyState:
    """The first joint."""
    return replace(state, joint_pos=_with(state.joint_pos, 0, float(state.joint_pos[0, 0]) + by_rad))


def _quat(change: Callable[[Array], Array]) -> Change:
    """Of the orientation (1, 4), scalar first."""
    return lambda state: replace(state, imu_quat_wxyz=change(np.asarray(state.imu_quat_wxyz)))


def _upside_down(quat: Array) -> Array:
    """Turned by 180 degrees about the body's x axis."""
    w, x, y, z = np.moveaxis(quat, -1, 0)
    return np.stack((-x, w, z, -y), -1)


def _other_face(quat: Array) -> Array:
    """Turned by 90 degrees about the object's x axis: what a cube's tracker takes for the same."""
    w, x, y, z = np.moveaxis(quat, -1, 0)
    return np.stack((w - x, x + w, y + z, z - y), -1) / np.sqrt(2.0)


_no_number = _object(lambda pos: pos * np.nan, "object_pos")
_elsewhere = _object(lambda pos: pos + OBJECT_JUMP_M * np.eye(1, 3), "object_pos")
_turned = _object(_other_face, "object_quat_wxyz")


def _speed(profile: SafetyProfile) -> float:
    return 2.0 * profile.joint_vel_trip_rad_s[0]


def _turn(profile: SafetyProfile) -> float:
    return 2.0 * (profile.base_ang_vel_trip_rad_s or 0.0)


def _too_late(profile: SafetyProfile) -> float:
    """An age at which to hold, not yet to damp."""
    return 0.5 * (profile.state_hold_s + profile.state_damp_s)


STATE_FAULTS: dict[str, Callable[[SafetyProfile], StateFault]] = {
    "none": lambda p: _always(lambda s: s),
    "drop_state/one": lambda p: _once(_drop),
    "drop_state/burst": lambda p: _for(0.5 * p.state_hold_s, _drop),
    "drop_state/lasting": lambda p: _drop,
    "delay/short": lambda p: _delay(0.5 * p.state_hold_s),
    "delay/long": lambda p: _delay(_too_late(p)),
    "delay/lasting": lambda p: _delay(2.0 * p.state_damp_s),
    "duplicate/each": lambda p: lambda s, now_s: (s, s),
    "duplicate/lasting": lambda p: _repeat_first(),
    "reorder/neighbours": lambda p: _swap_neighbours(),
    "reorder/lasting": lambda p: _behind(_too_late(p)),
    "freeze_joint/position": lambda p: _freeze("joint_pos", joint=0),
    "freeze_joint/lasting": lambda p: _freeze("joint_pos", "joint_vel", "joint_effort", joint=0),
    "freeze_imu/lasting": lambda p: _freeze("imu_quat_wxyz", "imu_ang_vel_b", "imu_lin_acc_b"),
    "nan/one": lambda p: _once(_always(_set("joint_pos", np.nan))),
    "nan/velocity": lambda p: _always(_set("joint_vel", np.nan)),
    "nan/imu": lambda p: _always(_set("imu_quat_wxyz", np.nan)),
    "nan/infinite": lambda p: _always(_set("joint_pos", np.inf)),
    "nan/lasting": lambda p: _always(_set("joint_pos", np.nan)),
    "spike/small": lambda p: _once(_always(lambda s: _shift(s, 0.5 * JOINT_JUMP_RAD))),
    "spike/one": lambda p: _once(_always(lambda s: _shift(s, SPIKE_RAD))),
    "spike/offset": lambda p: _always(lambda s: _shift(s, OFFSET_RAD)),
    "spike/lasting": lambda p: _always(lambda s: _shift(s, SPIKE_RAD)),
    "encoder_drift/lasting": lambda p: _drift(DRIFT_RAD_S),
    "velocity_spike/one": lambda p: _once(_always(_set("joint_vel", _speed(p)))),
    "velocity_spike/lasting": lambda p: _always(_set("joint_vel", _speed(p))),
    "gyro_spike/lasting": lambda p: _always(_set("imu_ang_vel_b", _turn(p))),
    "quat_flip/sign": lambda p: _always(_quat(lambda q: -q)),
    "quat_flip/one": lambda p: _once(_always(_quat(_upside_down))),
    "quat_flip/norm": lambda p: _always(_quat(lambda q: q * (1.0 + 2.0 * QUAT_NORM_TOLERANCE))),
    "quat_flip/order": lambda p: _always(_quat(lambda q: np.roll(q, -1, -1))),
    "quat_flip/lasting": lambda p: _always(_quat(_upside_down)),
    "object_unseen/one": lambda p: _pictures(_once(_drop)),
    "object_unseen/lasting": lambda p: _pictures(_drop),
    "object_late/lasting": lambda p: _pictures(_delay(PICTURE_LATE_S)),
    "object_nan/one": lambda p: _pictures(_once(_always(_no_number))),
    "object_nan/lasting": lambda p: _pictures(_always(_no_number)),
    "object_jump/one": lambda p: _pictures(_once(_always(_elsewhere))),
    "object_jump/lasting": lambda p: _pictures(_always(_elsewhere)),
    "object_face/one": lambda p: _pictures(_once(_always(_turned))),
    "object_face/lasting": lambda p: _pictures(_always(_turned)),
    "object_freeze/lasting": lambda p: _freeze(*OBJECT_FIELDS),
}
"""`<kind>/<severity>`, made for a robot's thresholds. Faults of one joint strike the first."""

_LASTING = tuple(name.removesuffix("/lasting") for name in STATE_FAULTS if name.endswith("/lasting"))
STATE_FAULT_NAMES = (*STATE_FAULTS, *_LASTING)
"""A kind without a severity is its lasting one."""
_OF_THE_IMU = ("nan/imu", "freeze_imu", "gyro_spike", "quat_flip")


def spoils_imu(name: str) -> bool:
    """Whether the fault needs a robot with an IMU."""
    return name.startswith(_OF_THE_IMU)


def spoils_object(name: str) -> bool:
    """Whether the fault needs an object that is tracked."""
    return name.startswith("object_")


def make_state_fault(name: str, robot: RobotSpec) -> StateFault:
    """One of STATE_FAULT_NAMES. Raises ConfigError listing them, or if the robot does not measure what it spoils."""
    if name not in STATE_FAULT_NAMES:
        raise ConfigError(f"unknown fault {name!r}; valid: {', '.join(STATE_FAULT_NAMES)}")
    if spoils_imu(name) and "imu_quat_wxyz" not in robot.state_fields:
        raise ConfigError(f"fault {name!r} spoils an IMU, and {robot.name!r} has none")
    if spoils_object(name) and not set(OBJECT_FIELDS) <= set(robot.state_fields):
        raise ConfigError(f"fault {name!r} spoils an object's pose, and {robot.name!r} is told of none")
    return STATE_FAULTS[name if name in STATE_FAULTS else f"{name}/lasting"](robot.safety)
