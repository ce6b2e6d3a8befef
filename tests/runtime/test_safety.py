"""The filter as a function: each check at its threshold, each stage of the output, and anything at all as input."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.contract import NumpyState, RobotState
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.runtime.checks import CHECKS, Cause, Severity, Target, ticks_to_trip
from robot_rl.runtime.interface import Health
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.safety import MODIFICATIONS, SafetyMemory, Verdict, filter_command
from robot_rl.runtime.workspace import Workspace
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.fakes import check_command

DT = 0.02
LEAP = SafetyLimits.make(LEAP_HAND, TinyPolicy(LEAP_HAND).contract(), DT)
G1 = SafetyLimits.make(UNITREE_G1, TinyPolicy(UNITREE_G1, control_period_s=DT).contract(), DT)


def state(limits: SafetyLimits, t: float, **fields: np.ndarray) -> NumpyState:
    """At rest, upright, in the default pose."""
    n = limits.n_joints
    values = {"joint_pos": limits.default_pos[None], "joint_vel": np.zeros((1, n))}
    if "imu_quat_wxyz" in limits.state_fields:
        values |= {"imu_quat_wxyz": np.array([[1.0, 0, 0, 0]]), "imu_ang_vel_b": np.zeros((1, 3))}
    return RobotState(stamp_s=np.array([t]), **{**values, **fields})


class Bench:
    """Feeds the filter tick by tick, DT apart, with a good state and target unless told otherwise."""

    def __init__(self, limits: SafetyLimits) -> None:
        self.limits = limits
        self.memory = SafetyMemory.start(limits)
        self.t = 10.0
        self.tick(target=None)

    def tick(self, *, age_s: float = 0.0, target="default", dt: float = DT, missing: bool = False, **more):
        flags = {k: more.pop(k) for k in ("stop", "deadman_age_s", "command_age_s", "health") if k in more}
        self.t += dt
        seen = None if missing else state(self.limits, self.t - age_s, **more)
        if isinstance(target, str):
            target = Target(self.limits.default_pos, "policy")
        self.command, self.verdict, self.memory = filter_command(
            seen, age_s, target, self.limits, self.memory, self.t, **flags
        )
        return self.verdict

    def outcome(self) -> tuple[Severity, Cause]:
        return self.verdict.severity, self.verdict.cause

    @property
    def damped(self) -> bool:
        return bool((self.command.kp == 0).all() and (self.command.kd == self.limits.damping_kd).all())


OK = (Severity.OK, Cause.NONE)


def test_a_good_tick_passes_unchanged() -> None:
    bench = Bench(LEAP)
    target = LEAP.default_pos + 0.01
    bench.tick(target=Target(target, "policy"))
    assert bench.outcome() == OK
    assert not bench.verdict.modified.any()
    np.testing.assert_array_equal(bench.command.position, target)
    np.testing.assert_array_equal(bench.command.kp, LEAP.kp)


def test_the_filter_is_pure() -> None:
    bench = Bench(G1)
    memory, seen, target = bench.memory, state(G1, 10.02), Target(G1.default_pos + 0.5, "policy")
    first = filter_command(seen, 0.0, target, G1, memory, 10.04)
    second = filter_command(seen, 0.0, target, G1, memory, 10.04)
    np.testing.assert_array_equal(first[0].position, second[0].position)
    assert first[2].counts == second[2].counts
    assert not memory.modifications.any()


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


def test_hold_commands_the_measured_pose() -> None:
    bench = Bench(LEAP)
    measured = LEAP.default_pos + 0.02
    bench.tick(joint_pos=measured[None])
    bench.tick(age_s=0.06, joint_pos=measured[None], target=Target(LEAP.default_pos + 1.0, "policy"))
    assert bench.outcome() == (Severity.HOLD, Cause.STATE_STALE)
    np.testing.assert_allclose(bench.command.position, measured)


def test_a_humanoid_never_holds() -> None:
    bench = Bench(G1)
    bench.tick(age_s=0.06)
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
    bench.tick(imu_ang_vel_b=np.array([[3.0, 3.5, 4.0]]))  # norm 6.10
    assert bench.outcome() == (Severity.DAMP, Cause.BASE_ANG_VEL)


def test_a_joint_beyond_its_limit() -> None:
    bench = Bench(LEAP)
    edge = LEAP.default_pos.copy()
    edge[3] = LEAP.upper[3] + 0.019
    bench.tick(target=None, joint_pos=edge[None])
    assert bench.tick(joint_pos=edge[None]).severity == Severity.OK
    edge[3] = LEAP.upper[3] + 0.021
    bench.tick(joint_pos=edge[None])
    assert bench.outcome() == (Severity.DAMP, Cause.JOINT_LIMIT)


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


def test_overruns() -> None:
    bench = Bench(LEAP)
    bench.tick()
    severities = [bench.tick(dt=1.6 * DT).severity for _ in range(6)]
    assert severities == [Severity.WARN, Severity.WARN, Severity.HOLD, Severity.HOLD, Severity.HOLD, Severity.DAMP]
    assert bench.tick().severity == Severity.OK
    bench.tick(dt=4.1 * DT)
    assert bench.outcome() == (Severity.HOLD, Cause.OVERRUN)


@pytest.mark.parametrize("jump_s", [-1.0, math.nan, math.inf, 1e12])
def test_a_clock_that_jumps(jump_s: float) -> None:
    bench = Bench(LEAP)
    bench.tick(dt=jump_s)
    assert bench.outcome() == (Severity.DAMP, Cause.CLOCK)
    assert math.isfinite(bench.command.stamp_s)


def test_a_joint_that_reports_a_speed_and_never_moves() -> None:
    bench = Bench(LEAP)
    outcomes = [bench.tick(joint_vel=np.full((1, 16), 1.0)) and bench.outcome() for _ in range(7)]
    assert outcomes[:4] == [OK] * 4
    assert outcomes[-1] == (Severity.DAMP, Cause.STATE_FROZEN)


EFFORT = 0.6 * 0.366
"""The LEAP hand's effort limit, N m; its check trips at 1.1 of it after 0.2 s, ten ticks."""


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


