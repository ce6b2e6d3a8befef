"""What the safety filter looks at in every tick. CHECKS is the whole list; adding one is a function and a line."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum

from robot_rl.robots import SafetyProfile
from robot_rl.runtime import margins
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.reading import Reading, Target

__all__ = ["CHECKS", "LATCHED", "Cause", "Check", "Reading", "Severity", "Target", "judge", "ticks_to_trip"]


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
    STATE_FROZEN = "state_frozen"
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
    OBJECT_LOST = "object_lost"
    OBJECT_INVALID = "object_invalid"
    OBJECT_DROPPED = "object_dropped"
    WORKSPACE = "workspace"
    STAND_TRACKING = "stand_tracking"
    HOLD_EXPIRED = "hold_expired"
    STOPPED = "stopped"


LATCHED = frozenset(
    {
        Cause.OPERATOR_STOP, Cause.CLOCK, Cause.STATE_INVALID, Cause.STATE_JUMP, Cause.STATE_FROZEN, Cause.TILT,
        Cause.BASE_ANG_VEL, Cause.JOINT_LIMIT, Cause.JOINT_VEL, Cause.JOINT_EFFORT, Cause.TEMPERATURE, Cause.BATTERY,
        Cause.MOTOR_ERROR, Cause.COMM_LOSS, Cause.POLICY_ERROR, Cause.POLICY_INVALID,
    }
)  # fmt: skip
"""After these somebody must look at the robot: DAMP becomes FAULT. The others are cured by a new request to stand."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the filter: trips with `severity` once `margin` has been negative for `ticks` ticks in a row."""

    cause: Cause
    severity: Severity
    ticks: int
    margin: Callable[[Reading], float | None]
    """None: does not apply in this tick, and the count stays."""
    release: float = 0.0
    """Hysteresis: what has tripped stays so until its margin is back above this."""
    lasts: Callable[[SafetyProfile], float] | None = None
    """Time in s that it must last, if that is longer than `ticks`."""
    share: bool = False
    """A good tick takes one off the count instead of all: it trips once the bad ticks outnumber the good ones so far,
    which what comes and goes would else never do."""


CHECKS: tuple[Check, ...] = (
    Check(Cause.OPERATOR_STOP, Severity.DAMP, 1, lambda r: margins.true(not r.stop)),
    Check(Cause.DEADMAN_LOST, Severity.DAMP, 1, margins.deadman),
    Check(Cause.CLOCK, Severity.DAMP, 1, lambda r: margins.true(r.clock_ok)),
    Check(Cause.OVERRUN, Severity.DAMP, 6, margins.late),
    Check(Cause.OVERRUN, Severity.HOLD, 3, margins.late),
    Check(Cause.OVERRUN, Severity.WARN, 1, margins.late),
    Check(Cause.OVERRUN, Severity.HOLD, 1, margins.very_late),
    # The last command has expired and the robot damps: nobody but the operator may make it stiff again.
    Check(Cause.OVERRUN, Severity.DAMP, 1, margins.too_late),
    Check(Cause.STATE_STALE, Severity.DAMP, 1, margins.state_damp),
    Check(Cause.STATE_STALE, Severity.HOLD, 1, margins.state_hold),
    Check(Cause.STATE_INVALID, Severity.DAMP, 2, margins.state_valid),
    Check(Cause.STATE_JUMP, Severity.DAMP, 2, margins.state_jump),
    Check(Cause.TILT, Severity.DAMP, 2, margins.tilt, release=0.05),
    Check(Cause.TILT, Severity.WARN, 1, margins.tilt_warning, release=0.05),
    Check(Cause.BASE_ANG_VEL, Severity.DAMP, 2, margins.base_ang_vel, 0.1, lambda p: p.base_ang_vel_trip_s),
    Check(Cause.JOINT_LIMIT, Severity.DAMP, 2, margins.joint_limit, release=0.1),
    Check(Cause.JOINT_VEL, Severity.DAMP, 4, margins.joint_vel, release=0.1),
    Check(Cause.JOINT_VEL, Severity.HOLD, 2, margins.joint_vel, release=0.1),
    Check(Cause.STATE_FROZEN, Severity.DAMP, 1, margins.state_frozen),
    Check(Cause.JOINT_EFFORT, Severity.DAMP, 2, margins.joint_effort, 0.1, lambda p: 2.0 * p.effort_trip_s),
    Check(Cause.JOINT_EFFORT, Severity.HOLD, 2, margins.joint_effort, 0.1, lambda p: p.effort_trip_s),
    Check(Cause.TEMPERATURE, Severity.HOLD, 2, margins.temperature, release=0.05),
    Check(Cause.BATTERY, Severity.HOLD, 2, margins.battery, release=0.05),
    Check(Cause.MOTOR_ERROR, Severity.HOLD, 2, margins.motor_error),
    Check(Cause.COMM_LOSS, Severity.HOLD, 1, margins.comm_loss, release=0.1),
    Check(Cause.COMM_LOSS, Severity.WARN, 1, margins.health_age),
    Check(Cause.POLICY_ERROR, Severity.HOLD, 1, margins.policy_answered),
    Check(Cause.POLICY_INVALID, Severity.HOLD, 2, margins.policy_finite),
    # Before the age of the policy's answer, which grows because of them. Of what a camera sees, an age is debounce
    # enough: it misses a picture now and then.
    Check(Cause.OBJECT_LOST, Severity.HOLD, 1, margins.object_seen),
    Check(Cause.OBJECT_INVALID, Severity.HOLD, 1, margins.object_believed),
    Check(Cause.OBJECT_DROPPED, Severity.HOLD, 2, margins.object_near),
    Check(Cause.POLICY_STALE, Severity.HOLD, 1, margins.policy_age),
    Check(Cause.OBS_OUT_OF_DISTRIBUTION, Severity.HOLD, 2, margins.observation, 0.0, lambda p: p.obs_trip_s, True),
    Check(Cause.OBS_OUT_OF_DISTRIBUTION, Severity.WARN, 1, margins.observation, release=0.05),
    Check(Cause.COMMAND_EXPIRED, Severity.WARN, 1, margins.command_age),
    Check(Cause.WORKSPACE, Severity.HOLD, 1, margins.workspace, release=0.05),
)  # fmt: skip
"""In order of priority: of equal severities the first is the cause that is reported."""


