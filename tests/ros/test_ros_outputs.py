"""Joint commands in the forms of ros2_control and SDKs, as a subscriber of theirs sees them; and through a watchdog."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from robot_rl.contract import JointCommand, damping_command
from robot_rl.robots import LEAP_HAND
from robot_rl_bridge import converters, ros_compat
from robot_rl_bridge.converters import MessageError
from robot_rl_bridge.outputs import (
    COMMAND_TOPIC,
    DAMPING_TOPIC,
    FORMS,
    FORWARD_TOPIC,
    STIFFNESS_TOPIC,
    TRAJECTORY_TOPIC,
    make_output,
)
from robot_rl_bridge.ros_robot import RosRobot

pytestmark = pytest.mark.ros

PERIOD_S = 0.02
N = len(LEAP_HAND.joints)
TARGET = np.linspace(0.1, 0.4, N)
MEASURED = np.linspace(-0.2, 0.2, N)
KP, KD = np.full(N, 0.5), np.full(N, 0.01)

KINDS = {
    "joint_command": (Float64MultiArray, COMMAND_TOPIC),
    "joint_state": (JointState, COMMAND_TOPIC),
    "joint_trajectory": (JointTrajectory, TRAJECTORY_TOPIC),
    "forward": (Float64MultiArray, FORWARD_TOPIC),
}


def positions(form: str, message) -> np.ndarray:
    """What a robot is told, in its joint order."""
    if form == "joint_command":
        order = converters.JointOrder(LEAP_HAND.joint_names, extra_allowed=False)
        return converters.decode_joint_command(message, order).values[0]
    if form == "forward":
        return np.array(message.data)
    names = list(message.name if form == "joint_state" else message.joint_names)
    assert names == list(LEAP_HAND.joint_names)
    return np.array(message.position if form == "joint_state" else message.points[0].positions)


class Ear:
    """Hears one output."""

    def __init__(self, executor, form: str, *, gains: bool = False, measured=lambda: MEASURED) -> None:
        self.executor, self.form = executor, form
        node = Node("ear", enable_rosout=False)
        executor.add_node(node)
        self.output = make_output(node, LEAP_HAND, form, PERIOD_S, gains=gains, measured=measured)
        self.heard: list = []
        self.gains: list[tuple[str, np.ndarray]] = []
        kind, topic = KINDS[form]
        subscriptions = [node.create_subscription(kind, topic, self.heard.append, ros_compat.STATUS_QOS)]
        if gains:
            for name in (STIFFNESS_TOPIC, DAMPING_TOPIC):
                subscriptions.append(
                    node.create_subscription(
                        Float64MultiArray,
                        name,
                        lambda m, name=name: self.gains.append((name, np.array(m.data))),
                        ros_compat.STATUS_QOS,
                    )
                )
        matched = lambda: all(s.get_publisher_count() for s in subscriptions)  # noqa: E731
        assert ros_compat.spin_while(executor, lambda: not matched(), 10.0)

    def send(self, command: JointCommand) -> None:
        count = len(self.heard)
        self.output.send(command)
        ros_compat.spin_while(self.executor, lambda: len(self.heard) == count, 0.5)


def stiff() -> JointCommand:
    now, zero = time.monotonic(), np.zeros(N)
    return JointCommand(TARGET, zero, zero, KP, KD, now, now + 1.0)


@pytest.fixture
def ros(ros_domain):
    with ros_compat.ros_context([]) as executor:
        yield executor


@pytest.mark.parametrize("form", FORMS)
def test_each_form_says_where_the_joints_shall_go(ros, form: str) -> None:
    ear = Ear(ros, form)
    ear.send(stiff())
    np.testing.assert_array_equal(positions(form, ear.heard[-1]), TARGET)
    if form == "joint_trajectory":
        point = ear.heard[-1].points[0]
        assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 20_000_000)
        assert (ear.heard[-1].header.stamp.sec, ear.heard[-1].header.stamp.nanosec) == (0, 0)


@pytest.mark.parametrize("form", FORMS[1:])
def test_damping_of_a_robot_that_takes_positions_is_to_stay_where_it_was(ros, form: str) -> None:
    pose = [MEASURED]
    ear = Ear(ros, form, measured=lambda: pose[0])
    ear.send(stiff())
    ear.send(damping_command(KD, time.monotonic(), 1.0))
    # Not the pose that it drifts to: it would drift on.
    pose[0] = MEASURED + 0.1
    ear.send(damping_command(KD, time.monotonic(), 1.0))
    np.testing.assert_array_equal(positions(form, ear.heard[-1]), MEASURED)
    ear.send(stiff())
    np.testing.assert_array_equal(positions(form, ear.heard[-1]), TARGET)


def test_without_a_measured_pose_there_is_nothing_to_stay_at(ros) -> None:
    ear = Ear(ros, "forward", measured=lambda: None)
    ear.send(damping_command(KD, time.monotonic(), 1.0))
    assert ear.heard == []


def test_gains_come_before_the_positions_that_they_are_for(ros) -> None:
    ear = Ear(ros, "forward", gains=True)
    ear.send(stiff())
    assert ros_compat.spin_while(ros, lambda: len(ear.gains) < 2, 5.0)
    assert dict(ear.gains).keys() == {STIFFNESS_TOPIC, DAMPING_TOPIC}
    np.testing.assert_array_equal(dict(ear.gains)[STIFFNESS_TOPIC], KP)
    ear.gains.clear()
    ear.send(damping_command(KD, time.monotonic(), 1.0))
    assert ros_compat.spin_while(ros, lambda: len(ear.gains) < 2, 5.0)
    assert not dict(ear.gains)[STIFFNESS_TOPIC].any()
    np.testing.assert_array_equal(dict(ear.gains)[DAMPING_TOPIC], KD)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_finite_or_has_expired_is_never_sent(ros, form: str) -> None:
    ear = Ear(ros, form)
    command = stiff()
    spoilt = JointCommand(TARGET * np.nan, *(getattr(command, f) for f in ("velocity", "effort", "kp", "kd")), 0, 1e9)
    with pytest.raises(MessageError, match="position not finite"):
        ear.output.send(spoilt)
    expired = damping_command(KD, time.monotonic() - 1.0, 0.5)
    assert ear.output.send(expired) is False
    ros_compat.spin_until(ros, time.monotonic() + 0.1)
    assert ear.heard == []


def test_the_watchdog_speaks_to_ros2_control(start_node, ros) -> None:
    """A sender's commands come out as positions, and its silence as the pose that the robot had."""
    start_node("watchdog_node", "watchdog", robot="leap_hand", output="forward", gains=True)
    node = Node("controllers", enable_rosout=False)
    ros.add_node(node)
    heard: dict[str, np.ndarray] = {}
    for topic in (FORWARD_TOPIC, STIFFNESS_TOPIC, DAMPING_TOPIC):
        node.create_subscription(
            Float64MultiArray, topic, lambda m, t=topic: heard.update({t: np.array(m.data)}), ros_compat.COMMAND_QOS
        )
    passing: list[bool] = []
    node.create_subscription(Bool, "watchdog/passing", lambda m: passing.append(m.data), ros_compat.COMMAND_QOS)
    joints = node.create_publisher(JointState, "joint_states", ros_compat.SENSOR_QOS)
    zero = np.zeros(N)
    state = converters.encode_joint_state(LEAP_HAND.joint_names, 1.0, MEASURED, zero, None)
    node.create_timer(0.01, lambda: joints.publish(state))
    policy = RosRobot(node, LEAP_HAND, "policy/joint_command")
    policy.open()
    target = np.array([j.default_pos_rad for j in LEAP_HAND.joints])
    kp = np.array([j.kp_nm_rad for j in LEAP_HAND.joints])
    stiffness = [zero]

    def feed() -> None:
        now = time.monotonic()
        policy.write(JointCommand(target, zero, zero, stiffness[0], KD, now, now + 0.2))

    timer = node.create_timer(0.005, feed)
    assert ros_compat.spin_while(ros, lambda: not (passing and passing[-1]), 20.0)
    stiffness[0] = kp
    assert ros_compat.spin_while(ros, lambda: not heard.get(STIFFNESS_TOPIC, zero).any(), 10.0)
    ros_compat.spin_until(ros, time.monotonic() + 0.05)
    np.testing.assert_array_equal(heard[FORWARD_TOPIC], target)
    timer.cancel()
    assert ros_compat.spin_while(ros, lambda: bool(heard[STIFFNESS_TOPIC].any()), 5.0)
    assert ros_compat.spin_while(ros, lambda: not np.array_equal(heard[FORWARD_TOPIC], MEASURED), 5.0)
    np.testing.assert_allclose(heard[DAMPING_TOPIC], LEAP_HAND.safety.damping_kd_nms_rad)
    policy.close()