def test_observations_never_seen_in_training() -> None:
    bench = Bench(LEAP)
    seen = []
    # More bad ticks than good ones, never many in a row: 2 s is a surplus of 100 ticks.
    for k in range(400):
        z = 9.0 if k % 3 == 2 else 11.0
        seen.append(bench.tick(target=Target(LEAP.default_pos, "policy", obs_z=z)).severity)
        if seen[-1] == Severity.HOLD:
            break
    assert seen[:3] == [Severity.WARN, Severity.WARN, Severity.OK]
    assert bench.outcome() == (Severity.HOLD, Cause.OBS_OUT_OF_DISTRIBUTION)
    # Two of three are bad, a surplus of one in three ticks: 1, 2, 1, 2, 3, 2, ... reaches 100 at tick 3 * 98 + 2.
    assert len(seen) == 296
    balanced = Bench(LEAP)
    assert all(
        balanced.tick(target=Target(LEAP.default_pos, "policy", obs_z=z)).severity < Severity.HOLD
        for z in [11.0, 9.0] * 200
    )


def test_a_command_that_expired_is_a_warning() -> None:
    # The tiny policy's command may be 0.2 s old.
    bench = Bench(LEAP)
    assert bench.tick(command_age_s=0.19).severity == Severity.OK
    bench.tick(command_age_s=0.21)
    assert bench.outcome() == (Severity.WARN, Cause.COMMAND_EXPIRED)
    assert bench.tick(command_age_s=None).severity == Severity.OK


def test_recoverability() -> None:
    bench = Bench(LEAP)
    for value, expected in ((0.51, OK), (0.49, OK), (0.49, (Severity.HOLD, Cause.RECOVERABILITY))):
        bench.tick(target=Target(LEAP.default_pos, "policy", recoverability=value))
        assert bench.outcome() == expected


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


def test_how_many_ticks_a_check_takes() -> None:
    effort = next(c for c in CHECKS if c.cause == Cause.JOINT_EFFORT and c.severity == Severity.HOLD)
    assert ticks_to_trip(effort, LEAP) == 10  # 0.2 s of 20 ms
    slow = SafetyLimits.make(LEAP_HAND, TinyPolicy(LEAP_HAND).contract(), 0.05)
    assert ticks_to_trip(effort, slow) == 4
    assert ticks_to_trip(CHECKS[0], slow) == 1


def test_stop_outranks_everything() -> None:
    bench = Bench(LEAP)
    bench.tick(stop=True, age_s=math.nan, joint_vel=np.full((1, 16), 99.0))
    assert bench.outcome() == (Severity.DAMP, Cause.OPERATOR_STOP)


def test_deadman() -> None:
    bench = Bench(LEAP)
    assert bench.tick(deadman_age_s=0.19).severity == Severity.OK
    bench.tick(deadman_age_s=0.21)
    assert bench.outcome() == (Severity.DAMP, Cause.DEADMAN_LOST)


