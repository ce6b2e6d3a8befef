"""The driver node: a LEAP hand's emulated servos behind topics, and what becomes of them when something ends."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("dynamixel_sdk")

from diagnostic_msgs.msg import DiagnosticArray

from robot_rl.contract import JointCommand
from robot_rl.robots import LEAP_HAND
from robot_rl.robots.tip_motion import tip_position_m
from robot_rl.robots.unit import load_unit
from robot_rl.testing.servo_line import ServoLine
from robot_rl_bridge import ros_compat
from robot_rl_bridge.ros_robot import RosRobot
from robot_rl_bridge.status import TOPIC, parse_status

pytestmark = [pytest.mark.ros, pytest.mark.slow]

EXAMPLE = Path(__file__).parents[2] / "hardware" / "units" / "leap-example.yaml"
POLICY = Path(__file__).parents[2] / "policies" / "leap_hand" / "leap-reach" / "v1"
DEFAULT = np.array([j.default_pos_rad for j in LEAP_HAND.joints])
KP = np.array([j.kp_nm_rad for j in LEAP_HAND.joints])
ZERO = np.zeros(16)


@pytest.fixture
def servos(tmp_path: Path) -> Iterator[ServoLine]:
    line = ServoLine(tmp_path, EXAMPLE)
    yield line
    line.close()


class Peer:
    """A node that commands the robot directly, as the watchdog would."""

    def __init__(self, executor) -> None:
        from rclpy.node import Node

        self.executor = executor
        self.node = Node("peer", enable_rosout=False)
        executor.add_node(self.node)
        self.status: dict[str, str] = {}
        self.node.create_subscription(DiagnosticArray, TOPIC, self._on_status, ros_compat.STATUS_QOS)
        self.robot = RosRobot(self.node, LEAP_HAND)
        self.robot.open()
        assert ros_compat.spin_while(executor, lambda: bool(self.robot.problems()), 30.0), self.robot.problems()
        self.robot.connect()

    def _on_status(self, message: DiagnosticArray) -> None:
        self.status = parse_status(message, "driver", "driver") or self.status

    def drive(self, target: np.ndarray, seconds: float, life_s: float = 0.5) -> np.ndarray:
        end_s = time.monotonic() + seconds
        while (now_s := time.monotonic()) < end_s:
            self.robot.write(JointCommand(target, ZERO, ZERO, KP, KP / 30, now_s, now_s + life_s))
            ros_compat.spin_until(self.executor, now_s + 0.02)
        state = self.robot.read()
        assert state is not None
        return state.joint_pos[0]


def test_a_hand_behind_topics(start_node, servos: ServoLine) -> None:
    """There and back: state, commands, expiry, health; and torque off at the end."""
    driver = start_node("driver_node", "driver", unit=str(servos.unit_file), rate_hz=50.0)
    with ros_compat.ros_context() as executor:
        peer = Peer(executor)
        assert servos.do("torque") == []
        target = DEFAULT + 0.2
        np.testing.assert_allclose(peer.drive(target, 2.0), target, atol=0.03)
        moved = servos.do("positions")
        assert moved["1"] == pytest.approx(math.pi + 0.8, abs=0.03)
        # No command any more: it damps by itself, and lets go a second later.
        servos.wait("torque", [])
        servos.do("heat", id=9, celsius=61)
        hot = "'rf_mcp': 61.0"
        assert ros_compat.spin_while(executor, lambda: hot not in peer.status.get("motor_temperature_c", ""), 5.0)
        peer.drive(target, 0.3)
        driver.send(signal.SIGTERM)
        servos.wait("torque", [])
        assert driver.wait() == 0, driver.output


@pytest.mark.parametrize("number", [signal.SIGKILL, None], ids=["killed", "unplugged"])
def test_a_hand_that_is_lost(start_node, servos: ServoLine, number: int | None) -> None:
    driver = start_node("driver_node", "driver", unit=str(servos.unit_file), rate_hz=50.0)
    with ros_compat.ros_context() as executor:
        peer = Peer(executor)
        peer.drive(DEFAULT + 0.1, 0.5)
        assert len(servos.do("torque")) == 16
        if number is None:
            servos.do("unplug")
            peer.drive(DEFAULT, 0.5)
            assert driver.wait() == 1
            assert "cut their power" in driver.output
        else:
            driver.send(number)
        # Nobody reaches them: their own watchdogs have stopped them.
        servos.wait("watchdogs", [0xFF])


def test_the_shipped_policy_over_the_whole_stack(start_node, servos: ServoLine) -> None:
    """Policy node, watchdog, driver node, sixteen servos: each fingertip comes within the task's 15 mm of its goal."""
    pose = dict.fromkeys(LEAP_HAND.joint_names, 0.4) | {"if_mcp": 0.9, "rf_mcp": 0.9, "th_cmc": 1.3, "th_ipl": 0.8}
    goals = np.stack([tip_position_m(chain, pose) for chain in LEAP_HAND.chains])
    start_node("driver_node", "driver", unit=str(servos.unit_file))
    start_node("watchdog_node", "watchdog", robot="leap_hand", loop_rate_hz=50.0)
    start_node("policy_node", "policy", robot="leap_hand", bundle=str(POLICY))

    def operate(*words: str) -> None:
        program = Path(sys.executable).with_name("operator")
        done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def errors_m() -> np.ndarray:
        horns = servos.do("positions")
        reached = {n: horns[str(j.id)] - j.zero_offset_rad for n, j in zip(LEAP_HAND.joint_names, wiring, strict=True)}
        return np.linalg.norm(np.stack([tip_position_m(c, reached) for c in LEAP_HAND.chains]) - goals, axis=1)

    wiring = load_unit(servos.unit_file).joints
    operate("up")
    operate("command", *(f"{x:.6f}" for x in goals.ravel()))
    operate("stand")
    time.sleep(LEAP_HAND.safety.stand_duration_s + 1.5)
    assert errors_m().min() > 0.02
    operate("run")
    deadline_s = time.monotonic() + 10.0
    while errors_m().max() > 0.015:
        assert time.monotonic() < deadline_s, errors_m()
        time.sleep(0.05)


def test_says_what_it_needs(start_node) -> None:
    for parameters, message in (
        ({}, "parameter unit or interface must say which driver"),
        ({"interface": "ros"}, "a robot behind topics needs no driver node"),
        ({"interface": "leap_hand"}, "needs --unit FILE"),
        ({"interface": "telepathy"}, "unknown interface 'telepathy'"),
    ):
        node = start_node("driver_node", "driver", **parameters)
        assert node.wait(20.0) == 1
        assert message in node.output
        assert "Traceback" not in node.output
