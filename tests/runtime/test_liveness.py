"""Frozen sensors: joints that report a speed but never move, and an IMU that repeats itself to the last bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.liveness import Liveness
from robot_rl.runtime.measurement import Measurement
from robot_rl.testing.bundles import TinyPolicy

N = len(UNITREE_G1.joints)
PERIOD_S = 0.005
AT_REST_RAD_S = UNITREE_G1.safety.joint_vel_at_rest_rad_s
DYNAMIXEL_RAD, DYNAMIXEL_RAD_S = 2 * math.pi / 4096, 0.229 * 2 * math.pi / 60
"""One unit of a servo's position and of its speed, from its data sheet."""
LIMITS = SafetyLimits.make(UNITREE_G1, TinyPolicy(UNITREE_G1, control_period_s=0.02).contract(), PERIOD_S)


def frozen_after(pos, vel, quat, rate, seconds: float = 2.0) -> float | None:
    """When the evidence is complete, for signals of time, of one joint each or for all; None: never."""
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


@pytest.mark.parametrize(
    ("speed_rad_s", "expected_s"),
    [(10.0, 0.1), (-0.5, 0.1), (0.25, 0.1067), (0.15, 0.186), (0.1, 0.2963), (-0.06, 0.5634), (0.033, 1.439)],
)
def test_a_joint_that_reports_speed_and_stands_still(speed_rad_s: float, expected_s: float) -> None:
    found_s = frozen_after(lambda t: 0.5, lambda t: speed_rad_s, upright, turning)
    assert found_s is not None
    # 0.025 rad at the speed beyond 1/64 rad/s, and no sooner than after 0.1 s.
    assert expected_s <= found_s <= expected_s + 2 * PERIOD_S
    # As in the fault table: 0.1 s and one tick after the reading is wrong by 0.05 rad.
    assert found_s <= 0.05 / abs(speed_rad_s) + 0.1 + PERIOD_S


def test_the_evidence_is_the_farthest_that_the_joint_must_have_moved_over_any_time_until_now() -> None:
    rng = np.random.default_rng(0)
    most = 0.025 / LIMITS.state_damp_s
    vel = rng.uniform(-most, most, (50, N))
    liveness, last = Liveness.start(N), None
    for k in range(50):
        new = Measurement(k * PERIOD_S, np.zeros(N), vel[k], np.array(upright(0)), np.array(turning(k)))
        liveness, last = liveness.after(new, last, LIMITS), new
    # The first measurement ends no span: there was none before it.
    for travel, sign in zip(liveness.travel_rad, (1, -1), strict=True):
        spans = [((sign * vel[first:] - AT_REST_RAD_S) * PERIOD_S).sum(0) for first in range(1, 51)]
        np.testing.assert_allclose(travel, np.max(spans, axis=0), atol=1e-12)


def test_speeds_that_read_wrong_at_rest_add_up_to_nothing_in_ten_minutes() -> None:
    rng = np.random.default_rng(0)
    wrong = AT_REST_RAD_S * np.linspace(-1.0, 1.0, N)

    def speed(t: float) -> np.ndarray:
        """Always wrong by as much; now and then; and with noise of the simulated robot's size, but without error."""
        kind = np.arange(N) % 3
        now_and_then = np.sign(wrong) * AT_REST_RAD_S * rng.integers(0, 2)
        return np.select([kind == 0, kind == 1], [wrong, now_and_then], 0.05 * rng.standard_normal(N))

    assert frozen_after(lambda t: 0.5, speed, upright, turning, 600.0) is None


@pytest.mark.parametrize("step_rad", [DYNAMIXEL_RAD, 0.01])
def test_coarse_encoders_of_slow_joints_are_alive(step_rad: float) -> None:
    # From steps that take a second to steps in every reading; the speed is a whole number of units, too.
    speed = np.geomspace(step_rad, step_rad / PERIOD_S, N)
    reads = DYNAMIXEL_RAD_S * np.round(speed / DYNAMIXEL_RAD_S)

    def pos(t: float) -> np.ndarray:
        return step_rad * np.floor(speed * t / step_rad)

    assert frozen_after(pos, lambda t: reads, upright, turning, 60.0) is None


def test_one_unit_of_a_servos_speed_is_no_evidence() -> None:
    assert LEAP_HAND.safety.joint_vel_at_rest_rad_s >= DYNAMIXEL_RAD_S


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