@pytest.mark.parametrize("bad", [np.full(16, np.nan), np.full(16, np.inf), np.zeros(15), np.array(["x"] * 16)])
def test_a_policy_that_says_nonsense_is_bridged_once_then_held(bad: np.ndarray) -> None:
    bench = Bench(LEAP)
    bench.tick(target=Target(LEAP.default_pos + 0.01, "policy"))
    before = bench.command.position
    assert bench.tick(target=Target(bad, "policy")).severity == Severity.OK
    np.testing.assert_array_equal(bench.command.position, before)
    assert bench.verdict.modified[MODIFICATIONS.index("not_finite")].all()
    # The same answer, still in use at a faster loop's next tick, is not a second one.
    assert bench.tick(target=Target(bad, "policy", fresh=False)).severity == Severity.OK
    bench.tick(target=Target(bad, "policy"))
    assert bench.outcome() == (Severity.HOLD, Cause.POLICY_INVALID)


def test_a_policy_that_fails_or_falls_silent() -> None:
    bench = Bench(LEAP)
    bench.tick(target=Target(LEAP.default_pos, "policy", failed=True))
    assert bench.outcome() == (Severity.HOLD, Cause.POLICY_ERROR)
    # The contract's control period is 0.05 s.
    assert bench.tick(target=Target(LEAP.default_pos, "policy", age_s=0.099)).severity == Severity.OK
    bench.tick(target=Target(LEAP.default_pos, "policy", age_s=0.101))
    assert bench.outcome() == (Severity.HOLD, Cause.POLICY_STALE)


def test_rate_limit_by_hand() -> None:
    bench = Bench(LEAP)
    target = LEAP.default_pos.copy()
    target[0] += 1.0
    step = 103 * 2 * np.pi / 60 / 2 * DT
    for k in range(1, 5):
        bench.tick(target=Target(target, "policy"))
        assert bench.command.position[0] == pytest.approx(0.6 + min(1.0, k * step))
        assert bench.verdict.modified[MODIFICATIONS.index("rate_limit")].tolist() == [True] + [False] * 15
    assert bench.memory.modifications[MODIFICATIONS.index("rate_limit"), 0] == 4


def test_action_bound_and_soft_limit() -> None:
    bench = Bench(LEAP)
    for _ in range(60):
        bench.tick(target=Target(np.full(16, 10.0), "policy"))
    # The tiny policy's action bound is 6 % inside, the soft limit 5 %.
    np.testing.assert_allclose(bench.command.position, LEAP.action_high)
    for _ in range(60):
        bench.tick(target=Target(np.full(16, -10.0), "stand"))
    np.testing.assert_allclose(bench.command.position, LEAP.soft_lower)


def test_float32_rounding_at_a_limit_is_no_modification() -> None:
    bench = Bench(LEAP)
    for _ in range(60):
        bench.tick(target=Target(LEAP.action_high.astype(np.float32), "policy"))
    assert not bench.verdict.modified.any()
    assert (bench.command.position <= LEAP.action_high).all()


def test_soft_start_blends() -> None:
    bench = Bench(LEAP)
    start = LEAP.default_pos
    bench.tick(target=Target(start + 0.04, "policy", blend=0.25, blend_from=start))
    np.testing.assert_allclose(bench.command.position, start + 0.01)


@pytest.mark.parametrize(("stiffness", "share"), [(0.3, 0.3), (-1.0, 0.0), (7.0, 1.0), (math.nan, 0.0)])
def test_stiffness_is_a_share(stiffness: float, share: float) -> None:
    bench = Bench(LEAP)
    bench.tick(target=Target(LEAP.default_pos, "stand", stiffness=stiffness))
    np.testing.assert_allclose(bench.command.kp, share * LEAP.kp)


def test_a_policy_command_expires_with_the_state_it_rests_on() -> None:
    bench = Bench(LEAP)
    bench.tick(age_s=0.03)
    assert bench.command.expires_s == pytest.approx(bench.t - 0.03 + 0.1)
    bench.tick(target=None, age_s=0.03)
    assert bench.command.expires_s == pytest.approx(bench.t + 0.1)


def test_the_first_position_after_damping_starts_from_where_the_robot_is() -> None:
    bench = Bench(LEAP)
    elsewhere = LEAP.default_pos + 0.4
    bench.tick(target=None, joint_pos=elsewhere[None])
    bench.tick(target=Target(LEAP.default_pos, "stand"), joint_pos=elsewhere[None])
    assert (np.abs(bench.command.position - elsewhere) <= LEAP.max_step + 1e-12).all()


