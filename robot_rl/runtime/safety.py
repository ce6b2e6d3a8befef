"""The safety filter: one pure function between whatever wants to move the robot and the robot.

It reads RobotState and never the policy's observation, keeps nothing between calls but the memory it returns, and does
the same in simulation, in the Python loop and under ROS 2. `checks.CHECKS` lists what it looks at, `TargetLimiter` what
it does to a target.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import JointCommand, NumpyState, damping_command
from robot_rl.robots import BackupTier
from robot_rl.runtime import object_pose
from robot_rl.runtime.backups import choose, trusted
from robot_rl.runtime.checks import CHECKS, Cause, Reading, Severity, Target, judge
from robot_rl.runtime.interface import Health
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.liveness import Liveness
from robot_rl.runtime.measurement import Measurement, jump, measure
from robot_rl.runtime.object_pose import ObjectTrack
from robot_rl.runtime.self_collision import Clearance
from robot_rl.runtime.target_limiter import MODIFICATIONS, TargetLimiter

__all__ = ["MODIFICATIONS", "SafetyMemory", "Sight", "Verdict", "believable", "filter_command", "look"]

Array = NDArray[np.float64]

_SELF_COLLISION = MODIFICATIONS.index("self_collision")
_LATEST_CLOCK_S = 1e11
"""No monotonic clock gets here (3,000 years); far beyond it, adding a time to live changes nothing in float64."""


class SafetyMemory(NamedTuple):
    """What the filter must know of earlier ticks."""

    counts: tuple[int, ...]
    """Consecutive bad ticks of each entry of CHECKS."""
    modifications: NDArray[np.int64]
    """(len(MODIFICATIONS), n_joints) targets changed so far, by reason and joint."""
    limiter: TargetLimiter
    """What is done to a target, with its working memory, in which nothing is kept."""
    liveness: Liveness
    now_s: float = 0.0
    """Time of the last tick with a sane clock."""
    ticks: int = 0
    measured: Measurement | None = None
    """The last believed measurement."""
    seen_s: float = 0.0
    """Stamp of the last valid measurement, believed or not."""
    reference: Array | None = None
    """(n_joints,) target of the last tick before the soft start: what the rate limit starts from."""
    applied: Array | None = None
    """(n_joints,) position of the last command; the measured one while no position is commanded."""
    object: ObjectTrack = ObjectTrack()
    """What is known of the object whose pose the policy reads, if it reads one."""
    clearance: Clearance | None = None
    """How far apart the robot's own links were, when that was last computed."""

    @staticmethod
    def start(limits: SafetyLimits) -> SafetyMemory:
        modifications = np.zeros((len(MODIFICATIONS), limits.n_joints), np.int64)
        liveness = Liveness.start(limits.n_joints)
        return SafetyMemory((0,) * len(CHECKS), modifications, TargetLimiter(limits), liveness)


class Sight(NamedTuple):
    """What a state shows, before anything is decided about it."""

    measured: Measurement | None
    """None if the state is not valid."""
    jump: float | None
    """Its change since the last believed measurement, as a share of the largest possible one."""


class Verdict(NamedTuple):
    """What the filter found, and what it changed."""

    severity: Severity
    cause: Cause
    """The first check of that severity, in order of priority; NONE if the severity is OK."""
    margin: float
    """Distance to the threshold as a share of it, 1 far, 0 at it, negative beyond: of the cause; the least if OK."""
    modified: NDArray[np.bool_]
    """(len(MODIFICATIONS), n_joints) what was changed in this tick."""
    tier: BackupTier | None = None
    """The backup that a soft trip falls to."""
    margins: tuple[float | None, ...] = ()
    """Of each entry of CHECKS; None where it does not apply in this tick."""


