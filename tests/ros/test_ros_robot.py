"""RosRobot over real topics in one process: what it reads, what it refuses, and that rehearsing changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray

from robot_rl.contract import damping_command
from robot_rl.robots import UNITREE_G1
from robot_rl_bridge import converters, ros_compat
from robot_rl_bridge.ros_robot import IMU_TOPIC, STATE_TOPIC, RosRobot

pytestmark = pytest.mark.ros

N = len(UNITREE_G1.joints)
QUAT = np.array([1.0, 0.0, 0.0, 0.0])


class Station:
    """A robot's topics, and the RosRobot that uses them."""

    def __init__(self, executor: Any) -> None:
        node = Node("station", enable_rosout=False)
        executor.add_node(node)
        self._executor = executor
        self.robot = RosRobot(node, UNITREE_G1)
        self.robot.open()
        self.joints = node.create_publisher(JointState, STATE_TOPIC, ros_compat.SENSOR_QOS)
        self.imu = node.create_publisher(Imu, IMU_TOPIC, ros_compat.SENSOR_QOS)
        self.commands: list[Float64MultiArray] = []
        topic = self.robot.command_topic
        node.create_subscription(Float64MultiArray, topic, self.commands.append, ros_compat.COMMAND_QOS)
        assert self.until(lambda: self.joints.get_subscription_count() + self.imu.get_subscription_count() == 2)

    def until(self, condition: Callable[[], bool]) -> bool:
        return ros_compat.spin_while(self._executor, lambda: not condition(), 5.0)

    def send(self, position: float) -> None:
        stamp_s, joints, zero = time.time(), np.full(N, position), np.zeros(N)
        self.joints.publish(converters.encode_joint_state(UNITREE_G1.joint_names, stamp_s, joints, 2 * joints, zero))
        self.imu.publish(converters.encode_imu(stamp_s, "pelvis", QUAT, np.full(3, position), zero[:3]))

    def reads(self, position: float) -> bool:
        """Sends a state; whether it is read, both parts of it."""
        self.send(position)

        def found() -> bool:
            state = self.robot.read()
            if state is None or state.imu_ang_vel_b is None:
                return False
            return state.joint_pos[0, 0] == position == state.imu_ang_vel_b[0, 0]

        return self.until(found)


@pytest.fixture
def station(ros_domain: int) -> Iterator[Station]:
    with ros_compat.ros_context([]) as executor:
        yield Station(executor)


def test_each_state_is_read_anew(station: Station) -> None:
    assert station.robot.stamp_s == -np.inf
    states = []
    for position in (0.1, 0.2, 0.3):
        assert station.reads(position)
        states.append(station.robot.read())
        assert 0.0 <= time.monotonic() - station.robot.stamp_s < 5.0
    # A later message must not change an earlier state.
    for state, position in zip(states, (0.1, 0.2, 0.3), strict=True):
        np.testing.assert_array_equal(state.joint_pos, np.full((1, N), position))
        np.testing.assert_array_equal(state.joint_vel, np.full((1, N), 2 * position))
        np.testing.assert_array_equal(state.imu_quat_wxyz, QUAT[None])


@pytest.mark.parametrize("garbage", [b"\0\1\0\0", b"\0\1\0\0" + b"\xff" * 300, b"\0\7\0\0" + bytes(500)])
def test_bytes_that_are_no_message_are_refused(station: Station, garbage: bytes) -> None:
    assert station.reads(0.1)
    for publisher, topic in ((station.joints, STATE_TOPIC), (station.imu, IMU_TOPIC)):
        publisher.publish(garbage)
        assert station.until(lambda topic=topic: station.robot.rejected[topic] == 1)
    assert station.reads(0.2)


def test_rehearsing_changes_nothing_and_sends_nothing(station: Station) -> None:
    station.robot.rehearse()
    assert station.reads(0.1)
    station.robot.write(damping_command(np.ones(N), time.monotonic(), 0.5))
    assert station.until(lambda: len(station.commands) == 1)
    before, stamp_s = station.robot.read(), station.robot.stamp_s
    for _ in range(3):
        station.robot.rehearse()
    assert station.robot.read() is before
    assert station.robot.stamp_s == stamp_s
    assert not station.robot.rejected
    station.robot.write(damping_command(np.ones(N), time.monotonic(), 0.5))
    assert station.until(lambda: len(station.commands) > 1)
    first, second = station.commands
    assert second.data[1] == first.data[1] + 1
    np.testing.assert_array_equal(first.data[4:], second.data[4:])
    assert station.reads(0.2)
