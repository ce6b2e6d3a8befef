"""An object that a camera tracks: when its pose is believed, and what the filter does without one."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.contract import EpisodeSpec, ObjectStart, RobotState, TensorSpec
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.backups import Information, trusted
from robot_rl.runtime.checks import LATCHED, Cause, Severity, Target
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.modes import Mode, Request
from robot_rl.runtime.object_pose import ObjectLimits, ObjectPose, ObjectTrack, believable, jump, turn_between
from robot_rl.runtime.safety import SafetyMemory, filter_command
from robot_rl.runtime.start_gates import Situation, refusals
from robot_rl.testing.bundles import TinyPolicy

DT = 0.02
PLAIN = TinyPolicy(LEAP_HAND).contract()
CONTRACT = dataclasses.replace(
    PLAIN,
    inputs=(
        *PLAIN.inputs,
        TensorSpec("object_pos", (3,), "m", "state", "root body", -10.0, 10.0, 0.1),
        TensorSpec("object_quat_wxyz", (4,), "1", "state", "root body", -1.05, 1.05, 0.1),
    ),
)
START = ObjectStart((0.0, 0.0, -0.1), 0.04, (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, -1.0), 0.6, 0.1)
GRASP = tuple(j.default_pos_rad + 0.1 for j in LEAP_HAND.joints)
EPISODE = EpisodeSpec(GRASP, START)
LIMITS = SafetyLimits.make(LEAP_HAND, CONTRACT, DT, episode=EPISODE)
THERE = np.array([0.0, 0.0, -0.1])
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])


def moved(x: float, y: float, z: float) -> np.ndarray:
    return THERE + np.array((x, y, z))


def about(axis: tuple[float, float, float], angle: float) -> np.ndarray:
    return np.array([math.cos(angle / 2), *(math.sin(angle / 2) * np.array(axis))])


def state(t: float, seen_s: float | None, pos=THERE, quat=UPRIGHT) -> RobotState:
    joints = {"joint_pos": np.array([GRASP]), "joint_vel": np.zeros((1, 16))}
    if seen_s is None:
        return RobotState(stamp_s=np.array([t]), **joints)
    pose = {"object_pos": pos[None], "object_quat_wxyz": quat[None], "object_stamp_s": np.array([seen_s])}
    return RobotState(stamp_s=np.array([t]), **joints, **pose)


class Bench:
    """Ticks DT apart; a policy moves the robot unless told otherwise."""

    def __init__(self) -> None:
        self.memory, self.t = SafetyMemory.start(LIMITS), 10.0
        self.tick(10.0)

    def tick(self, seen_s: float | None, kind="policy", age_s=0.0, **pose: np.ndarray) -> tuple[Severity, Cause]:
        self.t += DT
        target = Target(np.array(GRASP), kind, age_s=age_s)
        reading = state(self.t, seen_s, **pose)
        self.believed = believable(reading, 0.0, LIMITS.object, self.memory.object)
        self.command, verdict, self.memory = filter_command(reading, 0.0, target, LIMITS, self.memory, self.t)
        return verdict.severity, verdict.cause


OK = (Severity.OK, Cause.NONE)


def test_the_robots_own_state_is_judged_without_the_object() -> None:
    assert "object_pos" not in LIMITS.state_fields
    assert LIMITS.state_damp_s == LEAP_HAND.safety.state_damp_s
    assert LIMITS.object is not None
    assert LIMITS.object.max_age_s == 0.1


def test_an_object_that_is_seen_no_more_ends_the_policy_after_its_age_and_not_before() -> None:
    bench = Bench()
    seen_s = bench.t
    # 20, 40, 60, 80, 100 ms: the margin at 100 ms is zero, which is not beyond.
    for _ in range(4):
        assert bench.tick(seen_s) == OK
    bench.tick(seen_s)
    assert bench.tick(seen_s) == (Severity.HOLD, Cause.OBJECT_LOST)
    assert (bench.command.kp > 0).all(), "held, not dropped"
    # Likewise where the report is missing altogether.
    gone = Bench()
    assert [gone.tick(None)[0] for _ in range(6)][-1] == Severity.HOLD


def test_a_state_without_an_object_is_no_fault_while_no_policy_goes_by_it() -> None:
    bench = Bench()
    assert all(bench.tick(None, kind="stand") == OK for _ in range(20))


@pytest.mark.parametrize(
    "pose",
    [
        {"pos": np.array([np.nan, 0.0, 0.0])},
        {"pos": np.array([0.0, 0.0, 11.0])},
        {"quat": np.array([0.9, 0.0, 0.0, 0.0])},
        {"quat": np.zeros(4)},
        {"quat": np.array([1.0, 0.0, 0.0])},
        # 0.3 m within a picture's 33 ms: more than 0.05 m + 3 m/s * 0.033 s.
        {"pos": moved(0.3, 0.0, 0.0)},
        # A face taken for its neighbour: more than 0.4 rad + 10 rad/s * 0.033 s.
        {"quat": about((0.0, 1.0, 0.0), math.pi / 2)},
    ],
)
def test_one_bad_picture_is_passed_over_and_a_lasting_one_ends_the_policy(pose: dict) -> None:
    bench = Bench()
    bench.tick(bench.t + DT - 0.033)
    assert bench.tick(bench.t + DT, **pose) == OK
    assert not bench.believed, "no policy may see it"
    assert bench.tick(bench.t + DT) == OK
    assert bench.believed
    outcomes = [bench.tick(bench.t + DT, **pose) for _ in range(7)]
    assert outcomes[3] == OK
    assert outcomes[6] == (Severity.HOLD, Cause.OBJECT_INVALID)


def test_a_policy_that_is_not_asked_because_of_its_object_is_stopped_because_of_its_object() -> None:
    """It gets old in the meantime, which is no cause of anything."""
    bench = Bench()
    old_s = 1.5 * LEAP_HAND.safety.policy_age_periods * LIMITS.control_period_s
    bench.tick(bench.t + DT, pos=moved(0.0, 0.0, np.nan))
    assert bench.tick(bench.t + DT, pos=moved(0.0, 0.0, np.nan), age_s=old_s) == (Severity.HOLD, Cause.OBJECT_INVALID)
    # With the object in good sight it is the policy that does not answer.
    assert Bench().tick(10.0 + 2 * DT, age_s=old_s) == (Severity.HOLD, Cause.POLICY_STALE)


def test_what_moves_as_fast_as_it_can_is_no_jump() -> None:
    limits = LIMITS.object
    assert limits is not None
    last = ObjectPose(1.0, THERE, UPRIGHT)
    # 0.1 m in 0.05 s beside 0.05 m + 3 m/s * 0.05 s = 0.2 m; 0.45 rad beside 0.4 rad + 10 rad/s * 0.05 s = 0.9 rad.
    new = ObjectPose(1.05, moved(0.0, 0.1, 0.0), about((1.0, 0.0, 0.0), 0.45))
    assert jump(new, last, 1.0, limits) == pytest.approx(0.5)
    # No time is more than the age that a pose may have: 0.05 m + 3 m/s * 0.1 s = 0.35 m.
    late = ObjectPose(5.0, moved(0.0, 0.7, 0.0), UPRIGHT)
    assert jump(late, last, 1.0, limits) == pytest.approx(2.0)


def test_q_and_minus_q_are_the_same_orientation() -> None:
    bench = Bench()
    assert bench.tick(bench.t + DT, quat=-UPRIGHT) == OK
    assert bench.believed


def test_an_object_out_of_the_hand_ends_the_policy() -> None:
    bench = Bench()
    outcomes = [bench.tick(bench.t + DT, pos=moved(0.0, 0.0, 0.03 * k)) for k in range(6)]
    # 9 cm away is near enough, 12 cm are not; two ticks in a row.
    assert outcomes[:5] == [OK] * 5
    assert outcomes[5] == (Severity.HOLD, Cause.OBJECT_DROPPED)


def test_a_person_may_put_the_object_anywhere_while_the_robot_stands() -> None:
    bench = Bench()
    bench.tick(bench.t + DT, kind="stand", pos=moved(0.0, 0.0, 0.5))
    bench.tick(bench.t + DT, kind="stand")
    assert bench.tick(bench.t + DT) == OK
    assert bench.believed


def test_the_object_is_older_than_the_joints_by_the_cameras_latency() -> None:
    track = ObjectTrack().after(state(10.0, 9.92), LIMITS.object, in_use=False)  # type: ignore[arg-type]
    assert track.pose is not None
    assert track.pose.stamp_s == 9.92
    assert believable(state(10.0, 9.92), 0.01, LIMITS.object, track)
    assert not believable(state(10.0, 9.92), 0.03, LIMITS.object, track), "0.11 s"


def test_after_a_lost_object_the_robot_itself_is_trusted_and_no_reset_is_asked() -> None:
    measured = SafetyMemory.start(LIMITS).measured
    assert measured is None
    for cause in (Cause.OBJECT_LOST, Cause.OBJECT_INVALID, Cause.OBJECT_DROPPED):
        believed = filter_command(state(1.0, 1.0), 0.0, None, LIMITS, SafetyMemory.start(LIMITS), 1.0)[2].measured
        assert trusted(cause, believed, Target(np.array(GRASP), "policy"), LIMITS) == Information.BASE
        assert cause not in LATCHED


def test_turns_by_hand() -> None:
    # A quarter turn about x, and about the free axis: seen, and not seen.
    assert turn_between(about((1, 0, 0), 0.5), UPRIGHT) == pytest.approx(0.5)
    assert turn_between(about((0, 0, 1), 2.5), UPRIGHT, (0.0, 0.0, -1.0)) == pytest.approx(0.0, abs=1e-7)
    # First 2.5 rad about z, then 0.3 rad about x: what is not about z are 0.3 rad.
    spun, tilt = about((0, 0, 1), 2.5), about((1, 0, 0), 0.3)
    w, (x, y, z) = tilt[0] * spun[0], tilt[0] * spun[1:] + spun[0] * tilt[1:] + np.cross(tilt[1:], spun[1:])
    assert turn_between(np.array([w, x, y, z]), UPRIGHT, (0.0, 0.0, 1.0)) == pytest.approx(0.3)
    assert turn_between(UPRIGHT, about((1, 0, 0), 0.5)) == pytest.approx(0.5)


def situation(track: ObjectTrack, now_s: float = 10.0) -> Situation:
    memory = filter_command(state(now_s, None), 0.0, None, LIMITS, SafetyMemory.start(LIMITS), now_s)
    return Situation(
        limits=LIMITS,
        now_s=now_s,
        age_s=0.0,
        measured=memory[2].measured,
        verdict=memory[1],
        settled_s=1.0,
        observed=10,
        history_length=1,
        policy_problem="",
        command_missing=False,
        command=None,
        command_name="goal",
        deadman_age_s=0.0,
        object=track,
    )


@pytest.mark.parametrize(
    ("track", "missing"),
    [
        (ObjectTrack(), "no pose of the object has been seen"),
        (ObjectTrack(None, 10.0), "pose is not valid"),
        (ObjectTrack(ObjectPose(9.8, THERE, UPRIGHT), 9.8), "pose is 0.200 s old, must be at most 0.1 s"),
        (ObjectTrack(ObjectPose(10.0, moved(0.05, 0, 0), UPRIGHT), 10.0), "0.050 m from where it must be placed"),
        (ObjectTrack(ObjectPose(10.0, THERE, about((1, 0, 0), 0.7)), 10.0), "turned by 0.70 rad"),
    ],
)
def test_the_policy_starts_only_with_the_object_in_place(track: ObjectTrack, missing: str) -> None:
    (reason,) = refusals(Request.RUN, Mode.STAND, situation(track))
    assert missing in reason
    assert not refusals(Request.STAND, Mode.DAMP, situation(track)), "one stands up first, and places it then"


def test_it_starts_with_the_object_turned_about_the_free_axis() -> None:
    pose = ObjectPose(9.95, moved(0.0, 0.039, 0.0), about((0, 0, 1), 2.0))
    assert not refusals(Request.RUN, Mode.STAND, situation(ObjectTrack(pose, 9.95)))


def test_the_robot_stands_where_episodes_begin(tmp_path: Path) -> None:
    assert LIMITS.stand_pos.tolist() == list(GRASP)
    policy = TinyPolicy(LEAP_HAND)
    plain = load_bundle(policy.write(tmp_path / "plain"))
    assert plain.manifest.episode is None
    bundle = load_bundle(policy.write(tmp_path / "b", episode=EpisodeSpec(GRASP)))
    assert bundle.manifest.episode == EpisodeSpec(GRASP)
    from robot_rl.runtime.controller import Controller

    assert Controller(bundle, LEAP_HAND).limits.stand_pos.tolist() == list(GRASP)
    assert Controller(plain, LEAP_HAND).limits.stand_pos.tolist() == [j.default_pos_rad for j in LEAP_HAND.joints]


def test_a_policy_without_an_object_has_no_such_limits() -> None:
    assert ObjectLimits.make(PLAIN, None) is None
