"""Sensors that repeat themselves under new stamps: their values stand still while their own rates say otherwise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.measurement import JOINT_JUMP_RAD, Measurement, largest

TRAVEL_RAD = 0.5 * JOINT_JUMP_RAD
"""A joint that must have moved so far, and still reads the same, is frozen: sixteen steps of the coarsest encoder, a
Dynamixel's. The other half of JOINT_JUMP_RAD is what `joint_vel_at_rest_rad_s` may take from the evidence: a joint that
is off by all of it within 1.0 s (G1: 1.6 s) is known to be frozen by then."""
IMU_NOISE_RAD_S = 1e-4
"""Less than this is the rate of no gyroscope, but of a simulated one at rest."""

_UP_AND_DOWN = np.array([[1.0], [-1.0]])


class Liveness(NamedTuple):
    """Evidence against each sensor, gathered since its value last changed in any bit."""

    travel_rad: NDArray[np.float64]
    """(2, n_joints) how far each joint must have moved up, and down, if its measured speed was never wrong by more than
    `joint_vel_at_rest_rad_s`: the largest over all spans of time that end now (a CUSUM). So neither a lasting error of
    that size nor noise without one adds up. At most TRAVEL_RAD in `state_damp_s`: nothing is frozen that has not been
    for so long, and one wrong speed is not much."""
    imu_still_s: float
    """How long orientation and rate of turn have been the same."""

    @staticmethod
    def start(n_joints: int) -> Liveness:
        return Liveness(np.zeros((2, n_joints)), 0.0)

    def after(self, new: Measurement, last: Measurement | None, limits: SafetyLimits) -> Liveness:
        """The evidence once `new` has come; `last` is the believed measurement before it."""
        elapsed_s = 0.0 if last is None else min(new.stamp_s - last.stamp_s, limits.state_damp_s)
        # Also if a stamp is NaN.
        if last is None or not elapsed_s > 0.0:
            return self
        at_rest = limits.profile.joint_vel_at_rest_rad_s
        most = TRAVEL_RAD / limits.state_damp_s + at_rest
        vel = np.minimum(np.maximum(new.joint_vel, -most), most)
        moved = self.travel_rad + elapsed_s * (_UP_AND_DOWN * vel - at_rest)
        travel = np.maximum(moved, 0.0) * (new.joint_pos == last.joint_pos)
        return Liveness(travel, self.imu_still_s + elapsed_s if _same_imu(new, last) else 0.0)

    def share(self, limits: SafetyLimits) -> float:
        """The strongest evidence, as a share of what proves that a sensor is frozen."""
        return max(largest(self.travel_rad.ravel()) / TRAVEL_RAD, self.imu_still_s / limits.state_damp_s)


def _same_imu(new: Measurement, last: Measurement) -> bool:
    if new.quat_wxyz is None or last.quat_wxyz is None or new.ang_vel_b is None or last.ang_vel_b is None:
        return False
    rate = new.ang_vel_b.tolist()
    same = rate == last.ang_vel_b.tolist() and new.quat_wxyz.tolist() == last.quat_wxyz.tolist()
    return same and max(map(abs, rate)) > IMU_NOISE_RAD_S
