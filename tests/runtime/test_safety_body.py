"""What the robot does and how it fares: each check at its threshold."""

import dataclasses
import math

import numpy as np
import pytest

from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.checks import Cause, Severity
from robot_rl.runtime.interface import Health
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.workspace import Workspace
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.filter_bench import DT, G1, LEAP, OK, Bench


def tilted(angle: float, axis: tuple[float, float] = (1.0, 0.0)) -> np.ndarray:
    s = math.sin(angle / 2)
    return np.array([[math.cos(angle / 2), s * axis[0], s * axis[1], 0.0]])


@pytest.mark.parametrize("axis", [(1.0, 0.0), (0.0, -1.0), (math.sqrt(0.5), math.sqrt(0.5))])
def test_tilt_warns_then_trips_after_two_ticks(axis: tuple[float, float]) -> None:
    bench = Bench(G1)
    # A tumble at 5 rad/s, slower than the trip of the base's rate; never exactly at a threshold.
    seen = []
    for angle in np.arange(0.05, 1.2, 5.0 * DT):
        bench.tick(imu_quat_wxyz=tilted(float(angle), axis))
        seen.append((round(float(angle), 2), *bench.outcome()))
    assert [angle for angle, severity, _ in seen if severity == Severity.OK] == [
        0.05,
        0.15,
        0.25,
        0.35,
        0.45,
        0.55,
        0.65,
    ]
    assert seen[7:] == [
        (0.75, Severity.WARN, Cause.TILT),
        (0.85, Severity.WARN, Cause.TILT),
        (0.95, Severity.WARN, Cause.TILT),
        (1.05, Severity.WARN, Cause.TILT),
        (1.15, Severity.DAMP, Cause.TILT),
    ]
    assert bench.damped


def test_turning_on_the_spot_is_no_tilt() -> None:
    bench = Bench(G1)
    for yaw in np.arange(0.0, 6.0, 0.1):
        quat = np.array([[math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]])
        assert bench.tick(imu_quat_wxyz=quat).severity == Severity.OK


def test_base_rate() -> None:
    bench = Bench(G1)
    assert bench.tick(imu_ang_vel_b=np.array([[3.0, 3.0, 4.0]])).severity == Severity.OK  # norm 5.83
    fast = np.array([[3.0, 3.5, 4.0]])  # norm 6.10
    # 0.05 s are three ticks of 0.02 s; two turn it by no more than a step that catches a push.
    assert [bench.tick(imu_ang_vel_b=fast) and bench.outcome() for _ in range(3)] == [
        OK,
        OK,
        (Severity.DAMP, Cause.BASE_ANG_VEL),
    ]


def test_a_joint_beyond_its_limit() -> None:
    bench = Bench(LEAP)
    edge = LEAP.default_pos.copy()
    # 0.02 rad that an end stop may give way, and 0.03 that an encoder may be wrong by.
    edge[3] = LEAP.upper[3] + 0.049
    bench.tick(target=None, joint_pos=edge[None])
    assert [bench.tick(joint_pos=edge[None]).severity for _ in range(3)] == [Severity.OK] * 3
    edge[3] = LEAP.upper[3] + 0.051
    assert [bench.tick(joint_pos=edge[None]) and bench.outcome() for _ in range(2)] == [
        OK,
        (Severity.DAMP, Cause.JOINT_LIMIT),
    ]


def test_joint_speed_holds_then_damps() -> None:
    bench = Bench(LEAP)
    fast = np.zeros((1, 16))
    fast[0, 7] = -1.01 * LEAP.vel_trip[7]
    seen = [bench.tick(joint_vel=fast) and bench.outcome() for _ in range(4)]
    assert seen == [
        OK,
        (Severity.HOLD, Cause.JOINT_VEL),
        (Severity.HOLD, Cause.JOINT_VEL),
        (Severity.DAMP, Cause.JOINT_VEL),
    ]


EFFORT = 0.6 * 0.366


def test_torque_beyond_the_limit_holds_then_damps() -> None:
    bench = Bench(LEAP)
    strong = np.zeros((1, 16))
    strong[0, 3] = -1.11 * EFFORT
    seen = [bench.tick(joint_effort=strong) and bench.outcome() for _ in range(20)]
    hold, damp = (Severity.HOLD, Cause.JOINT_EFFORT), (Severity.DAMP, Cause.JOINT_EFFORT)
    assert seen == [OK] * 9 + [hold] * 10 + [damp]
    # It must fall below 0.99 of the limit (0.9 of 1.1), not merely below 1.1 of it.
    assert bench.tick(joint_effort=strong / 1.11 * 1.05).severity == Severity.DAMP
    assert bench.tick(joint_effort=strong / 1.11 * 0.98).severity == Severity.OK


