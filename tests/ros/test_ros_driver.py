"""The driver `ros`: programs without a node of their own reach a robot behind topics, through the watchdog."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node
from std_msgs.msg import Bool

from robot_rl.contract import JointCommand
from robot_rl.errors import ConfigError, RobotRLError
from robot_rl.robots import LEAP_HAND
from robot_rl.robots.unit import JointWiring, UnitConfig
from robot_rl.runtime.interface import MonotonicClock
from robot_rl.runtime.wiggle import WiggleConfig, wiggle
from robot_rl_bridge import ros_compat
from robot_rl_bridge.driver import RosDriver, connect

pytestmark = pytest.mark.ros

UNIT = UnitConfig("u", "leap_hand", "ros")


def test_refuses_units_that_ask_for_what_names_decide() -> None:
    wiring = tuple(JointWiring(i, 1, 0.0) for i in range(16))
    for unit in (dataclasses.replace(UNIT, joints=wiring), dataclasses.replace(UNIT, options={"topic": "x"})):
        with pytest.raises(ConfigError, match="takes no joints and no options"):
            connect(LEAP_HAND, unit)


def test_names_what_is_missing_and_can_be_stopped_in_any_state(ros_domain: int) -> None:
    robot = RosDriver(LEAP_HAND, connect_s=0.2)
    assert robot.read() is None
    with pytest.raises(
        RobotRLError, match="no publisher on joint_states; no subscriber on policy/joint_command: is the watchdog"
    ):
        robot.connect()
    robot.stop()
    with pytest.raises(ConfigError, match="not connected"):
        robot.write(JointCommand(*[np.zeros(16)] * 5, time.monotonic(), time.monotonic() + 1))


def test_a_connected_robot_gets_what_is_sent_and_a_stopped_one_is_not_connected(start_node) -> None:
    start_node("emulator_node", "emulator", robot="leap_hand")
    start_node("watchdog_node", "watchdog", robot="leap_hand", loop_rate_hz=20.0)
    robot = connect(LEAP_HAND, UNIT)
    # At once, before anything else is sent: a wiggle aborts on what the watchdog does not pass.
    assert robot.health().lost_packets == 0
    robot.stop()
    with ros_compat.ros_context([]) as executor:
        desk = Node("desk", enable_rosout=False)
        executor.add_node(desk)
        button = desk.create_publisher(Bool, "estop", ros_compat.STATUS_QOS)
        assert ros_compat.spin_while(executor, lambda: not button.get_subscription_count(), 10.0)
        # A reader that has yet to find this writer misses what a volatile one said before: so again and again.
        for _ in range(15):
            button.publish(Bool(data=True))
            ros_compat.spin_until(executor, time.monotonic() + 0.02)
    with pytest.raises(RobotRLError, match="the watchdog passes no damping on"):
        RosDriver(LEAP_HAND, connect_s=6.0).connect()


@pytest.mark.slow
def test_wiggle_over_ros(start_node) -> None:
    start_node("emulator_node", "emulator", robot="leap_hand")
    start_node("watchdog_node", "watchdog", robot="leap_hand", loop_rate_hz=20.0)
    robot = connect(LEAP_HAND, UNIT)
    findings = wiggle(robot, MonotonicClock(), WiggleConfig(rate_hz=25.0), ["if_mcp", "th_ipl"])
    assert [f.verdict for f in findings] == ["ok", "ok"]
    assert robot.read() is None
    # It left no node behind: the next one is not a rival.
    again = connect(LEAP_HAND)
    assert again.health().lost_packets == 0
    again.stop()
