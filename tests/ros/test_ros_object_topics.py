"""An object's pose and its goal over topics: frames, stamps and orders, and the shipped policy turning a cube."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseStamped, QuaternionStamped
from rcl_interfaces.msg import ParameterType, ParameterValue
from rclpy.node import Node
from std_msgs.msg import UInt32

from robot_rl.bundle.load import load_bundle
from robot_rl.contract import NumpyState, RobotState, TensorSpec
from robot_rl.robots import LEAP_HAND
from robot_rl_bridge import object_topics, ros_compat
from robot_rl_bridge.converters import MessageError
from robot_rl_bridge.object_topics import ObjectInput, RobotWithObject, decode_goal, decode_pose, frame_of
from robot_rl_bridge.operator import Operator, OperatorError

pytestmark = pytest.mark.ros

BUNDLE = Path(__file__).resolve().parents[2] / "policies" / "leap_hand" / "leap-cube" / "v1"
FRAME = LEAP_HAND.root_body
GOAL = TensorSpec("goal_quat_wxyz", (4,), "1", "command", "root body, scalar first", -1.05, 1.05)


def pose(stamp_s: float, frame: str = FRAME, x: float = 0.1) -> PoseStamped:
    """By hand, field by field: a third of a turn about (1, 1, 1)."""
    message = PoseStamped()
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = int(stamp_s), round((stamp_s % 1.0) * 1e9) % 10**9
    message.pose.position.x, message.pose.position.y, message.pose.position.z = x, 0.2, 0.3
    q = message.pose.orientation
    q.x, q.y, q.z, q.w = 0.1, 0.5, 0.7, 0.5
    return message


def test_a_pose_has_its_scalar_first_and_only_the_agreed_frame_counts() -> None:
    position, quat = decode_pose(pose(1.0), FRAME)
    assert position.tolist() == [0.1, 0.2, 0.3]
    assert quat.tolist() == [0.5, 0.1, 0.5, 0.7]
    assert decode_pose(pose(1.0, f"/{FRAME}"), FRAME)[0].tolist() == [0.1, 0.2, 0.3]
    with pytest.raises(MessageError, match=rf"frame_id is 'camera_link', must be '{FRAME}' \(parameter object_frame\)"):
        decode_pose(pose(1.0, "camera_link"), FRAME)


def test_what_is_encoded_is_what_is_decoded() -> None:
    position, quat = np.array([0.1, -0.2, 0.3]), np.array([0.5, -0.5, 0.5, 0.5])
    message = object_topics.encode_pose(FRAME, 12.25, position, quat)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (12, 250_000_000)
    found = decode_pose(message, FRAME)
    np.testing.assert_array_equal(found[0], position)
    np.testing.assert_array_equal(found[1], quat)
    goal = decode_goal(object_topics.encode_goal(FRAME, 0.0, quat), FRAME, GOAL, 5.0)
    np.testing.assert_allclose(goal.values, quat)
    assert goal.stamp_s == 5.0


def goal(x: float, y: float, z: float, w: float, frame: str = FRAME) -> QuaternionStamped:
    message = QuaternionStamped()
    message.header.frame_id = frame
    for name, value in zip("xyzw", (x, y, z, w), strict=True):
        setattr(message.quaternion, name, float(value))
    return message


@pytest.mark.parametrize(
    ("message", "spec", "reason"),
    [
        (goal(0, 0, 0, 1, "world"), GOAL, "frame_id is 'world'"),
        (goal(0, 0, 0, 0), GOAL, "unit quaternion, got x 0.0"),
        (goal(0, 0, math.nan, 1), GOAL, "unit quaternion"),
        (goal(0, 0, 0, 1), None, "command is none"),
        (goal(0, 0, 0, 1), TensorSpec("velocity", (3,), "m/s", "command"), "command is velocity, not an orientation"),
    ],
)
def test_goals_that_are_none_are_refused(message: QuaternionStamped, spec: TensorSpec | None, reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        decode_goal(message, FRAME, spec, 0.0)


def test_a_goal_of_nearly_unit_length_is_made_one() -> None:
    assert decode_goal(goal(0, 0, 0.98, 0), FRAME, GOAL, 0.0).values.tolist() == [0.0, 0.0, 0.0, 1.0]


def test_the_frame_is_the_robots_root_body_unless_told_otherwise() -> None:
    assert frame_of({"object_frame": ""}, LEAP_HAND) == FRAME
    assert frame_of({"object_frame": "hand_base"}, LEAP_HAND) == "hand_base"


@pytest.fixture
def tracker(ros_domain):
    rejected: list[str] = []
    with ros_compat.ros_context([]):
        found = ObjectInput(
            Node("tracker", enable_rosout=False), FRAME, lambda topic, error: rejected.append(str(error))
        )
        yield found, rejected


def test_a_pose_is_as_old_as_its_picture(tracker) -> None:
    found, rejected = tracker
    found._on_message(pose(time.time() - 0.08))
    assert time.monotonic() - found.stamp_s == pytest.approx(0.08, abs=0.02)
    assert found.quat_wxyz.tolist() == [0.5, 0.1, 0.5, 0.7]
    assert not rejected


def test_poses_of_another_frame_clock_or_order_are_refused_by_name(tracker) -> None:
    found, rejected = tracker
    now = time.time()
    found._on_message(pose(now, "camera_link"))
    found._on_message(pose(now - 5.0))
    found._on_message(pose(now + 5.0))
    assert found.pos is None
    found._on_message(pose(now))
    found._on_message(pose(now, x=0.4))
    found._on_message(pose(now - 0.03, x=0.5))
    assert found.pos[0] == 0.1, "none of the later ones"
    assert ["frame_id" in r for r in rejected] == [True, False, False, False, False]
    assert all("its sender's clock must be that of this host" in r for r in rejected[1:3])
    assert all("not newer" in r for r in rejected[3:])


class Joints:
    """A robot that only measures its joints."""

    spec = LEAP_HAND
    rehearsals = 0

    def rehearse(self) -> None:
        self.rehearsals += 1

    def read(self) -> NumpyState:
        return RobotState(stamp_s=np.array([3.0]), joint_pos=np.zeros((1, 16)), joint_vel=np.zeros((1, 16)))


def test_a_state_holds_the_object_with_a_stamp_of_its_own(tracker) -> None:
    found, _ = tracker
    robot = RobotWithObject(Joints(), found)  # type: ignore[arg-type]
    alone = robot.read()
    assert alone is not None
    assert alone.object_pos is None
    found._on_message(pose(time.time()))
    state = robot.read()
    assert state is not None
    assert state.object_pos is not None
    assert state.object_stamp_s is not None
    assert state.stamp_s.tolist() == [3.0]
    assert state.object_stamp_s.tolist() == [found.stamp_s]
    assert state.object_pos.tolist() == [[0.1, 0.2, 0.3]]
    found.forget()
    forgotten = robot.read()
    assert forgotten is not None
    assert forgotten.object_pos is None


def test_the_robot_behind_an_object_is_rehearsed_as_well(tracker) -> None:
    joints = Joints()
    RobotWithObject(joints, tracker[0]).rehearse()  # type: ignore[arg-type]
    assert joints.rehearsals == 1


class Desk:
    """An operator, who hears how many goals were reached in a row."""

    def __init__(self, executor) -> None:
        self.executor = executor
        self.node = Node("desk", enable_rosout=False)
        executor.add_node(self.node)
        self.operator = Operator(self.node, executor)
        self.reached = 0
        self.node.create_subscription(UInt32, "/goal/reached", self._on_reached, ros_compat.LATCHED_QOS)

    def _on_reached(self, message: UInt32) -> None:
        self.reached = max(self.reached, message.data)

    def spin(self, seconds: float) -> None:
        ros_compat.spin_until(self.executor, time.monotonic() + seconds)

    def turn(self, goals: int, attempts: int = 5) -> None:
        """Bring the policy to run until it has reached so many goals in a row, as a person does: what ends on the way,
        for instance because this machine was busy, is tried again."""
        for attempt in range(attempts):
            try:
                self.operator.bring_to("stand")
                self.operator.place_object()
                self.spin(1.0)
                self.operator.insist("run", "still")
                ros_compat.spin_while(self.executor, lambda: self._running() and self.reached < goals, 30.0)
                if self.reached >= goals:
                    return
            except OperatorError:
                if attempt == attempts - 1:
                    raise
        raise AssertionError(f"{self.reached} goals in a row in {attempts} attempts; {self.operator.status}")

    def _running(self) -> bool:
        return self.operator.status.get("mode") == "run"


@pytest.mark.slow
def test_the_shipped_policy_turns_a_cube_over_ros_and_holds_it_when_the_camera_goes(start_node, ros_domain) -> None:
    bundle = str(BUNDLE)
    start_node("emulator_node", "emulator", robot="leap_hand", bundle=bundle)
    start_node("watchdog_node", "watchdog", robot="leap_hand")
    policy = start_node("policy_node", "policy", robot="leap_hand", bundle=bundle)
    goals = start_node("goal_node", "goal", bundle=bundle)
    with ros_compat.ros_context([]) as executor:
        desk = Desk(executor)
        desk.operator.up()
        desk.operator.bring_to("stand")
        with pytest.raises(OperatorError, match="no pose of the object has been seen"):
            desk.operator.insist("run", "standing still for")
        desk.turn(2)
        off = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False)
        desk.operator.set_emulator("camera", off)
        desk.operator.wait_for(lambda s: s["mode"] in ("hold", "damp"), 5.0, "the end of the run")
        assert desk.operator.status["cause"] == "object_lost", policy.output
    assert "goal: goal 2 after" in goals.output


def test_the_goal_node_has_nothing_to_do_for_a_policy_that_turns_nothing(start_node, ros_domain) -> None:
    reach = BUNDLE.parents[1] / "leap-reach" / "v1"
    assert load_bundle(reach).manifest.episode is None
    node = start_node("goal_node", "goal", bundle=str(reach))
    assert node.wait(20.0) == 0
    assert "nothing to do" in node.output