@pytest.mark.parametrize("effort", [None, np.full((1, 16), 1.09 * EFFORT)])
def test_torque_that_is_unknown_or_possible_is_fine(effort: np.ndarray | None) -> None:
    bench = Bench(LEAP)
    assert all(bench.tick(joint_effort=effort).severity == Severity.OK for _ in range(30))


@pytest.mark.parametrize("effort", [np.full((1, 16), np.nan), np.zeros(3), np.array([["a"] * 16])])
def test_torque_that_cannot_be_read_counts_as_beyond(effort: np.ndarray) -> None:
    bench = Bench(LEAP)
    for _ in range(10):
        bench.tick(joint_effort=effort)
    assert bench.outcome() == (Severity.HOLD, Cause.JOINT_EFFORT)


def health(bench: Bench, **fields: object) -> dict:
    return {"health": Health(stamp_s=bench.t + DT, **fields)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("good", "bad", "recovered", "cause", "ticks"),
    [
        # Released 5 % of the threshold below it.
        ({"motor_temperature_c": np.full(16, 84.9)}, {"motor_temperature_c": np.full(16, 85.1)},
         {"motor_temperature_c": np.full(16, 80.7)}, Cause.TEMPERATURE, 2),
        ({"winding_temperature_c": np.full(16, 119.0)}, {"winding_temperature_c": np.array([25.0] * 15 + [121.0])},
         {"winding_temperature_c": np.full(16, 110.0)}, Cause.TEMPERATURE, 2),
        ({"battery_share": 0.21}, {"battery_share": 0.19}, {"battery_share": 0.25}, Cause.BATTERY, 2),
        ({"battery_share": 1.0}, {"battery_share": math.nan}, {"battery_share": 1.0}, Cause.BATTERY, 2),
        ({"motor_errors": np.zeros(16, int)}, {"motor_errors": np.eye(16, dtype=int)[2] * 0x20},
         {"motor_errors": np.zeros(16, int)}, Cause.MOTOR_ERROR, 2),
        ({"lost_packets": 9}, {"lost_packets": 11}, {"lost_packets": 8}, Cause.COMM_LOSS, 1),
    ],
)  # fmt: skip
def test_health(good: dict, bad: dict, recovered: dict, cause: Cause, ticks: int) -> None:
    bench = Bench(LEAP)
    assert all(bench.tick(**health(bench, **good)).severity == Severity.OK for _ in range(3))
    seen = [bench.tick(**health(bench, **bad)) and bench.outcome() for _ in range(ticks)]
    assert seen == [OK] * (ticks - 1) + [(Severity.HOLD, cause)]
    # Hysteresis: just inside the threshold is not enough.
    if cause in (Cause.TEMPERATURE, Cause.COMM_LOSS) or good == {"battery_share": 0.21}:
        assert bench.tick(**health(bench, **good)).severity == Severity.HOLD
    assert bench.tick(**health(bench, **recovered)).severity == Severity.OK


@pytest.mark.parametrize("value", [np.zeros(0), "hot", np.array(["a"]), np.full((2, 3), np.nan)])
def test_health_that_cannot_be_read_is_no_good_health(value: object) -> None:
    bench = Bench(LEAP)
    for _ in range(2):
        bench.tick(**health(bench, motor_temperature_c=value))
    assert bench.outcome() == (Severity.HOLD, Cause.TEMPERATURE)


def test_health_that_is_no_longer_reported_is_a_warning() -> None:
    bench = Bench(LEAP)
    report = Health(stamp_s=bench.t, battery_share=0.9)
    assert bench.tick(health=report).severity == Severity.OK
    bench.t += 2.0  # the default of health_age_s
    bench.tick(health=report, dt=DT)
    assert bench.verdict.cause in (Cause.COMM_LOSS, Cause.OVERRUN)
    bench.tick(health=report)
    assert bench.outcome() == (Severity.WARN, Cause.COMM_LOSS)


def test_a_tip_that_leaves_the_workspace() -> None:
    tips = Workspace(LEAP_HAND, (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)).tips(LEAP.default_pos)
    box = {
        "workspace_low_m": tuple((tips.min(0) - 0.01).tolist()),
        "workspace_high_m": tuple((tips.max(0) + 0.01).tolist()),
    }
    profile = dataclasses.replace(LEAP_HAND.safety, **box)  # type: ignore[arg-type]
    limits = SafetyLimits.make(LEAP_HAND, TinyPolicy(LEAP_HAND).contract(), DT, profile)
    bench = Bench(limits)
    assert bench.tick().severity == Severity.OK
    bent = limits.default_pos.copy()
    bent[::4] -= 0.5  # every finger straightens at its base
    for step in range(4):
        bench.tick(joint_pos=(limits.default_pos + (step + 1) / 4 * (bent - limits.default_pos))[None])
    assert bench.outcome() == (Severity.HOLD, Cause.WORKSPACE)
