"""A state that can be believed: present, of the right size, finite, physically possible, and near the one before."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import NumpyState
from robot_rl.runtime.limits import SafetyLimits

Array = NDArray[np.float64]

QUAT_NORM_TOLERANCE = 0.05
JOINT_JUMP_RAD = 0.05
"""Change of a joint between two readings that needs no explanation by its speed: resolution and noise."""
_BASE_RATE_RAD_S = 6.0
"""Largest rate of turn where the profile names none."""


class Measurement(NamedTuple):
    """The part of a RobotState that the safety filter looks at, found valid."""

    stamp_s: float
    joint_pos: Array
    """(n_joints,) rad."""
    joint_vel: Array
    """(n_joints,) rad/s."""
    quat_wxyz: Array | None
    """(4,) orientation of the IMU in the world."""
    ang_vel_b: Array | None
    """(3,) rad/s."""
    joint_effort: Array | None = None
    """(n_joints,) N m as the motors report it, which may be anything: only a check reads it."""

    def tilt_rad(self) -> float | None:
        """Angle between the body's and the world's up, from the projected gravity: no Euler angles, no singularity."""
        if self.quat_wxyz is None:
            return None
        w, x, y, z = self.quat_wxyz.tolist()
        up = 1.0 - 2.0 * (x * x + y * y) / (w * w + x * x + y * y + z * z)
        return math.acos(max(-1.0, min(1.0, up)))


def measure(state: NumpyState | None, limits: SafetyLimits) -> Measurement | None:
    """The state's values, or None if any needed field is absent, of the wrong size, not finite or out of its bounds."""
    if state is None or np.shape(state.stamp_s) != (1,):
        return None
    values, fields = np.empty(limits.state_low.size), {}
    for name, span in zip(limits.state_fields, limits.state_spans, strict=True):
        value = getattr(state, name)
        fields[name] = field = values[span]
        if getattr(value, "shape", None) != (1, field.size):
            return None
        try:
            field[:] = value
        except (TypeError, ValueError):
            return None
    # Written so that NaN, which compares false, is out of bounds.
    if np.count_nonzero((values >= limits.state_low) & (values <= limits.state_high)) < len(values):
        return None
    quat = fields.get("imu_quat_wxyz")
    if quat is not None and abs(math.hypot(*quat.tolist()) - 1.0) > QUAT_NORM_TOLERANCE:
        return None
    return Measurement(
        float(state.stamp_s[0]),
        fields["joint_pos"],
        fields["joint_vel"],
        quat,
        fields.get("imu_ang_vel_b"),
        fields["joint_effort"] if "joint_effort" in fields else _efforts(state, limits.n_joints),
    )


def _efforts(state: NumpyState, n_joints: int) -> Array | None:
    """The efforts of a state that needs none; NaN for what is there and cannot be read."""
    effort = state.joint_effort
    if effort is None:
        return None
    if np.shape(effort) != (1, n_joints) or np.asarray(effort).dtype.kind not in "fiu":
        return np.full(n_joints, np.nan)
    return np.array(effort[0], np.float64)


def jump(new: Measurement, last: Measurement | None, seen_s: float, limits: SafetyLimits) -> float:
    """Change since the last believed measurement, as a share of the largest that joints and base can make.

    They are given the time since the last valid measurement, at `seen_s`, believed or not, and at most the age at which
    the robot holds: so a lasting jump does not become plausible by being repeated.
    """
    if last is None:
        return 0.0
    elapsed = abs(new.stamp_s - seen_s)
    elapsed = min(elapsed, max(limits.state_hold_s, limits.loop_period_s)) if elapsed == elapsed else 0.0
    reach = limits.vel_trip * elapsed
    reach += JOINT_JUMP_RAD
    share = largest(np.abs(new.joint_pos - last.joint_pos) / reach)
    if new.quat_wxyz is not None and last.quat_wxyz is not None:
        # q and -q are the same orientation.
        a, b = new.quat_wxyz.tolist(), last.quat_wxyz.tolist()
        cosine = min(1.0, abs(sum(map(operator.mul, a, b))) / (math.hypot(*a) * math.hypot(*b)))
        profile = limits.profile
        rate = profile.base_ang_vel_trip_rad_s or _BASE_RATE_RAD_S
        share = max(share, 2.0 * math.acos(cosine) / (2.0 * profile.attitude_error_rad + rate * elapsed))
    return share


def largest(values: NDArray[Any]) -> float:
    """The largest of (n,) values, NaN if one is. Of so few it is found four times as fast as by `max`."""
    return float(values[values.argmax()])
