"""What the safety filter looks at in every tick. CHECKS is the whole list; adding one is a function and a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.measurement import Measurement

Array = NDArray[np.float64]

OVERRUN_WARN, OVERRUN_TRIP = 1.5, 4.0
"""Time between two ticks, in loop periods."""
DEADMAN_S = 0.2
"""A deadman button not confirmed for this long counts as released."""
TILT_WARN = 0.7
"""Share of the tilt trip at which to warn."""
_FLOOR = -1e3
"""Margins are not reported below this; NaN and infinite values come out here."""


class Severity(IntEnum):
    """What a check asks for. The worst one wins."""

    OK = 0
    WARN = 1
    HOLD = 2
    DAMP = 3


class Cause(str, Enum):
    """Why. One per check, and a few that the controller adds."""

    NONE = "none"
    OPERATOR_STOP = "operator_stop"
    DEADMAN_LOST = "deadman_lost"
    CLOCK = "clock"
    OVERRUN = "overrun"
    STATE_STALE = "state_stale"
    STATE_INVALID = "state_invalid"
    STATE_JUMP = "state_jump"
    TILT = "tilt"
    BASE_ANG_VEL = "base_ang_vel"
    JOINT_LIMIT = "joint_limit"
    JOINT_VEL = "joint_vel"
    JOINT_EFFORT = "joint_effort"
    TEMPERATURE = "temperature"
    BATTERY = "battery"
    MOTOR_ERROR = "motor_error"
    COMM_LOSS = "comm_loss"
    POLICY_ERROR = "policy_error"
    POLICY_INVALID = "policy_invalid"
    POLICY_STALE = "policy_stale"
    OBS_OUT_OF_DISTRIBUTION = "obs_out_of_distribution"
    COMMAND_EXPIRED = "command_expired"
    RECOVERABILITY = "recoverability"
    WORKSPACE = "workspace"
    STAND_TRACKING = "stand_tracking"
    HOLD_EXPIRED = "hold_expired"
    STOPPED = "stopped"


LATCHED = frozenset(
    {
        Cause.OPERATOR_STOP, Cause.CLOCK, Cause.STATE_INVALID, Cause.STATE_JUMP, Cause.TILT, Cause.BASE_ANG_VEL,
        Cause.JOINT_LIMIT, Cause.JOINT_VEL, Cause.JOINT_EFFORT, Cause.TEMPERATURE, Cause.BATTERY, Cause.MOTOR_ERROR,
        Cause.COMM_LOSS, Cause.POLICY_ERROR, Cause.POLICY_INVALID,
    }
)  # fmt: skip
"""After these somebody must look at the robot: DAMP becomes FAULT. The others are cured by a new request to stand."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the joints shall go, and who says so."""

    position: NDArray[Any]
    """(n_joints,) rad. May be anything: the filter trusts nothing here."""
    kind: Literal["policy", "stand", "hold"]
    stiffness: float = 1.0
    """Share of the trained kp, in [0, 1]."""
    blend: float = 1.0
    """Share of `position` in the command, in [0, 1]; the rest is `blend_from`."""
    blend_from: Array | None = None
    """(n_joints,) rad."""
    age_s: float = 0.0
    """Time since the policy computed it."""
    fresh: bool = True
    """Whether this tick is the first to see it: what is wrong with it is counted once."""
    failed: bool = False
    """The policy raised an error instead of answering."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One tick as the checks see it. None stands for what does not apply or cannot be known."""

    limits: SafetyLimits
    age_s: float
    """Age of the state; infinite without one."""
    interval_s: float | None
    """Time since the last tick."""
    clock_ok: bool
    """The clock is finite and did not go back."""
    stop: bool
    deadman_age_s: float | None
    target: Target | None
    target_finite: bool
    """The target is finite and has one number per joint."""
    state_given: bool
    state_valid: bool
    jump: float | None
    """Change since the last believed measurement, as a share of the largest possible one."""
    measured: Measurement | None
    """The state, if it is valid and no jump."""


def margin_below(value: float | None, limit: float | None) -> float | None:
    """1 - value / limit: 1 far below the limit, 0 at it, negative beyond; NaN is beyond. None if either is None."""
    if value is None or limit is None:
        return None
    margin = 1.0 - value / limit
    return margin if margin > _FLOOR else _FLOOR


def _true(ok: bool) -> float:
    return 1.0 if ok else -1.0


def _lateness(reading: Reading, periods: float) -> float | None:
    """Of the time beyond one period, against what `periods` leave beyond one."""
    if reading.interval_s is None:
        return None
    period_s = reading.limits.loop_period_s
    return margin_below(max(0.0, reading.interval_s - period_s), (periods - 1.0) * period_s)


def _late(reading: Reading) -> float | None:
    return _lateness(reading, OVERRUN_WARN)


def _very_late(reading: Reading) -> float | None:
    return _lateness(reading, OVERRUN_TRIP)


def _state_age(reading: Reading, limit_s: float) -> float | None:
    # A stamp in the future is as wrong as one in the past.
    return margin_below(abs(reading.age_s), limit_s)


def _state_valid(reading: Reading) -> float | None:
    return _true(reading.state_valid) if reading.state_given else None


