"""Ramps: from the measured pose to the pose to stand in, gently, and whether the joints follow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_rl.robots import BackupTier
from robot_rl.runtime.checks import Target
from robot_rl.runtime.measurement import Measurement

Array = NDArray[np.float64]

LOW_STIFFNESS = 0.1
"""Share of kp with which a ramp out of damping begins; it reaches 1 after a quarter of the ramp."""
STILL_RAD_S = 1.0
"""A joint slower than this counts as standing still: sensors are noisy."""
LOST_S = 0.3
"""A tracking error beyond the profile's, kept for this long, ends the ramp."""


def ramp_position(start: Array, end: Array, share: float) -> Array:
    """Between two poses (..., n_joints), rad, after `share` in [0, 1] of the time: a cosine, at rest at both ends."""
    return start + 0.5 * (1.0 - math.cos(math.pi * min(1.0, max(0.0, share)))) * (end - start)


@dataclass(frozen=True, slots=True)
class Ramp:
    """One ramp under way."""

    start_s: float
    start: Array
    """(n_joints,) rad."""
    end: Array
    duration_s: float
    stiffness: float
    """Share of kp at the start."""
    tier: BackupTier | None = None

    def target(self, now_s: float) -> Target:
        share = min(1.0, max(0.0, (now_s - self.start_s) / self.duration_s)) if self.duration_s > 0 else 1.0
        stiffness = self.stiffness + (1.0 - self.stiffness) * min(1.0, 4.0 * share)
        return Target(ramp_position(self.start, self.end, share), "stand", stiffness=stiffness, tier=self.tier)

    def ended(self, now_s: float) -> bool:
        return now_s - self.start_s >= self.duration_s


class Tracking:
    """Since when the joints stand still where they were asked to, or fail to follow."""

    def __init__(self) -> None:
        self._settled_since_s: float | None = None
        self._error_since_s: float | None = None

    def update(self, ramp: Ramp, measured: Measurement, applied: Array, error_rad: float, now_s: float) -> None:
        """`applied` (n_joints,) rad is what was last commanded; `error_rad` the largest that is still tracking."""
        following = float(np.abs(applied - measured.joint_pos).max()) <= error_rad
        still = float(np.abs(measured.joint_vel).max()) <= STILL_RAD_S
        self._settled_since_s = _since(self._settled_since_s, following and still and ramp.ended(now_s), now_s)
        self._error_since_s = _since(self._error_since_s, not following, now_s)

    def settled_s(self, now_s: float) -> float:
        """How long the joints have stood still at the end of the ramp."""
        return 0.0 if self._settled_since_s is None else now_s - self._settled_since_s

    def lost(self, now_s: float) -> bool:
        return self._error_since_s is not None and now_s - self._error_since_s >= LOST_S


def _since(since_s: float | None, holds: bool, now_s: float) -> float | None:
    if not holds:
        return None
    return now_s if since_s is None else since_s