def filter_command(
    state: NumpyState | None,
    age_s: float,
    target: Target | None,
    limits: SafetyLimits,
    memory: SafetyMemory,
    now_s: float,
    *,
    stop: bool = False,
    deadman_age_s: float | None = None,
    command_age_s: float | None = None,
    health: Health | None = None,
    sight: Sight | None = None,
) -> tuple[JointCommand, Verdict, SafetyMemory]:
    """Decide what the robot is told in this tick.

    `state` is the newest measurement and `age_s` its measured age (any value without a state); `target` None asks for
    damping. `stop` is the operator's emergency stop; `deadman_age_s` the time since the deadman button was last
    confirmed, None where none is needed; `command_age_s` the age of the operator's command, None where none is taken;
    `health` the robot's newest report of its own condition; `sight` what `look` finds in the state, if it was asked.

    Returns the command, the verdict and the memory for the next tick. The command is finite and its positions lie
    inside the soft limits, whatever the arguments hold. A verdict of DAMP comes with the damping command in the same
    tick. One of HOLD comes with the backup tier that shall take over and, until it does, the last believed pose; where
    only damping is left, it is raised to DAMP.
    """
    clock_ok = abs(now_s) < _LATEST_CLOCK_S and (memory.ticks == 0 or now_s >= memory.now_s)
    stamp_s = now_s if clock_ok else memory.now_s
    sight = look(state, limits, memory) if sight is None else sight
    new = sight.measured
    # A robot that is not driven may be moved by hand, or come back after a pause: that is no jump.
    share = 0.0 if new is not None and target is None else sight.jump
    believed = new if share is not None and share <= 1.0 else None
    finite = target is not None and _finite(target.position, limits.n_joints)
    by_policy = target is not None and target.kind == "policy"
    track = memory.object if limits.object is None else memory.object.after(state, limits.object, in_use=by_policy)
    liveness = memory.liveness if believed is None else memory.liveness.after(believed, memory.measured, limits)
    reading = Reading(
        limits=limits,
        age_s=age_s if state is not None else math.inf,
        interval_s=now_s - memory.now_s if clock_ok and memory.ticks else None,
        clock_ok=clock_ok,
        stop=stop,
        deadman_age_s=deadman_age_s,
        command_age_s=command_age_s,
        target=target,
        target_finite=finite,
        state_given=state is not None,
        state_valid=new is not None,
        jump=share,
        frozen=None if believed is None else liveness.share(limits),
        measured=believed,
        tilt_rad=None if believed is None or limits.profile.tilt_trip_rad is None else believed.tilt_rad(),
        health=health,
        health_age_s=None if health is None else stamp_s - health.stamp_s,
        object=track if by_policy and limits.object is not None else None,
        now_s=stamp_s,
    )
    severity, cause, margin, counts, margins = judge(reading, memory.counts)
    measured = believed or memory.measured
    # A recovery policy has limits of its own.
    limiter = memory.limiter if memory.limiter.limits is limits else TargetLimiter(limits)
    tier: BackupTier | None = None
    if severity == Severity.HOLD:
        current = None if target is None else target.tier
        tier = choose(limits.backup, trusted(cause, measured, target, limits), current)
        severity = Severity.DAMP if tier == "damp" else severity
    modified = np.zeros(memory.modifications.shape, np.bool_)
    reference, applied, clearance = memory.reference, memory.applied, memory.clearance
    if target is None or severity == Severity.DAMP or reference is None or applied is None or measured is None:
        command = damping_command(limits.damping_kd, stamp_s, limits.time_to_live_s)
        # The next position command starts from where the robot is.
        reference = applied = None if measured is None else measured.joint_pos
    else:
        if severity == Severity.HOLD and tier != target.tier:
            target = Target(measured.joint_pos, "hold", tier=tier)
            finite = _finite(target.position, limits.n_joints)
        reference, applied = _limit(
            target, finite, reference, applied, measured, stamp_s - measured.stamp_s, limits, limiter, modified
        )
        if limits.self_collision is not None and target.kind == "policy":
            q, v = measured.joint_pos, measured.joint_vel
            held, clearance = limits.self_collision.hold(applied, q, v, clearance)
            if held is not None:
                modified[_SELF_COLLISION] = held
                there = np.minimum(np.maximum(q, limits.soft_lower), limits.soft_upper)
                reference, applied = np.where(held, there, reference), np.where(held, there, applied)
        command = _position_command(target, applied, age_s, limits, stamp_s)
    memory = SafetyMemory(
        counts=counts,
        modifications=memory.modifications + modified if np.count_nonzero(modified) else memory.modifications,
        limiter=limiter,
        liveness=liveness,
        now_s=stamp_s,
        ticks=memory.ticks + 1 if clock_ok else memory.ticks,
        measured=measured,
        seen_s=memory.seen_s if new is None else new.stamp_s,
        reference=reference,
        applied=applied,
        object=track,
        clearance=clearance,
    )
    return command, Verdict(severity, cause, margin, modified, tier, margins), memory


