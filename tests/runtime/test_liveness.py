"""Frozen sensors: joints that report a speed but never move, and an IMU that repeats itself to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from robot_rl.robots import UNITREE_G1
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.liveness import Liveness
from robot_rl.runtime.measurement import Measurement
from robot_rl.testing.bundles import TinyPolicy

N = len(UNITREE_G1.joints)
PERIOD_S = 0.005
LIMITS = SafetyLimits.make(UNITREE_G1, TinyPolicy(UNITREE_G1, control_period_s=0.02).contract(), PERIOD_S)


def frozen_after(pos, vel, quat, rate, seconds: float = 2.0) -> float | None:
    """When the evidence is complete, for signals of time; None: never."""
    liveness, last = Liveness.start(N), None
    for k in range(round(seconds / PERIOD_S)):
        t = k * PERIOD_S
        new = Measurement(t, np.full(N, pos(t)), np.full(N, vel(t)), np.array(quat(t)), np.array(rate(t)))
        liveness = liveness.after(new, last, LIMITS)
        last = new
        if liveness.share(LIMITS) > 1.0:
            return t
    return None


def upright(t: float) -> list[float]:
    return [1.0, 0.0, 0.0, 0.0]


def turning(t: float) -> list[float]:
    return [0.1, 0.0, np.sin(t)]


def still(t: float) -> list[float]:
    return [0.0, 0.0, 0.0]


def test_sensors_that_work_are_alive() -> None:
    assert frozen_after(lambda t: 0.3 * t, lambda t: 0.3, upright, turning) is None
    # At rest, and on a test bench without any noise.
    assert frozen_after(lambda t: 0.5, lambda t: 0.0, upright, still) is None


@pytest.mark.parametrize(("speed_rad_s", "expected_s"), [(10.0, 0.1), (-0.5, 0.1), (0.25, 0.2)])
def test_a_joint_that_reports_speed_and_stands_still(speed_rad_s: float, expected_s: float) -> None:
    # 0.05 rad at the speed that counts, at most 0.05 rad in 0.1 s; forgetting makes it a little later.
    found_s = frozen_after(lambda t: 0.5, lambda t: speed_rad_s, upright, turning)
    assert found_s is not None
    assert expected_s < found_s <= 1.2 * expected_s


def test_a_speed_that_reads_slightly_wrong_at_rest_adds_up_to_nothing() -> None:
    # One unit of a Dynamixel's speed. 0.024 rad/s for 1 s until it is forgotten: below 0.05 rad.
    assert frozen_after(lambda t: 0.5, lambda t: 0.024, upright, turning, 20.0) is None


def test_one_wrong_speed_is_not_enough() -> None:
    assert frozen_after(lambda t: 0.5, lambda t: 30.0 if abs(t - 1.0) < 1e-9 else 0.0, upright, turning) is None


def test_an_imu_that_repeats_itself() -> None:
    frozen_s = frozen_after(lambda t: t, lambda t: 1.0, upright, lambda t: turning(min(t, 0.5)))
    assert frozen_s == pytest.approx(0.5 + LIMITS.state_damp_s, abs=2 * PERIOD_S)


def test_readings_of_the_same_moment_tell_nothing() -> None:
    measurement = Measurement(1.0, np.zeros(N), np.ones(N), np.array(upright(0)), np.array(turning(0)))
    liveness = Liveness.start(N)
    for _ in range(100):
        liveness = liveness.after(measurement, measurement, LIMITS)
    assert liveness.share(LIMITS) == 0.0