def test_margin_is_the_least_or_the_causes_own() -> None:
    bench = Bench(LEAP)
    assert bench.tick(age_s=0.03).margin == pytest.approx(1 - 0.03 / 0.05)
    assert bench.tick(age_s=0.06).margin == pytest.approx(1 - 0.06 / 0.05)


def test_every_check_is_reached_by_some_test_of_the_filter() -> None:
    here = Path(__file__)
    text = here.read_text() + here.with_name("test_object_pose.py").read_text()
    assert {c.cause for c in CHECKS} == {c for c in Cause if c != Cause.NONE and f"Cause.{c.name}" in text}


ANY = st.floats(width=64) | st.sampled_from([math.nan, math.inf, -math.inf, 5e-324, -5e-324, 1.8e308, 0.0, -0.0, 1.0])


def vector(n: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(ANY, min_size=n, max_size=n).map(np.array)


@st.composite
def ticks(draw, robot: RobotSpec):
    """A few ticks, each with sane fields or arbitrary ones."""
    limits = G1 if robot is UNITREE_G1 else LEAP
    n = limits.n_joints
    result = []
    for _ in range(draw(st.integers(1, 4))):
        fields = {}
        for name, size in (
            ("joint_pos", n),
            ("joint_vel", n),
            ("imu_quat_wxyz", 4),
            ("imu_ang_vel_b", 3),
            ("joint_effort", n),
        ):
            if (name in limits.state_fields or name == "joint_effort") and draw(st.booleans()):
                fields[name] = draw(vector(size))[None]
        target = None
        if draw(st.integers(0, 4)):
            target = Target(
                position=draw(vector(draw(st.sampled_from([n, n, n, 0, n + 1])))),
                kind=draw(st.sampled_from(["policy", "stand", "hold"])),
                stiffness=draw(ANY),
                blend=draw(ANY),
                blend_from=draw(st.none() | vector(n)),
                age_s=draw(ANY),
                fresh=draw(st.booleans()),
                failed=draw(st.booleans()),
                base=draw(st.none() | vector(n)),
                obs_z=draw(st.none() | ANY),
                recoverability=draw(st.none() | ANY),
            )
        sane_time = draw(st.booleans())
        flags = {"stop": draw(st.booleans()), "deadman_age_s": draw(st.none() | ANY)}
        flags["command_age_s"] = draw(st.none() | ANY)
        if draw(st.booleans()):
            flags["health"] = Health(draw(ANY), draw(vector(n)), draw(vector(n)), draw(ANY), draw(vector(n)), 3)
        result.append((fields, draw(ANY), draw(ANY), target, sane_time, flags))
    return limits, result


@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_comes_in_what_goes_out_is_finite_and_inside_limits(robot: RobotSpec, data: st.DataObject) -> None:
    limits, steps = data.draw(ticks(robot))
    memory = SafetyMemory.start(limits)
    t, last = 10.0, None
    # One sane tick first, so that position commands are possible at all.
    _, _, memory = filter_command(state(limits, t), 0.0, None, limits, memory, t)
    for fields, age_s, now_s, target, sane_time, flags in steps:
        t += DT
        now = t if sane_time else now_s
        seen = dataclasses.replace(state(limits, now - age_s), **fields)
        with np.errstate(all="ignore"):
            command, verdict, memory = filter_command(
                seen, 0.0 if sane_time else age_s, target, limits, memory, now, **flags
            )
        check_command(command, robot)
        assert math.isfinite(command.stamp_s)
        assert math.isfinite(command.expires_s)
        assert isinstance(verdict, Verdict)
        assert math.isfinite(verdict.margin)
        stiff = (command.kp > 0).any()
        if stiff:
            assert (command.position >= limits.soft_lower).all()
            assert (command.position <= limits.soft_upper).all()
        if flags["stop"] or verdict.severity == Severity.DAMP or target is None:
            assert not stiff
            np.testing.assert_array_equal(command.kd, limits.damping_kd)
        if stiff and last is not None and target is not None and target.blend >= 1.0:
            # A joint that must brake may be told to within one tick; it is told nothing else faster than its rate.
            braked = verdict.modified[MODIFICATIONS.index("braking")]
            assert (braked | (np.abs(memory.reference - last) <= limits.max_step * (1 + 1e-9) + 1e-12)).all()
        last = memory.reference if stiff else None
