"""What must be noticed of a fault, why, and within what time: thresholds come from the limits and from CHECKS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import NumpyState
from robot_rl.runtime.checks import CHECKS, Cause, Severity, ticks_to_trip
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.measurement import JOINT_JUMP_RAD


@dataclass(frozen=True, slots=True)
class Sight:
    """What a bystander sees in one tick."""

    state: NumpyState
    """What arrives."""
    age_s: float
    joint_pos: NDArray[np.float64]
    """(n_joints,) rad, the true ones."""
    limits: SafetyLimits


@dataclass(frozen=True, slots=True)
class Expect:
    """What must be noticed of a fault, and when."""

    causes: tuple[Cause, ...]
    severity: Severity
    within: Callable[[SafetyLimits], float]
    """Threshold, s. One tick more is allowed."""
    by: Literal["runtime", "robot", "filter"] = "runtime"
    """Who notices: a check; the robot, whose commands expire; or the bounds on targets, which go on working."""
    due: Callable[[Sight], bool] | None = None
    """Whether the threshold is passed. The time to notice counts from there, provided that it stays so for `within`; it
    may never come to that. None: it counts from the fault's beginning."""


def _ticks(cause: Cause, severity: Severity, limits: SafetyLimits) -> int:
    """Bad ticks until the first line of CHECKS trips."""
    return min(ticks_to_trip(c, limits) for c in CHECKS if c.cause == cause and c.severity >= severity)


def debounce(cause: Cause, severity: Severity = Severity.HOLD) -> Callable[[SafetyLimits], float]:
    """From the first bad tick to the one that trips."""
    return lambda limits: (_ticks(cause, severity, limits) - 1) * limits.loop_period_s


def too_long(limits: SafetyLimits) -> float:
    """How long a process is stopped, or an evaluation takes, that is too long for one tick."""
    return (limits.profile.overrun_hold_periods + 1) * limits.loop_period_s


def noticed(cause: Cause, severity: Severity = Severity.HOLD) -> Expect:
    return Expect((cause,), severity, debounce(cause, severity))


def evaluations(cause: Cause) -> Expect:
    """Counted in evaluations of the policy; the first one may be a whole period away."""
    return Expect(
        (cause,), Severity.HOLD, lambda limits: _ticks(cause, Severity.HOLD, limits) * limits.control_period_s
    )


UNSEEN = Expect(
    (Cause.OBS_OUT_OF_DISTRIBUTION,),
    Severity.HOLD,
    lambda limits: limits.control_period_s + debounce(Cause.OBS_OUT_OF_DISTRIBUTION)(limits),
)
STALE = Expect((Cause.STATE_STALE,), Severity.HOLD, lambda limits: limits.state_hold_s)
EXPIRED = Expect((), Severity.DAMP, lambda limits: limits.time_to_live_s, by="robot")
UNANSWERED = Expect((), Severity.DAMP, lambda limits: limits.control_period_s + limits.time_to_live_s, by="robot")
WOKEN = Expect((Cause.OVERRUN,), Severity.HOLD, too_long)
TOO_SLOW = Expect((Cause.OVERRUN,), Severity.HOLD, lambda limits: limits.control_period_s + too_long(limits))
RELEASED = Expect((Cause.DEADMAN_LOST,), Severity.DAMP, lambda limits: limits.profile.deadman_s)
# A button that was held before the jump was held long ago.
JUMPED = Expect((Cause.OVERRUN, Cause.DEADMAN_LOST), Severity.HOLD, debounce(Cause.OVERRUN))
DAMPED_OUT = Expect((), Severity.DAMP, lambda limits: 0.0, by="robot")
BOUNDED = Expect((), Severity.OK, lambda limits: limits.control_period_s, by="filter")
FROZEN = Expect((Cause.STATE_FROZEN,), Severity.DAMP, lambda limits: limits.state_damp_s)
_BODY = (
    Cause.TILT, Cause.BASE_ANG_VEL, Cause.JOINT_VEL, Cause.JOINT_LIMIT, Cause.STATE_JUMP, Cause.STATE_FROZEN,
    Cause.JOINT_EFFORT, Cause.OBS_OUT_OF_DISTRIBUTION,
)  # fmt: skip
"""What a body that is out of control shows first is up to chance."""


