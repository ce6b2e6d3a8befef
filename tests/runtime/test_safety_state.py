"""States that are late, impossible, or say the same for too long: each check at its threshold."""

import math

import numpy as np
import pytest

from robot_rl.runtime.checks import Cause, Severity, Target
from robot_rl.testing.filter_bench import DT, G1, LEAP, OK, Bench


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        (0.049, OK),
        (0.051, (Severity.HOLD, Cause.STATE_STALE)),
        (0.099, (Severity.HOLD, Cause.STATE_STALE)),
        (0.101, (Severity.DAMP, Cause.STATE_STALE)),
        (-0.051, (Severity.HOLD, Cause.STATE_STALE)),
        (math.nan, (Severity.DAMP, Cause.STATE_STALE)),
        (math.inf, (Severity.DAMP, Cause.STATE_STALE)),
    ],
)
def test_state_age(age_s: float, expected: tuple) -> None:
    bench = Bench(LEAP)
    bench.tick()
    bench.tick(age_s=age_s)
    assert bench.outcome() == expected
    assert bench.damped == (expected[0] == Severity.DAMP)


def test_no_state_at_all_damps_at_once() -> None:
    bench = Bench(LEAP)
    bench.tick(missing=True)
    assert bench.outcome() == (Severity.DAMP, Cause.STATE_STALE)
    assert bench.damped


@pytest.mark.parametrize(
    "broken",
    [
        {"joint_pos": np.full((1, 16), np.nan)},
        {"joint_vel": np.full((1, 16), np.inf)},
        {"joint_pos": np.full((1, 16), 13.0)},
        {"joint_pos": np.zeros((1, 15))},
        {"joint_vel": np.zeros(16)},
        {"joint_vel": None},
        {"joint_pos": np.array([["a"] * 16])},
    ],
)
def test_an_invalid_state_is_bridged_once_then_damped(broken: dict) -> None:
    bench = Bench(LEAP)
    target = Target(LEAP.default_pos + 0.01, "policy")
    bench.tick(target=target)
    before = bench.command.position
    assert bench.tick(target=target, **broken).severity == Severity.OK
    np.testing.assert_array_equal(bench.command.position, before)
    bench.tick(target=target, **broken)
    assert bench.outcome() == (Severity.DAMP, Cause.STATE_INVALID)
    assert bench.damped


def test_one_bad_state_between_good_ones_trips_nothing() -> None:
    bench = Bench(LEAP)
    for _ in range(5):
        bench.tick()
        assert bench.tick(joint_pos=np.full((1, 16), np.nan)).severity == Severity.OK


@pytest.mark.parametrize("norm", [0.94, 1.06, 0.0])
def test_a_quaternion_of_the_wrong_length(norm: float) -> None:
    bench = Bench(G1)
    for _ in range(2):
        bench.tick(imu_quat_wxyz=np.array([[norm, 0, 0, 0]]))
    assert bench.outcome() == (Severity.DAMP, Cause.STATE_INVALID)


def test_the_other_sign_of_a_quaternion_is_the_same_orientation() -> None:
    bench = Bench(G1)
    for sign in (1, -1, 1, -1, -1):
        assert bench.tick(imu_quat_wxyz=np.array([[sign, 0.0, 0, 0]])).severity == Severity.OK


def test_a_quaternion_whose_order_flips_is_a_jump_though_its_tilt_is_zero() -> None:
    bench = Bench(G1)
    bench.tick()
    # (1, 0, 0, 0) in the order xyzw reads as half a turn about the vertical.
    for _ in range(2):
        bench.tick(imu_quat_wxyz=np.array([[0.0, 0, 0, 1]]))
    assert bench.outcome() == (Severity.DAMP, Cause.STATE_JUMP)


def test_a_joint_that_jumps_and_stays() -> None:
    bench = Bench(LEAP)
    jumped = LEAP.default_pos.copy()
    jumped[4] += 0.8
    assert bench.tick(joint_pos=jumped[None]).severity == Severity.OK
    bench.tick(joint_pos=jumped[None])
    assert bench.outcome() == (Severity.DAMP, Cause.STATE_JUMP)


def test_a_joint_that_moves_at_its_top_speed_is_no_jump() -> None:
    bench = Bench(LEAP)
    moving = LEAP.default_pos.copy()
    for _ in range(6):
        moving[4] += 0.95 * LEAP.vel_trip[4] * DT
        assert bench.tick(joint_pos=moving[None]).cause != Cause.STATE_JUMP


def test_a_robot_moved_by_hand_is_no_jump() -> None:
    bench = Bench(LEAP)
    moved = LEAP.default_pos + 0.5
    for _ in range(3):
        assert bench.tick(target=None, joint_pos=moved[None]).severity == Severity.OK


def test_a_joint_that_reports_a_speed_and_never_moves() -> None:
    bench = Bench(LEAP)
    outcomes = [bench.tick(joint_vel=np.full((1, 16), 1.0)) and bench.outcome() for _ in range(7)]
    assert outcomes[:4] == [OK] * 4
    assert outcomes[-1] == (Severity.DAMP, Cause.STATE_FROZEN)


def test_the_worst_readings_of_a_sound_robot_at_rest_trip_nothing() -> None:
    """A humanoid whose waist leans on its end stop, with every error of training's sensors at its largest: encoder
    0.02 + 0.01 rad, orientation 0.05 rad about each axis and back again, gyroscope 0.2 rad/s, 0.5 rad/s per joint."""
    bench = Bench(G1)
    for k in range(100):
        sign = 1.0 if k % 2 else -1.0
        quat = np.array([[1.0, *(sign * np.full(3, 0.025))]])
        joints = G1.default_pos.copy()
        joints[14] = G1.upper[14] + 0.02 + 0.01 * sign
        bench.tick(
            target=None if k == 0 else "default",
            joint_pos=joints[None],
            joint_vel=np.full((1, G1.n_joints), 0.5 * sign),
            imu_quat_wxyz=quat / np.linalg.norm(quat),
            imu_ang_vel_b=np.full((1, 3), 0.2 * sign),
        )
        assert bench.verdict.severity < Severity.HOLD, (k, bench.outcome())
