"""Sensors that repeat themselves under new stamps: their values stand still while their own rates say otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.measurement import JOINT_JUMP_RAD, Measurement, largest

FADE_S = 1.0
"""Evidence is forgotten with this time constant: a speed that reads slightly wrong at rest must not add up for ever."""
IMU_NOISE_RAD_S = 1e-4
"""Less than this is the rate of no gyroscope, but of a simulated one at rest."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """Evidence against each sensor, gathered since its value last changed in any bit."""

    travel_rad: NDArray[np.float64]
    """(n_joints,) how far the measured speed should have moved the joint, at most JOINT_JUMP_RAD in `state_damp_s`: so
    nothing is frozen that has not been for so long, and one wrong speed is not much."""
    imu_still_s: float
    """How long orientation and rate of turn have been the same."""

    @staticmethod
    def start(n_joints: int) -> Liveness:
        return Liveness(np.zeros(n_joints), 0.0)

    def after(self, new: Measurement, last: Measurement | None, limits: SafetyLimits) -> Liveness:
        """The evidence once `new` has come; `last` is the believed measurement before it."""
        elapsed_s = 0.0 if last is None else min(new.stamp_s - last.stamp_s, limits.state_damp_s)
        # Also if a stamp is NaN.
        if last is None or not elapsed_s > 0.0:
            return self
        most = JOINT_JUMP_RAD / limits.state_damp_s
        step = np.minimum(np.maximum(new.joint_vel, -most), most)
        faded = (1.0 - elapsed_s / FADE_S) * self.travel_rad
        travel = (faded + step * elapsed_s) * (new.joint_pos == last.joint_pos)
        return Liveness(travel, self.imu_still_s + elapsed_s if _same_imu(new, last) else 0.0)

    def share(self, limits: SafetyLimits) -> float:
        """The strongest evidence, as a share of what proves that a sensor is frozen."""
        return max(largest(np.abs(self.travel_rad)) / JOINT_JUMP_RAD, self.imu_still_s / limits.state_damp_s)


def _same_imu(new: Measurement, last: Measurement) -> bool:
    if new.quat_wxyz is None or last.quat_wxyz is None or new.ang_vel_b is None or last.ang_vel_b is None:
        return False
    rate = new.ang_vel_b.tolist()
    same = rate == last.ang_vel_b.tolist() and new.quat_wxyz.tolist() == last.quat_wxyz.tolist()
    return same and max(map(abs, rate)) > IMU_NOISE_RAD_S