def _object_age(limits: SafetyLimits) -> float:
    """How old the pose of the object may be, s."""
    assert limits.object is not None
    return limits.object.max_age_s


def _dropped(sight: Sight) -> bool:
    """Measured further from where episodes begin than an object in hand gets."""
    limits, pos = sight.limits.object, sight.state.object_pos
    if limits is None or limits.start is None or pos is None:
        return False
    return float(np.linalg.norm(pos[0] - limits.start.pos_m)) > limits.start.lost_distance_m


def _old(sight: Sight) -> bool:
    return sight.age_s > sight.limits.state_hold_s


def _tipped(sight: Sight) -> bool:
    """Measured to lean further, or to turn faster, than the profile allows."""
    tilt, turn = sight.limits.profile.tilt_trip_rad, sight.limits.profile.base_ang_vel_trip_rad_s
    quat, rate = sight.state.imu_quat_wxyz, sight.state.imu_ang_vel_b
    leans = tilt is not None and quat is not None and 1 - 2 * float(quat[0, 1] ** 2 + quat[0, 2] ** 2) < np.cos(tilt)
    return leans or (turn is not None and rate is not None and float(np.linalg.norm(rate)) > turn)


def _too_fast(sight: Sight) -> bool:
    return bool((np.abs(sight.state.joint_vel[0]) > sight.limits.vel_trip).any())


def _past_the_limit(sight: Sight) -> bool:
    q, profile = sight.state.joint_pos[0], sight.limits.profile
    margin = profile.hard_margin_rad + profile.joint_pos_error_rad
    return bool((np.maximum(sight.limits.lower - q, q - sight.limits.upper) > margin).any())


def _misread(sight: Sight) -> bool:
    return abs(float(sight.state.joint_pos[0, 0] - sight.joint_pos[0])) > JOINT_JUMP_RAD


OLD = Expect((Cause.STATE_STALE,), Severity.HOLD, debounce(Cause.STATE_STALE), due=_old)
FALL = Expect(
    _BODY, Severity.HOLD, lambda lim: max(debounce(c)(lim) for c in (Cause.TILT, Cause.BASE_ANG_VEL)), due=_tipped
)
SHOVED = Expect(_BODY, Severity.HOLD, debounce(Cause.JOINT_VEL), due=_too_fast)
DRIFTED = Expect(_BODY, Severity.HOLD, debounce(Cause.JOINT_LIMIT), due=_past_the_limit)
MISREAD = Expect((Cause.STATE_FROZEN,), Severity.DAMP, lambda limits: limits.state_damp_s, due=_misread)
UNSEEN_OBJECT = Expect((Cause.OBJECT_LOST,), Severity.HOLD, _object_age)
UNBELIEVED_OBJECT = Expect((Cause.OBJECT_INVALID,), Severity.HOLD, _object_age)
# Nothing that runs looks for it. If the object leaves the hand meanwhile, nobody sees that either.
STUCK = Expect((Cause.OBS_OUT_OF_DISTRIBUTION,), Severity.HOLD, _object_age, due=lambda sight: False)
# Faster than an object moves in hand, it may be a pose that is not believed, or an observation unlike any.
DROPPED = Expect(
    (Cause.OBJECT_DROPPED, Cause.OBJECT_INVALID, Cause.OBS_OUT_OF_DISTRIBUTION), Severity.HOLD,
    lambda limits: max(debounce(Cause.OBJECT_DROPPED)(limits), _object_age(limits)), due=_dropped,
)  # fmt: skip
# The clipped command may be one that training never saw, and then the policy's observation tells; or what becomes of an
# object that it moves.
STRANGE = Expect(
    (Cause.OBS_OUT_OF_DISTRIBUTION, Cause.OBJECT_DROPPED), Severity.HOLD, debounce(Cause.OBS_OUT_OF_DISTRIBUTION),
    due=lambda sight: False,
)  # fmt: skip