def look(state: NumpyState | None, limits: SafetyLimits, memory: SafetyMemory) -> Sight:
    """What policy and filter must both know of a state."""
    new = measure(state, limits)
    return Sight(new, None if new is None else jump(new, memory.measured, memory.seen_s, limits))


def believable(
    state: NumpyState | None, sight: Sight, age_s: float, limits: SafetyLimits, memory: SafetyMemory
) -> bool:
    """Whether a policy may see this state, `age_s` old: valid, within reach of the last believed one, and likewise the
    object's pose, which besides must not be too old."""
    if state is None or sight.jump is None or not sight.jump <= 1.0:
        return False
    return object_pose.believable(state, age_s, limits.object, memory.object)


def _limit(
    target: Target,
    finite: bool,
    reference: Array,
    applied: Array,
    measured: Measurement,
    age_s: float,
    limits: SafetyLimits,
    limiter: TargetLimiter,
    modified: NDArray[np.bool_],
) -> tuple[Array, Array]:
    """The target made safe: (new reference, position to command). `finite` tells whether its position is of the right
    size and finite. Marks in `modified` what each stage changed."""
    n = limits.n_joints
    wanted = np.empty(n)
    if finite:
        wanted[:] = np.reshape(target.position, -1)
    else:
        # Reuse what was last commanded; the checks decide how often.
        modified[0] = True
        wanted[:] = applied
    base = np.reshape(target.base, -1) if target.base is not None and _finite(target.base, n) else None
    limiter.limit(
        wanted,
        reference,
        measured.joint_pos,
        measured.joint_vel,
        max(age_s, 0.0),
        policy=target.kind == "policy",
        base=base,
        stiffness=_unit(target.stiffness),
        modified=modified,
    )
    blend = _unit(target.blend)
    if blend == 1.0 or target.blend_from is None or not _finite(target.blend_from, n):
        return wanted, wanted
    blended = wanted.copy()
    limiter.soft_start(blended, target.blend_from, blend, modified)
    return wanted, blended


def _position_command(
    target: Target, position: Array, age_s: float, limits: SafetyLimits, now_s: float
) -> JointCommand:
    # What a policy says about a state is worth no more than the state: its command expires with it.
    life_s = limits.time_to_live_s - (abs(age_s) if target.kind == "policy" else 0.0)
    zero = np.zeros(limits.n_joints)
    return JointCommand(
        position=position,
        velocity=zero,
        effort=zero,
        kp=limits.kp if target.stiffness == 1.0 else limits.kp * _unit(target.stiffness),
        kd=limits.kd,
        stamp_s=now_s,
        expires_s=now_s + max(life_s, limits.loop_period_s),
    )


def _finite(position: NDArray[Any], n_joints: int) -> bool:
    position = np.asarray(position)
    right = position.size == n_joints and position.dtype.kind in "fiu"
    return right and np.count_nonzero(np.isfinite(position)) == n_joints


def _unit(value: float) -> float:
    """Into [0, 1]; NaN becomes 0."""
    return min(value, 1.0) if value > 0.0 else 0.0
