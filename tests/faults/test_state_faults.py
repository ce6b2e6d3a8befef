"""Each fault of the state stream, against what its name says, on a stream whose values tell when they were measured."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from robot_rl.contract import NumpyState, RobotState
from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl_sim.faults.state import (
    OBJECT_JUMP_M,
    STATE_FAULT_NAMES,
    STATE_FAULTS,
    make_state_fault,
    spoils_imu,
    spoils_object,
)

PERIOD_S = 1 / 64
G1 = UNITREE_G1.safety
HALF = math.sqrt(0.5)


def state_at(now_s: float) -> NumpyState:
    """Joints at now_s / 10 rad, moving at 0.1 rad/s; lying on the left side, turning at 0.2 rad/s."""
    n = len(UNITREE_G1.joints)
    return RobotState(
        stamp_s=np.array([now_s]),
        joint_pos=np.full((1, n), now_s / 10),
        joint_vel=np.full((1, n), 0.1),
        joint_effort=np.zeros((1, n)),
        imu_quat_wxyz=np.array([[HALF, -HALF, 0.0, 0.0]]),
        imu_ang_vel_b=np.full((1, 3), 0.2),
        imu_lin_acc_b=np.full((1, 3), now_s),
    )


def arriving(
    name: str, seconds: float = 1.0, robot: RobotSpec = UNITREE_G1
) -> Iterator[tuple[float, list[NumpyState]]]:
    """(time, what arrives) for each measurement, the first at 2 s."""
    fault = make_state_fault(name, robot)
    for k in range(math.ceil(seconds / PERIOD_S)):
        now_s = 2.0 + k * PERIOD_S
        yield now_s, list(fault(state_at(now_s), now_s))


def stamps(name: str, seconds: float = 1.0) -> list[list[float]]:
    """In measurements since the first."""
    return [[(float(s.stamp_s[0]) - 2.0) / PERIOD_S for s in states] for _, states in arriving(name, seconds)]


def test_none_changes_nothing() -> None:
    for now_s, (state,) in arriving("none"):
        assert all(
            np.array_equal(a, b)
            for a, b in zip(vars(state).values(), vars(state_at(now_s)).values(), strict=True)
            if a is not None
        )


def test_drops() -> None:
    assert stamps("drop_state/one", 0.05) == [[], [1], [2], [3]]
    assert stamps("drop_state") == [[]] * 64
    arrived = stamps("drop_state/burst")
    assert [len(s) for s in arrived] == [0] * 2 + [1] * 62  # half of 50 ms
    assert G1.state_hold_s == 0.05


@pytest.mark.parametrize(("severity", "age_s"), [("short", 0.025), ("long", 0.075), ("lasting", 0.2)])
def test_delays_hand_over_each_state_late_with_its_own_stamp(severity: str, age_s: float) -> None:
    late = math.ceil(age_s / PERIOD_S)
    assert stamps(f"delay/{severity}") == [[]] * late + [[k] for k in range(64 - late)]


def test_duplicates_and_reordering() -> None:
    assert stamps("duplicate/each", 0.03) == [[0, 0], [1, 1]]
    assert stamps("duplicate", 0.05) == [[0]] * 4
    assert stamps("reorder/neighbours", 0.06) == [[], [1, 0], [], [3, 2]]
    assert stamps("reorder")[5:8] == [[5, 0], [6, 1], [7, 2]]  # 5 periods are 78 ms, between hold and damp


def test_a_frozen_joint_and_a_frozen_imu() -> None:
    for now_s, (state,) in arriving("freeze_joint/position"):
        assert state.joint_pos[0, 0] == 0.2
        assert state.joint_pos[0, 1] == now_s / 10
    for now_s, (state,) in arriving("freeze_imu"):
        assert state.imu_lin_acc_b is not None
        assert (state.imu_lin_acc_b == 2.0).all()
        assert (state.stamp_s[0], state.joint_pos[0, 0]) == (now_s, now_s / 10)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("nan", "joint_pos", np.nan),
        ("nan/infinite", "joint_pos", np.inf),
        ("nan/velocity", "joint_vel", np.nan),
        ("nan/imu", "imu_quat_wxyz", np.nan),
        ("velocity_spike", "joint_vel", 2 * G1.joint_vel_trip_rad_s[0]),
        ("gyro_spike", "imu_ang_vel_b", 12.0),
    ],
)
def test_one_entry_of_one_field_is_spoilt(name: str, field: str, value: float) -> None:
    for now_s, (state,) in arriving(name):
        clean = state_at(now_s)
        spoilt = np.array(getattr(state, field))
        assert np.array_equal(spoilt[0, 0], value, equal_nan=True)
        spoilt[0, 0] = getattr(clean, field)[0, 0]
        assert np.array_equal(spoilt, getattr(clean, field))
        assert state.stamp_s[0] == now_s


def test_spikes_and_drift_move_the_first_joint() -> None:
    assert [s[0].joint_pos[0, 0] - t / 10 for t, s in arriving("spike/one", 0.05)] == pytest.approx([10, 0, 0, 0])
    assert [s[0].joint_pos[0, 0] - t / 10 for t, s in arriving("spike/offset", 0.05)] == pytest.approx([1, 1, 1, 1])
    drift = [s[0].joint_pos[0, 0] - t / 10 for t, s in arriving("encoder_drift")]
    assert drift == pytest.approx([3.0 * k / 64 for k in range(64)])


def test_orientations() -> None:
    def quat(name: str) -> list[float]:
        state = next(arriving(name))[1][0]
        assert state.imu_quat_wxyz is not None
        return state.imu_quat_wxyz[0].tolist()

    assert quat("quat_flip/sign") == pytest.approx([-HALF, HALF, 0, 0])
    assert quat("quat_flip/norm") == pytest.approx([1.1 * HALF, -1.1 * HALF, 0, 0])
    assert quat("quat_flip/order") == pytest.approx([-HALF, 0, 0, HALF])  # x y z w
    # From -90 degrees about x, 180 degrees further is +90 degrees.
    assert quat("quat_flip") == pytest.approx([HALF, HALF, 0, 0])


def test_faults_of_an_imu_are_refused_without_one() -> None:
    with pytest.raises(ConfigError, match="has none"):
        make_state_fault("quat_flip/sign", LEAP_HAND)
    with pytest.raises(ConfigError, match="has none"):
        make_state_fault("nan/imu", LEAP_HAND)
    for name in STATE_FAULT_NAMES:
        if not spoils_imu(name):
            list(arriving(name, 0.5, LEAP_HAND))


def pictures(name: str, number: int = 6) -> list[tuple[float, tuple[float, float], list[float]]]:
    """(stamp, height, turn) of what states show, two states to a picture whose height and stamp tell when it was taken,
    in pictures since the first. From the first state on that the fault sees, which shows picture 0."""
    fault = make_state_fault(name, LEAP_HAND)
    found = []
    for k in range(2 * number):
        taken_s = 2.0 + k // 2 / 32
        state = RobotState(
            stamp_s=np.array([2.0 + k / 64]),
            joint_pos=np.zeros((1, 16)),
            joint_vel=np.zeros((1, 16)),
            object_pos=np.array([[0.0, 0.0, (taken_s - 2.0) * 32]]),
            object_quat_wxyz=np.array([[1.0, 0.0, 0.0, 0.0]]),
            object_stamp_s=np.array([taken_s]),
        )
        (shown,) = fault(state, 2.0 + k / 64)
        assert shown.stamp_s == state.stamp_s
        assert shown.object_pos is not None
        assert shown.object_quat_wxyz is not None
        assert shown.object_stamp_s is not None
        x, _, z = shown.object_pos[0].tolist()
        found.append(((float(shown.object_stamp_s[0]) - 2.0) * 32, (x, z), shown.object_quat_wxyz[0].tolist()))
    assert found[::2] == found[1::2] or math.isnan(found[2][1][0]), (
        "a picture is spoilt once, however often it is shown"
    )
    return found[::2]


def test_of_the_camera_pictures_are_spoilt_and_not_states() -> None:
    assert [stamp for stamp, _, _ in pictures("object_unseen/one")] == [0, 0, 2, 3, 4, 5]
    assert [stamp for stamp, _, _ in pictures("object_unseen")] == [0] * 6
    late = pictures("object_late", 40)
    assert [stamp for stamp, _, _ in late] == [0] * 33 + [1, 2, 3, 4, 5, 6, 7]  # 1 s is 32 pictures
    assert [x for _, (x, _), _ in pictures("object_jump/one")] == [0, OBJECT_JUMP_M, 0, 0, 0, 0]
    assert [x for _, (x, _), _ in pictures("object_jump")] == [0] + [OBJECT_JUMP_M] * 5
    assert np.isnan([x for _, (x, _), _ in pictures("object_nan/one")]).tolist() == [False, True] + [False] * 4
    assert np.isnan([x for _, (x, _), _ in pictures("object_nan")]).tolist() == [False] + [True] * 5
    assert pictures("object_face")[3][2] == pytest.approx([HALF, HALF, 0, 0])
    frozen = pictures("object_freeze")
    assert [(stamp, z) for stamp, (_, z), _ in frozen] == [(k, 0) for k in range(6)]


def test_faults_of_an_object_are_refused_where_none_is_tracked() -> None:
    with pytest.raises(ConfigError, match="'unitree_g1' is told of none"):
        make_state_fault("object_face", UNITREE_G1)
    assert [n for n in STATE_FAULTS if spoils_object(n)] == [n for n in STATE_FAULTS if n.split("_")[0] == "object"]


def test_an_unknown_fault_is_refused_with_the_valid_names() -> None:
    with pytest.raises(ConfigError, match="drop_state/one"):
        make_state_fault("explode", UNITREE_G1)
    assert set(STATE_FAULTS) < set(STATE_FAULT_NAMES)
