"""The emulator as a process, seen from outside through its topics."""

from __future__ import annotations

import json
import signal
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from robot_rl.contract import JointCommand, damping_command
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl_bridge import converters, ros_compat
from robot_rl_bridge.operator import Operator, OperatorError
from robot_rl_bridge.ros_robot import RosRobot

pytestmark = pytest.mark.ros

DEFAULT = np.array([j.default_pos_rad for j in LEAP_HAND.joints])
KP = np.array([j.kp_nm_rad for j in LEAP_HAND.joints])
KD = np.array([j.kd_nms_rad for j in LEAP_HAND.joints])


class Peer:
    """A node of the test, connected to the emulator."""

    def __init__(self, executor, spec=LEAP_HAND, name: str = "peer") -> None:
        self.executor = executor
        self.node = Node(name, enable_rosout=False)
        executor.add_node(self.node)
        self.emulator: dict = {}
        self.robot = RosRobot(self.node, spec)
        self.robot.open()
        self.node.create_subscription(String, "/emulator/status", self._on_status, ros_compat.STATUS_QOS)

    def _on_status(self, message: String) -> None:
        self.emulator = json.loads(message.data)

    def connect(self) -> None:
        assert ros_compat.spin_while(self.executor, lambda: bool(self.robot.problems()), 20.0), self.robot.problems()
        self.robot.connect()

    def spin(self, seconds: float) -> None:
        ros_compat.spin_until(self.executor, time.monotonic() + seconds)

    def fresh_status(self, condition=lambda status: True, timeout_s: float = 10.0) -> dict:
        asked_s = time.monotonic()

        def waiting() -> bool:
            return self.emulator.get("time_s", 0.0) <= asked_s or not condition(self.emulator)

        assert ros_compat.spin_while(self.executor, waiting, timeout_s), self.emulator
        return self.emulator

    def hold(self, time_to_live_s: float = 0.1) -> float:
        """Command the default pose once; returns when."""
        now, zero = time.monotonic(), np.zeros(16)
        self.robot.write(JointCommand(DEFAULT, zero, zero, KP, KD, now, now + time_to_live_s))
        return now


@pytest.fixture
def ros(ros_domain):
    with ros_compat.ros_context([]) as executor:
        yield executor


def test_states_arrive_at_the_rate_and_complete(start_node, ros) -> None:
    start_node("emulator_node", "emulator", robot="leap_hand", rate_hz=100.0)
    peer = Peer(ros)
    stamps: list[float] = []
    qos = ros_compat.SENSOR_QOS
    peer.node.create_subscription(JointState, "joint_states", lambda m: stamps.append(converters.stamp_of(m)), qos)
    peer.connect()
    stamps.clear()
    assert ros_compat.spin_while(ros, lambda: len(stamps) < 150, 20.0)
    # The stamps are the emulator's own: a loaded machine that runs this test late does not change them.
    assert np.median(np.diff(stamps)) == pytest.approx(0.01, abs=0.0015)
    state = peer.robot.read()
    assert state is not None
    assert state.joint_effort is not None
    assert state.joint_pos.shape == state.joint_vel.shape == state.joint_effort.shape == (1, 16)
    assert peer.robot.rejected == {}


def test_a_humanoid_comes_with_its_imu(start_node, ros) -> None:
    start_node("emulator_node", "emulator", robot="unitree_g1", suspended=True)
    peer = Peer(ros, UNITREE_G1)
    peer.connect()
    state = peer.robot.read()
    assert state is not None
    assert state.imu_quat_wxyz is not None
    assert state.imu_lin_acc_b is not None
    assert np.linalg.norm(state.imu_quat_wxyz) == pytest.approx(1.0, abs=1e-6)
    assert state.imu_quat_wxyz[0, 0] > 0.99
    assert state.joint_pos.shape == (1, 29)


def test_it_obeys_then_damps_by_the_time_to_live(start_node, ros) -> None:
    start_node("emulator_node", "emulator", robot="leap_hand")
    peer = Peer(ros)
    peer.connect()
    for _ in range(60):
        peer.hold(0.5)
        peer.spin(0.01)
    assert peer.emulator["damping"] is False
    last_s = peer.hold(0.15)
    status = peer.fresh_status(lambda s: s["damping"])
    # Both times are on this host's monotonic clock; the emulator looks once per period of 5 ms.
    assert 0.15 - 1e-3 <= status["damping_since_s"] - last_s <= 0.15 + 0.05
    state = peer.robot.read()
    assert state is not None
    assert np.abs(state.joint_pos[0] - DEFAULT).max() < 0.2


def test_a_second_sender_is_ignored_while_the_first_is_alive(start_node, ros) -> None:
    start_node("emulator_node", "emulator", robot="leap_hand")
    first, second = Peer(ros, name="first"), Peer(ros, name="second")
    ros_compat.spin_while(ros, lambda: not second.emulator, 20.0)
    # Both see the rival before anything moves.
    assert ros_compat.spin_while(ros, lambda: "2 publishers" not in str(first.robot.problems()), 20.0)
    assert "first, second" in str(first.robot.problems())
    for _ in range(20):
        first.hold(0.5)
        first.spin(0.01)
        second.robot.write(damping_command(KD, time.monotonic(), 0.5))
        first.spin(0.01)
    status = first.fresh_status(lambda s: s["commands_rejected"].get("another sender is in command", 0) > 0)
    assert status["damping"] is False


def test_faults_are_set_at_run_time_and_wrong_ones_refused(start_node, ros) -> None:
    start_node("emulator_node", "emulator", robot="leap_hand")
    peer = Peer(ros)
    peer.connect()
    operator = Operator(peer.node, ros)
    with pytest.raises(OperatorError, match="drop_state"):
        operator.set_fault("explode")
    operator.set_fault("nan")
    assert ros_compat.spin_while(ros, lambda: not np.isnan(peer.robot.read().joint_pos[0, 0]), 5.0)
    operator.set_fault("drop_state")
    first = peer.fresh_status(lambda s: s["fault"] == "drop_state")
    peer.spin(0.2)
    second = peer.fresh_status()
    assert second["states_published"] == first["states_published"]
    operator.set_fault("none")
    peer.fresh_status(lambda s: s["states_published"] > second["states_published"])
    assert ros_compat.spin_while(ros, lambda: bool(np.isnan(peer.robot.read().joint_pos[0, 0])), 5.0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sim": {"mas_scale": 1.0}}, "no parameters sim.mas_scale; valid: robot"),
        ({"sim": {"mass_scale": -1.0}}, "mass_scale must be"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(start_node, parameters: dict, message: str) -> None:
    node = start_node("emulator_node", "emulator", **parameters)
    assert node.wait() == 1
    assert message in node.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_on_a_signal(start_node, ros, number: int) -> None:
    node = start_node("emulator_node", "emulator", robot="leap_hand")
    peer = Peer(ros)
    peer.connect()
    node.send(number)
    assert node.wait() == 0
    assert "Traceback" not in node.output
