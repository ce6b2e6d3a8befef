"""How far one tick is from each threshold: 1 far away, 0 at it, negative beyond; None where a check does not apply."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from robot_rl.runtime.measurement import largest
from robot_rl.runtime.reading import Reading

_FLOOR = -1e3
"""Margins are not reported below this; NaN and infinite values come out here."""


def below(value: float | None, limit: float | None) -> float | None:
    """1 - value / limit, for a value that must stay below its limit; NaN is beyond. None if either is None."""
    if value is None or limit is None:
        return None
    margin = 1.0 - value / limit
    return margin if margin > _FLOOR else _FLOOR


def above(value: float | None, limit: float) -> float | None:
    """(value - limit) / (1 - limit), for a share that must stay above its limit."""
    return None if value is None else below(1.0 - value, max(1.0 - limit, 1e-9))


def true(ok: bool) -> float:
    return 1.0 if ok else -1.0


def _largest_reported(values: Any) -> float | None:
    """The largest magnitude in a report that may hold anything; what cannot be read is NaN. None if there is none."""
    if values is None:
        return None
    try:
        return float(np.abs(np.asarray(values, np.float64)).max())
    except (TypeError, ValueError):
        return float("nan")


def _lateness(reading: Reading, periods: float) -> float | None:
    """Of the time beyond one period, against what `periods` leave beyond one."""
    if reading.interval_s is None:
        return None
    period_s = reading.limits.loop_period_s
    return below(max(0.0, reading.interval_s - period_s), (periods - 1.0) * period_s)


def late(reading: Reading) -> float | None:
    return _lateness(reading, reading.limits.profile.overrun_warn_periods)


def very_late(reading: Reading) -> float | None:
    return _lateness(reading, reading.limits.profile.overrun_hold_periods)


def too_late(reading: Reading) -> float | None:
    return below(reading.interval_s, reading.limits.time_to_live_s)


def deadman(reading: Reading) -> float | None:
    return below(reading.deadman_age_s, reading.limits.profile.deadman_s)


def state_hold(reading: Reading) -> float | None:
    # A stamp in the future is as wrong as one in the past.
    return below(abs(reading.age_s), reading.limits.state_hold_s)


def state_damp(reading: Reading) -> float | None:
    return below(abs(reading.age_s), reading.limits.state_damp_s)


def state_valid(reading: Reading) -> float | None:
    return true(reading.state_valid) if reading.state_given else None


def state_jump(reading: Reading) -> float | None:
    return below(reading.jump, 1.0)


def state_frozen(reading: Reading) -> float | None:
    return below(reading.frozen, 1.0)


def _tilt(reading: Reading, share: float) -> float | None:
    limit = reading.limits.profile.tilt_trip_rad
    return None if limit is None else below(reading.tilt_rad, share * limit)


def tilt(reading: Reading) -> float | None:
    return _tilt(reading, 1.0)


def tilt_warning(reading: Reading) -> float | None:
    return _tilt(reading, reading.limits.profile.tilt_warn_share)


def base_ang_vel(reading: Reading) -> float | None:
    limit = reading.limits.profile.base_ang_vel_trip_rad_s
    if limit is None or reading.measured is None or reading.measured.ang_vel_b is None:
        return None
    return below(math.hypot(*reading.measured.ang_vel_b.tolist()), limit)


def joint_limit(reading: Reading) -> float | None:
    if reading.measured is None:
        return None
    limits, profile, q = reading.limits, reading.limits.profile, reading.measured.joint_pos
    excess = np.maximum(limits.lower - q, q - limits.upper)
    return below(largest(excess), max(profile.hard_margin_rad + profile.joint_pos_error_rad, 1e-9))


def joint_vel(reading: Reading) -> float | None:
    if reading.measured is None:
        return None
    return below(largest(np.abs(reading.measured.joint_vel) / reading.limits.vel_trip), 1.0)


def joint_effort(reading: Reading) -> float | None:
    if reading.measured is None or reading.measured.joint_effort is None:
        return None
    share = np.abs(reading.measured.joint_effort) / reading.limits.effort
    return below(largest(share), reading.limits.profile.effort_trip_share)


def temperature(reading: Reading) -> float | None:
    """Of the hottest case or winding."""
    if reading.health is None:
        return None
    profile = reading.limits.profile
    case = below(_largest_reported(reading.health.motor_temperature_c), profile.motor_temperature_trip_c)
    winding = below(_largest_reported(reading.health.winding_temperature_c), profile.winding_temperature_trip_c)
    known = [margin for margin in (case, winding) if margin is not None]
    return min(known) if known else None


def battery(reading: Reading) -> float | None:
    if reading.health is None:
        return None
    return above(reading.health.battery_share, reading.limits.profile.battery_trip_share)


def motor_error(reading: Reading) -> float | None:
    errors = None if reading.health is None else _largest_reported(reading.health.motor_errors)
    return None if errors is None else true(errors == 0.0)


def comm_loss(reading: Reading) -> float | None:
    if reading.health is None:
        return None
    return below(float(reading.health.lost_packets), reading.limits.profile.lost_packets_trip)


def health_age(reading: Reading) -> float | None:
    return below(
        None if reading.health_age_s is None else abs(reading.health_age_s), reading.limits.profile.health_age_s
    )


def policy_answered(reading: Reading) -> float | None:
    target = reading.target
    return None if target is None or target.kind != "policy" else true(not target.failed)


def policy_finite(reading: Reading) -> float | None:
    target = reading.target
    # A target that is used for several ticks is judged once, when it is fresh.
    if target is None or target.kind != "policy" or target.failed or not target.fresh:
        return None
    return true(reading.target_finite)


def policy_age(reading: Reading) -> float | None:
    target = reading.target
    if target is None or target.kind != "policy":
        return None
    return below(abs(target.age_s), reading.limits.profile.policy_age_periods * reading.limits.control_period_s)


def observation(reading: Reading) -> float | None:
    target = reading.target
    return None if target is None else below(target.obs_z, reading.limits.profile.obs_z_trip)


def command_age(reading: Reading) -> float | None:
    age_s = reading.command_age_s
    return below(None if age_s is None else abs(age_s), reading.limits.command_max_age_s)


def object_seen(reading: Reading) -> float | None:
    """Of the age of the newest report of the object, whatever it says."""
    limits = reading.limits.object
    if limits is None or reading.object is None:
        return None
    return below(abs(reading.now_s - reading.object.seen_s), limits.max_age_s)


def object_believed(reading: Reading) -> float | None:
    """Of the age of the last pose of the object that can be believed; while the newest cannot, also of the answer of
    the policy, which is not asked then."""
    limits, track = reading.limits.object, reading.object
    if limits is None or track is None:
        return None
    margin = below(math.inf if track.pose is None else abs(reading.now_s - track.pose.stamp_s), limits.max_age_s)
    unasked = policy_age(reading) if track.pose is None or track.pose.stamp_s != track.seen_s else None
    return margin if unasked is None or margin is None else min(margin, unasked)


def object_near(reading: Reading) -> float | None:
    """Of the distance of the object from where episodes begin."""
    limits, track = reading.limits.object, reading.object
    if limits is None or limits.start is None or track is None or track.pose is None or track.pose.pos is None:
        return None
    away = track.pose.pos - limits.start.pos_m
    return below(float(away @ away) ** 0.5, limits.start.lost_distance_m)


def workspace(reading: Reading) -> float | None:
    """Least distance of a tip to a face of the box, in half widths of the box."""
    box = reading.limits.workspace
    if box is None or reading.measured is None:
        return None
    margin = box.margin(reading.measured.joint_pos)
    return margin if margin > _FLOOR else _FLOOR