def _tilt(reading: Reading, share: float) -> float | None:
    limit = reading.limits.profile.tilt_trip_rad
    if limit is None or reading.measured is None:
        return None
    return margin_below(reading.measured.tilt_rad(), share * limit)


def _base_ang_vel(reading: Reading) -> float | None:
    limit = reading.limits.profile.base_ang_vel_trip_rad_s
    if limit is None or reading.measured is None or reading.measured.ang_vel_b is None:
        return None
    rate = reading.measured.ang_vel_b
    return margin_below(float(rate @ rate) ** 0.5, limit)


def _joint_limit(reading: Reading) -> float | None:
    if reading.measured is None:
        return None
    limits, q = reading.limits, reading.measured.joint_pos
    excess = np.maximum(limits.lower - q, q - limits.upper)
    return margin_below(float(excess.max()), limits.profile.hard_margin_rad)


def _joint_vel(reading: Reading) -> float | None:
    if reading.measured is None:
        return None
    return margin_below(float((np.abs(reading.measured.joint_vel) / reading.limits.vel_trip).max()), 1.0)


def _policy_answered(reading: Reading) -> float | None:
    target = reading.target
    return None if target is None or target.kind != "policy" else _true(not target.failed)


def _policy_finite(reading: Reading) -> float | None:
    target = reading.target
    # A target that is used for several ticks is judged once, when it is fresh.
    if target is None or target.kind != "policy" or target.failed or not target.fresh:
        return None
    return _true(reading.target_finite)


def _policy_age(reading: Reading) -> float | None:
    target = reading.target
    if target is None or target.kind != "policy":
        return None
    return margin_below(abs(target.age_s), 2.0 * reading.limits.control_period_s)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the filter: trips with `severity` once `margin` has been negative for `ticks` ticks in a row."""

    cause: Cause
    severity: Severity
    ticks: int
    margin: Callable[[Reading], float | None]
    """None: does not apply in this tick, and the count stays."""


CHECKS: tuple[Check, ...] = (
    Check(Cause.OPERATOR_STOP, Severity.DAMP, 1, lambda r: _true(not r.stop)),
    Check(Cause.DEADMAN_LOST, Severity.DAMP, 1, lambda r: margin_below(r.deadman_age_s, DEADMAN_S)),
    Check(Cause.CLOCK, Severity.DAMP, 1, lambda r: _true(r.clock_ok)),
    Check(Cause.OVERRUN, Severity.DAMP, 6, _late),
    Check(Cause.OVERRUN, Severity.HOLD, 3, _late),
    Check(Cause.OVERRUN, Severity.WARN, 1, _late),
    Check(Cause.OVERRUN, Severity.HOLD, 1, _very_late),
    Check(Cause.STATE_STALE, Severity.DAMP, 1, lambda r: _state_age(r, r.limits.state_damp_s)),
    Check(Cause.STATE_STALE, Severity.HOLD, 1, lambda r: _state_age(r, r.limits.state_hold_s)),
    Check(Cause.STATE_INVALID, Severity.DAMP, 2, _state_valid),
    Check(Cause.STATE_JUMP, Severity.DAMP, 2, lambda r: margin_below(r.jump, 1.0)),
    Check(Cause.TILT, Severity.DAMP, 2, lambda r: _tilt(r, 1.0)),
    Check(Cause.TILT, Severity.WARN, 1, lambda r: _tilt(r, TILT_WARN)),
    Check(Cause.BASE_ANG_VEL, Severity.DAMP, 1, _base_ang_vel),
    Check(Cause.JOINT_LIMIT, Severity.DAMP, 1, _joint_limit),
    Check(Cause.JOINT_VEL, Severity.DAMP, 4, _joint_vel),
    Check(Cause.JOINT_VEL, Severity.HOLD, 2, _joint_vel),
    Check(Cause.POLICY_ERROR, Severity.HOLD, 1, _policy_answered),
    Check(Cause.POLICY_INVALID, Severity.HOLD, 2, _policy_finite),
    Check(Cause.POLICY_STALE, Severity.HOLD, 1, _policy_age),
)
"""In order of priority: of equal severities the first is the cause that is reported."""


def judge(reading: Reading, counts: tuple[int, ...]) -> tuple[Severity, Cause, float, tuple[int, ...]]:
    """Run CHECKS: worst severity, its cause, its margin (the least margin if nothing tripped), and the new counts."""
    severity, cause, margin, least = Severity.OK, Cause.NONE, 1.0, 1.0
    after = []
    measure, value = None, None
    for check, count in zip(CHECKS, counts, strict=True):
        # Lines that differ only in how long something must last follow one another, and measure it once.
        if check.margin is not measure:
            measure, value = check.margin, check.margin(reading)
        if value is not None:
            # Negated, so that NaN is bad.
            count = count + 1 if not value >= 0.0 else 0
            if count >= check.ticks and check.severity > severity:
                severity, cause, margin = check.severity, check.cause, value
            if check.severity > Severity.WARN and value < least:
                least = value
        after.append(count)
    return severity, cause, least if severity == Severity.OK else margin, tuple(after)
