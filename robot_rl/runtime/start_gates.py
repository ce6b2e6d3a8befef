"""Start gates: what must hold before a robot may stand or run. GATES is the whole list, and each says what is missing.

Nothing here starts anything: an operator requests, and a request that is refused is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_rl.runtime.checks import Severity
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.measurement import Measurement
from robot_rl.runtime.modes import Event, Mode, Request, next_mode
from robot_rl.runtime.object_pose import ObjectTrack, turn_between
from robot_rl.runtime.safety import Verdict

SETTLED_S = 0.5
"""STAND must have been still and in place for this long."""
TILT_RAD = 0.2
DRY_RUNS = 5
"""Inferences on real observations before the first one that counts; more where the history is longer."""
COMMAND_AT_REST = 0.05
"""Largest element of a command, in its own unit, that still asks for rest: sticks do not return to zero exactly."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What the gates look at."""

    limits: SafetyLimits
    now_s: float
    age_s: float
    """Of the newest state; infinite without one."""
    measured: Measurement | None
    """The last believed measurement."""
    verdict: Verdict | None
    """Of the last tick."""
    settled_s: float
    """How long the robot has stood still at the end of its ramp."""
    observed: int
    """Dry inferences on consecutive real observations."""
    history_length: int
    policy_problem: str
    """What went wrong in the last dry inference."""
    command_missing: bool
    command: NDArray[np.float32] | None
    """As the policy would get it, where zero asks for rest; else None."""
    command_name: str
    deadman_age_s: float
    object: ObjectTrack
    """What is known of the object whose pose the policy reads, if it reads one."""


def _state(s: Situation) -> str:
    return "no valid state yet" if s.measured is None or s.verdict is None else ""


def _green(s: Situation) -> str:
    tripped = s.verdict is not None and s.verdict.severity >= Severity.HOLD
    return f"check {s.verdict.cause.value} is not green" if tripped and s.verdict is not None else ""


def _fresh(s: Situation) -> str:
    if abs(s.age_s) <= s.limits.state_hold_s or s.measured is None:
        return ""
    return f"the state is {s.age_s:.3f} s old, must be at most {s.limits.state_hold_s} s"


def _settled(s: Situation) -> str:
    return "" if s.settled_s >= SETTLED_S else f"standing still for {s.settled_s:.2f} s of {SETTLED_S} s"


def _pose(s: Situation) -> str:
    if s.measured is None:
        return ""
    distance = np.abs(s.measured.joint_pos - s.limits.stand_pos)
    worst, limit = int(distance.argmax()), s.limits.profile.stand_error_rad
    if distance[worst] <= limit:
        return ""
    return f"joint {worst} is {distance[worst]:.3f} rad from the pose to stand in, must be within {limit} rad"


def _tilt(s: Situation) -> str:
    if s.limits.profile.tilt_trip_rad is None:
        return ""
    tilt = None if s.measured is None else s.measured.tilt_rad()
    if tilt is not None and tilt < TILT_RAD:
        return ""
    return f"tilt is {tilt if tilt is None else round(tilt, 3)} rad, must be below {TILT_RAD}"


def _warm(s: Situation) -> str:
    if s.policy_problem:
        return s.policy_problem
    needed = max(DRY_RUNS, s.history_length)
    return "" if s.observed >= needed else f"the policy has seen {s.observed} of {needed} observations"


def _command(s: Situation) -> str:
    if s.command_missing:
        return f"no command {s.command_name!r} received yet"
    if s.command is None or not (np.abs(s.command) > COMMAND_AT_REST).any():
        return ""
    return f"command {s.command_name!r} must be zero, is {np.round(s.command, 3).tolist()}"


def _object(s: Situation) -> str:
    limits, pose = s.limits.object, s.object.pose
    if limits is None:
        return ""
    if pose is None:
        return "no pose of the object has been seen" if s.object.seen_s == -np.inf else "the object's pose is not valid"
    age_s = abs(s.now_s - pose.stamp_s)
    if not age_s <= limits.max_age_s:
        return f"the object's pose is {age_s:.3f} s old, must be at most {limits.max_age_s} s"
    start = limits.start
    if start is None:
        return ""
    away_m = 0.0 if pose.pos is None else float(np.linalg.norm(pose.pos - start.pos_m))
    if away_m > start.pos_tolerance_m:
        return f"the object is {away_m:.3f} m from where it must be placed, must be within {start.pos_tolerance_m} m"
    turned = 0.0 if pose.quat_wxyz is None else turn_between(pose.quat_wxyz, np.array(start.quat_wxyz), start.free_axis)
    if turned > start.angle_tolerance_rad:
        return (
            f"the object is turned by {turned:.2f} rad, must be within {start.angle_tolerance_rad} rad: place it anew"
        )
    return ""


def _deadman(s: Situation) -> str:
    held = not s.limits.profile.deadman or s.deadman_age_s <= s.limits.profile.deadman_s
    return "" if held else "the deadman button is not held"


GATES: tuple[tuple[Callable[[Situation], str], tuple[Request, ...]], ...] = (
    (_state, (Request.STAND, Request.RUN)),
    (_green, (Request.STAND, Request.RUN)),
    (_fresh, (Request.STAND, Request.RUN)),
    (_settled, (Request.RUN,)),
    (_pose, (Request.RUN,)),
    (_tilt, (Request.RUN,)),
    (_object, (Request.RUN,)),
    (_warm, (Request.RUN,)),
    (_command, (Request.RUN,)),
    (_deadman, (Request.RUN,)),
)
"""(what is missing in words, or nothing; the requests that ask it)."""


def refusals(request: Request, mode: Mode, situation: Situation) -> list[str]:
    """Why `request` cannot be granted in `mode` now; empty if it can, or if it asks for nothing."""
    if request == Request.STOP:
        return []
    if next_mode(mode, Event(request.value)) == mode:
        return [] if request.value == mode.value else [f"not possible in mode {mode.value}"]
    return [missing for gate, requests in GATES if request in requests and (missing := gate(situation))]
