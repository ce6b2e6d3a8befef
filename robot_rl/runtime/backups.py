"""Backup tiers: what takes over where a policy must not go on, and what each must be able to trust.

A robot's profile names its tiers in order of preference (`SafetyProfile.backup`; `robot_rl.robots.spec.BACKUPS` has the
usual one for each kind of robot), and damping is the last of every one. After a soft trip the first of them whose
information is still trusted takes over, and from there on it only goes down: each tier needs less information than the
one above it, and damping needs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from robot_rl.robots import BackupTier, SafetyProfile
from robot_rl.runtime.checks import Cause, Target
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.measurement import Measurement
from robot_rl.runtime.modes import Event, Mode

RECOVERY_LIMIT_S = 10.0
"""A recovery policy has this long until an operator must have taken over."""


class Information(IntEnum):
    """What can still be believed; each level includes those below it."""

    NOTHING = 0
    JOINTS = 1
    """Joint positions, a state's hold age ago at the latest."""
    BASE = 2
    """Which way is up, besides; of a base that is bolted down this is never in doubt."""
    POLICY = 3
    """All that a policy observes, and that it answers in time."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One way to fall back."""

    name: BackupTier
    needs: Information
    event: Event
    """What leads into it."""
    mode: Mode


TIERS: tuple[Tier, ...] = (
    Tier("recovery", Information.POLICY, Event.TO_RECOVERY, Mode.RECOVER),
    Tier("home", Information.BASE, Event.TO_HOME, Mode.HOME),
    Tier("hold", Information.JOINTS, Event.TO_HOLD, Mode.HOLD),
    Tier("damp", Information.NOTHING, Event.HARD_TRIP, Mode.DAMP),
)
"""From the one that needs most to the one that needs nothing."""

TIER: dict[str, Tier] = {t.name: t for t in TIERS}
TIER_OF_MODE: dict[Mode, Tier] = {t.mode: t for t in TIERS}

TRUSTED_AFTER: dict[Cause, Information] = {
    # Without a clock nothing has an age, and a state that is not valid or jumped tells nothing.
    Cause.CLOCK: Information.NOTHING,
    Cause.STATE_INVALID: Information.NOTHING,
    Cause.STATE_JUMP: Information.NOTHING,
    Cause.STATE_FROZEN: Information.NOTHING,
    # A soft trip comes while the last state is young. Joints that are held stay where they were; a base does not.
    Cause.STATE_STALE: Information.JOINTS,
    Cause.COMM_LOSS: Information.JOINTS,
    # A process that comes late keeps a constant target well enough, and neither a ramp nor a balance.
    Cause.OVERRUN: Information.JOINTS,
    # A motor that is hot, weak or broken does not do what a policy learned of it.
    Cause.TEMPERATURE: Information.BASE,
    Cause.BATTERY: Information.BASE,
    Cause.MOTOR_ERROR: Information.BASE,
    Cause.JOINT_EFFORT: Information.BASE,
    # What a policy goes by is gone; the robot's own sensors are not.
    Cause.OBJECT_LOST: Information.BASE,
    Cause.OBJECT_INVALID: Information.BASE,
    Cause.OBJECT_DROPPED: Information.BASE,
}
"""What a soft trip of each cause leaves to be trusted; all, where nothing is said."""

_POLICY_FAILED = frozenset(
    {Cause.POLICY_ERROR, Cause.POLICY_INVALID, Cause.POLICY_STALE, Cause.OBS_OUT_OF_DISTRIBUTION}
)


def trusted(cause: Cause, measured: Measurement | None, target: Target | None, limits: SafetyLimits) -> Information:
    """What can be believed after a soft trip of `cause`, with the last believed measurement and what was in force."""
    known = TRUSTED_AFTER.get(cause, Information.POLICY)
    if measured is None:
        return Information.NOTHING
    if limits.floating_base and measured.quat_wxyz is None:
        known = min(known, Information.JOINTS)
    # A policy takes over from a policy alone: a robot that is only asked to stand may hang from a gantry.
    running = target is not None and target.kind == "policy"
    if not running or (target is not None and target.tier == "recovery" and cause in _POLICY_FAILED):
        known = min(known, Information.BASE)
    return known


def choose(tiers: tuple[BackupTier, ...], known: Information, current: BackupTier | None = None) -> BackupTier:
    """The first of a profile's `tiers` that `known` is enough for, none above the `current` one; else damp."""
    below = TIERS[TIERS.index(TIER[current]) if current else 0 :]
    for tier in below:
        if tier.name in tiers and tier.needs <= known:
            return tier.name
    return "damp"


def limit_s(mode: Mode, profile: SafetyProfile) -> float | None:
    """How long a backup's mode may last before it damps; None for a mode that may stay."""
    limits = {
        Mode.RECOVER: RECOVERY_LIMIT_S,
        Mode.HOME: profile.stand_duration_s + profile.hold_limit_s,
        Mode.HOLD: profile.hold_limit_s,
    }
    return limits.get(mode)