def ticks_to_trip(check: Check, limits: SafetyLimits) -> int:
    """How many bad ticks make `check` trip in a loop of these limits."""
    if check.lasts is None:
        return check.ticks
    return max(check.ticks, math.ceil(check.lasts(limits.profile) / limits.loop_period_s - 1e-9))


_MEASURES = tuple(dict.fromkeys(check.margin for check in CHECKS))
"""Each margin is measured once: some lines differ only in how long something must last."""
_of_checks = operator.itemgetter(*(_MEASURES.index(check.margin) for check in CHECKS))
"""Margins in the order of _MEASURES -> in that of CHECKS."""
_that_trip = operator.itemgetter(
    *dict.fromkeys(_MEASURES.index(c.margin) for c in CHECKS if c.severity > Severity.WARN)
)
_NOTHING_COUNTED = (0,) * len(CHECKS)


def judge(
    reading: Reading, counts: tuple[int, ...]
) -> tuple[Severity, Cause, float, tuple[int, ...], tuple[float | None, ...]]:
    """Run CHECKS: worst severity, its cause, its margin (the least margin if nothing tripped), the new counts, and the
    margin of each check."""
    measured = [measure(reading) for measure in _MEASURES]
    values = _of_checks(measured)
    known = [value for value in measured if value is not None]
    severity, cause, margin = Severity.OK, Cause.NONE, 1.0
    # Nearly always there is nothing to count. NaN, of which a sum becomes NaN, is bad.
    if counts != _NOTHING_COUNTED or not (sum(known) >= 0.0 and min(known, default=1.0) >= 0.0):
        severity, cause, margin, counts = _count(values, counts, reading.limits)
    if severity == Severity.OK:
        margin = min([1.0, *(value for value in _that_trip(measured) if value is not None)])
    return severity, cause, margin, counts, values


def _count(
    values: tuple[float | None, ...], counts: tuple[int, ...], limits: SafetyLimits
) -> tuple[Severity, Cause, float, tuple[int, ...]]:
    """Worst severity, its cause, its margin, and the new counts."""
    severity, cause, margin = Severity.OK, Cause.NONE, 1.0
    after = []
    for check, value, count in zip(CHECKS, values, counts, strict=True):
        if value is not None and (count or not value >= 0.0):
            needed = ticks_to_trip(check, limits)
            # Negated, so that NaN is bad.
            if not value >= (check.release if count >= needed else 0.0):
                # No higher than needed: what is over is over as soon as it was detected.
                count = min(count + 1, needed)
            else:
                count = max(count - 1, 0) if check.share else 0
            if count >= needed and check.severity > severity:
                severity, cause, margin = check.severity, check.cause, value
        after.append(count)
    return severity, cause, margin, tuple(after)
