"""The policy node as a process: its lifecycle, its refusals, and what the emulated robot sees when things go wrong.

Deadlines are judged on stamps of the nodes themselves (one host, one monotonic clock), so that a slow test process
changes nothing.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node
from std_msgs.msg import Bool, Float64MultiArray, String

from robot_rl.contract import damping_command
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.testing.bundles import TinyPolicy
from robot_rl_bridge import converters, ros_compat
from robot_rl_bridge.operator import Operator, OperatorError
from robot_rl_bridge.ros_robot import RosRobot

pytestmark = pytest.mark.ros

LOOP_S = 0.01
DEADMAN_S = 0.2
DAMP_S = LEAP_HAND.safety.state_damp_s
HOLD_S = LEAP_HAND.safety.state_hold_s
RIVAL_KD = 0.07
"""N m s/rad. Of no sender but the rival."""
# From a tick of the policy node to the emulator's next period, DDS included, on a busy machine.
TRANSPORT_S = 0.03


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(TinyPolicy(LEAP_HAND).write(tmp_path_factory.mktemp("bundle") / "tiny.zip"))


class Station:
    """The operator's desk: an Operator, the emulator's status, and every joint command that passes."""

    def __init__(self, executor) -> None:
        self.executor = executor
        self.node = Node("station", enable_rosout=False)
        executor.add_node(self.node)
        self.operator = Operator(self.node, executor)
        self.emulator: dict = {}
        self.commands: list[tuple[float, bool]] = []
        """(time sent, whether it damps) of each joint command."""
        self.kd: list[np.ndarray] = []
        """(n_joints,) N m s/rad, of each of them."""
        self._order = converters.JointOrder(LEAP_HAND.joint_names, extra_allowed=True)
        self.node.create_subscription(String, "/emulator/status", self._on_emulator, ros_compat.STATUS_QOS)

    def listen(self) -> None:
        """Hear every command; a deep queue, because this process may be slow."""
        qos = ros_compat.STATUS_QOS
        self.node.create_subscription(Float64MultiArray, "joint_command", self._on_command, qos)

    def _on_emulator(self, message: String) -> None:
        self.emulator = json.loads(message.data)

    def _on_command(self, message: Float64MultiArray) -> None:
        command = converters.decode_joint_command(message, self._order)
        self.commands.append((command.sent_s, not command.values[2:4].any()))
        self.kd.append(command.values[4])

    def spin(self, seconds: float) -> None:
        ros_compat.spin_until(self.executor, time.monotonic() + seconds)

    def emulator_until(self, condition, timeout_s: float = 10.0) -> dict:
        asked_s = time.monotonic()

        def waiting() -> bool:
            return self.emulator.get("time_s", 0.0) <= asked_s or not condition(self.emulator)

        assert ros_compat.spin_while(self.executor, waiting, timeout_s), self.emulator
        return self.emulator

    def stand(self) -> None:
        """Bring the robot to STAND the way a person does."""
        self.operator.up()
        self.operator.bring_to("stand")

    def run(self) -> None:
        """Bring the robot to RUN the way a person does."""
        self.operator.up()
        self.operator.send_command([0.1, 0.2, 0.3])
        self.operator.bring_to("run")


@pytest.fixture
def station(ros_domain):
    with ros_compat.ros_context([]) as executor:
        yield Station(executor)


@pytest.fixture
def processes(start_node, station, bundle):
    """(station, policy process, emulator process), not yet configured, with a watchdog between them."""
    emulator = start_node("emulator_node", "emulator", robot="leap_hand")
    start_node("watchdog_node", "watchdog", robot="leap_hand")
    return station, start_node("policy_node", "policy", bundle=bundle, robot="leap_hand"), emulator


@pytest.fixture
def standing(processes):
    """The same, on its way to the standing pose: stiff, and sooner there than RUN."""
    processes[0].stand()
    return processes


@pytest.fixture
def running(processes):
    """The same, with the policy in RUN."""
    processes[0].run()
    return processes


def test_the_lifecycle_is_walked_on_the_real_node(start_node, station, bundle) -> None:
    policy = start_node("policy_node", "policy", bundle=bundle)
    operator = station.operator
    assert operator.state() == "unconfigured"
    with pytest.raises(OperatorError, match="not active"):
        operator.request("stand")
    operator.transition("configure")
    assert operator.state() == "inactive"
    with pytest.raises(OperatorError, match="no publisher on joint_states"):
        operator.transition("activate")
    assert operator.state() == "inactive"
    start_node("emulator_node", "emulator", robot="leap_hand")
    with pytest.raises(OperatorError, match="no subscriber on ~/joint_command: is the watchdog node running"):
        operator.up(3.0)
    start_node("watchdog_node", "watchdog", robot="leap_hand")
    operator.up()
    assert operator.state() == "active"
    operator.wait_for_mode("idle")
    with pytest.raises(OperatorError, match="run refused"):
        operator.request("run")
    operator.transition("deactivate")
    assert operator.state() == "inactive"
    with pytest.raises(OperatorError, match="damped out"):
        operator.transition("cleanup")
    operator.down()
    assert operator.state() == "unconfigured"
    operator.up()
    operator.wait_for_mode("idle")
    operator.transition("shutdown")
    assert policy.wait() == 0


def test_stand_and_run_end_to_end_without_torch_or_simulator(running) -> None:
    station, policy, _ = running
    status = station.operator.status
    assert float(status["age_s"]) < HOLD_S
    assert station.emulator_until(lambda s: True)["damping"] is False
    libraries = Path(f"/proc/{policy.process.pid}/maps").read_text()
    assert "onnxruntime" in libraries
    assert "libtorch" not in libraries
    assert "mujoco" not in libraries
    # The emulator has the sensors and motors of training, and with them torch; what runs on a robot has neither.


def test_a_lost_state_stream_leads_to_damping_within_the_deadline(running) -> None:
    station, _, _ = running
    rejected = station.emulator_until(lambda s: True)["commands_rejected"]  # while they found one another
    station.operator.set_fault("drop_state")
    station.operator.wait_for_mode("damp")
    assert station.operator.status["cause"] == "state_stale"
    status = station.emulator_until(lambda s: s["damping"])
    latency_s = status["damping_since_s"] - status["last_state_s"]
    assert DAMP_S - LOOP_S <= latency_s <= DAMP_S + LOOP_S + TRANSPORT_S, (status, station.operator.watchdog)
    assert status["commands_rejected"] == rejected
    # States come back, and nothing moves until an operator asks.
    station.operator.set_fault("none")
    station.operator.wait_for(lambda s: float(s["age_s"]) < HOLD_S, 5.0, "fresh states")
    assert station.operator.wait_for_mode("damp") == "damp"
    with pytest.raises(OperatorError, match="run refused"):
        station.operator.request("run")
    station.operator.request("stand")
    station.operator.wait_for_mode("stand")


@pytest.mark.parametrize(
    ("fault", "cause"), [("nan", "state_invalid"), ("spike", "state_jump"), ("delay", "state_stale")]
)
def test_a_spoilt_state_leads_to_damping(standing, fault: str, cause: str) -> None:
    station, _, _ = standing
    station.operator.set_fault(fault)
    station.operator.wait_for_mode("damp", "fault")
    assert station.operator.status["cause"] == cause
    station.emulator_until(lambda s: s["damping"])


def test_sigterm_streams_damping_before_the_process_ends(running) -> None:
    check_damped_exit(running, signal.SIGTERM)


def test_sigint_streams_damping_before_the_process_ends(standing) -> None:
    check_damped_exit(standing, signal.SIGINT)


def check_damped_exit(processes, number: int) -> None:
    station, policy, _ = processes
    station.listen()
    assert ros_compat.spin_while(station.executor, lambda: not station.commands, 5.0)
    assert not station.commands[0][1]
    sent_s = policy.send(number)
    assert ros_compat.spin_while(station.executor, lambda: policy.process.poll() is None, 10.0)
    station.spin(0.2)
    assert policy.process.returncode == 0, policy.output
    damping = [time_s for time_s, damps in station.commands if damps and time_s > sent_s]
    assert damping[0] - sent_s <= 2 * LOOP_S + TRANSPORT_S
    assert damping[-1] - damping[0] > 0.9
    assert len(damping) > 0.8 / LOOP_S
    first = station.commands.index((damping[0], True))
    assert all(damps for _, damps in station.commands[first:])


def test_a_killed_policy_node_is_damped_for_by_the_watchdog(running) -> None:
    station, policy, _ = running
    killed_s = policy.send(signal.SIGKILL)
    status = station.emulator_until(lambda s: s["damping"])
    # The watchdog damps long before the command in force expires.
    assert 0.0 < status["damping_since_s"] - killed_s <= 4 * LOOP_S + TRANSPORT_S < DAMP_S
    station.operator.watchdog = {}
    assert ros_compat.spin_while(station.executor, lambda: not station.operator.watchdog, 5.0)
    assert station.operator.watchdog["trip"] == "feed_lost"


def test_a_rival_on_the_command_topic_is_reported_and_not_obeyed(standing) -> None:
    station, _, _ = standing
    station.listen()
    rival = RosRobot(station.node, LEAP_HAND, "/policy/joint_command")
    rival.open()
    for _ in range(50):
        now = time.monotonic()
        rival.write(damping_command(np.full(16, RIVAL_KD), now, 0.1))
        station.spin(0.02)
    station.operator.wait_for(lambda s: "2 publishers on ~/joint_command" in s["problem"], 5.0, "a rival")
    assert station.emulator_until(lambda s: True)["damping"] is False
    watchdog = station.operator.watchdog
    assert (watchdog["refused_senders"], watchdog["passing"]) == ("1", "True")
    assert int(watchdog["refused_commands"]) > 10
    assert station.operator.wait_for_mode("stand") == "stand"
    assert len(station.commands) > 10
    assert not any((kd == RIVAL_KD).all() for kd in station.kd)


def test_an_emergency_stop_needs_a_reset(standing) -> None:
    station, _, _ = standing
    operator = station.operator
    operator.request("estop")
    operator.wait_for_mode("fault")
    station.emulator_until(lambda s: s["damping"])
    with pytest.raises(OperatorError, match="stand refused"):
        operator.request("stand")
    operator.insist("reset", "not green")
    operator.wait_for_mode("idle")


def test_bad_commands_are_counted_and_do_not_stop_the_run(standing) -> None:
    station, _, _ = standing
    for values in ([1.0], [1.0, 2.0, float("nan")]):
        before = int(station.operator.status["rejected_messages"])
        station.operator.send_command(values)
        station.operator.wait_for(lambda s, n=before: int(s["rejected_messages"]) > n, 5.0, "a rejection")
        assert "3 finite numbers" in station.operator.status["last_rejection"]
    assert station.operator.wait_for_mode("stand") == "stand"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: folder / "none.zip", "no such file"),
        (lambda folder: TinyPolicy(UNITREE_G1).write(folder / "g1.zip"), "unitree_g1"),
        (lambda folder: TinyPolicy(LEAP_HAND, control_period_s=0.013).write(folder / "odd.zip"), "loop period"),
        (lambda folder: _wrong_golden(folder), "golden rows"),
        (lambda folder: _truncated(folder), "truncated"),
    ],
    ids=["missing", "other robot", "other rate", "other numbers", "truncated"],
)
def test_a_bad_bundle_is_refused_at_configure_with_the_reason(start_node, station, tmp_path, make, reason) -> None:
    start_node("policy_node", "policy", bundle=str(make(tmp_path)))
    with pytest.raises(OperatorError, match=reason):
        station.operator.transition("configure")
    assert station.operator.state() == "unconfigured"


def _wrong_golden(folder: Path) -> Path:
    policy = TinyPolicy(LEAP_HAND)
    golden = policy.golden()
    golden["out/action"] = golden["out/action"] + np.float32(0.01)
    return policy.write(folder / "golden.zip", golden=golden)


def _truncated(folder: Path) -> Path:
    path = TinyPolicy(LEAP_HAND).write(folder / "cut.zip")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def test_a_misspelt_parameter_ends_the_process_with_the_valid_names(start_node) -> None:
    node = start_node("policy_node", "policy", bundel="x")
    assert node.wait() == 1
    assert "no parameters bundel; valid: bundle, recovery, robot, unit, loop_rate_hz" in node.output


def test_a_humanoid_runs_only_while_the_deadman_is_held(start_node, station, tmp_path) -> None:
    bundle = TinyPolicy(UNITREE_G1, control_period_s=0.02, command_dim=0).write(tmp_path / "g1.zip")
    start_node("emulator_node", "emulator", robot="unitree_g1", suspended=True)
    start_node("watchdog_node", "watchdog", robot="unitree_g1")
    start_node("policy_node", "policy", bundle=str(bundle), robot="unitree_g1")
    button = station.node.create_publisher(Bool, "/policy/deadman", ros_compat.COMMAND_QOS)
    operator = station.operator
    operator.up()
    operator.bring_to("stand")
    with pytest.raises(OperatorError, match="the deadman button is not held"):
        operator.insist("run", "standing still")
    held = station.node.create_timer(0.02, lambda: button.publish(Bool(data=True)))
    operator.insist("run", "deadman")
    released_s = time.monotonic()
    held.cancel()
    operator.wait_for_mode("damp")
    assert operator.status["cause"] == "deadman_lost"
    assert station.emulator_until(lambda s: s["damping"])["damping_since_s"] - released_s < DEADMAN_S + 0.1
