"""The watchdog node over real topics, in one process."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node
from std_msgs.msg import Bool, Float64MultiArray

from robot_rl.contract import JointCommand, damping_command
from robot_rl.robots import LEAP_HAND
from robot_rl_bridge import ros_compat
from robot_rl_bridge.outputs import COMMAND_TOPIC, CommandOutput
from robot_rl_bridge.ros_robot import PASSING_TOPIC
from robot_rl_bridge.watchdog import Trip
from robot_rl_bridge.watchdog_node import INPUT_TOPIC, WatchdogNode

pytestmark = pytest.mark.ros

N = len(LEAP_HAND.joints)
RIVALS = 5


def column(name: str) -> np.ndarray:
    return np.array([getattr(joint, name) for joint in LEAP_HAND.joints])


def stiff() -> JointCommand:
    now, zero = time.monotonic(), np.zeros(N)
    return JointCommand(
        column("default_pos_rad"), zero, zero, column("kp_nm_rad"), column("kd_nms_rad"), now, now + 1.0
    )


def damping() -> JointCommand:
    return damping_command(np.array(LEAP_HAND.safety.damping_kd_nms_rad), time.monotonic(), 1.0)


def test_a_sender_is_told_that_no_robot_listens_until_one_does(ros_domain) -> None:
    with ros_compat.ros_context([]) as executor:
        node, desk = WatchdogNode(), Node("desk", enable_rosout=False)
        for each in (node, desk):
            executor.add_node(each)
        clock = ros_compat.RosClock(executor)
        ours = CommandOutput(desk, LEAP_HAND, INPUT_TOPIC)
        heartbeats: list[bool] = []
        desk.create_subscription(Bool, PASSING_TOPIC, lambda m: heartbeats.append(m.data), ros_compat.COMMAND_QOS)

        def feed_until(trip: Trip) -> None:
            heartbeats.clear()
            end_s = time.monotonic() + 10.0
            while not (node.watchdog.trip == trip and len(heartbeats) >= 2):
                assert time.monotonic() < end_s, (node.watchdog.trip, heartbeats)
                ours.send(damping())
                node.serve(clock)

        feed_until(Trip.NO_ROBOT)
        assert not any(heartbeats)
        robot = desk.create_subscription(Float64MultiArray, COMMAND_TOPIC, lambda _: None, ros_compat.COMMAND_QOS)
        feed_until(Trip.NONE)
        assert heartbeats[-1]
        desk.destroy_subscription(robot)
        feed_until(Trip.NO_ROBOT)
        assert not heartbeats[-1]


def test_a_rival_does_not_push_commands_out_before_they_are_read(ros_domain) -> None:
    with ros_compat.ros_context([]) as executor:
        node, desk = WatchdogNode(), Node("desk", enable_rosout=False)
        for each in (node, desk):
            executor.add_node(each)
        desk.create_subscription(Float64MultiArray, COMMAND_TOPIC, lambda _: None, ros_compat.COMMAND_QOS)
        ours, rival = (CommandOutput(desk, LEAP_HAND, INPUT_TOPIC) for _ in range(2))

        def begun() -> bool:
            ours.send(damping())
            return node.watchdog.passing

        clock = ros_compat.RosClock(executor)
        end_s = time.monotonic() + 10.0
        while not begun():
            assert time.monotonic() < end_s, node.watchdog.trip
            node.serve(clock)
        # What is still on its way.
        ros_compat.spin_until(executor, time.monotonic() + 0.2)
        for _ in range(20):
            passed, refused = node._passed, sum(node.watchdog.refused.values())
            ours.send(stiff())
            for _ in range(RIVALS):
                rival.send(stiff())
            come = refused + RIVALS
            assert ros_compat.spin_while(executor, lambda n=come: sum(node.watchdog.refused.values()) < n, 5.0)
            assert node._passed == passed + 1
        assert len(node.watchdog.refused) == 1
