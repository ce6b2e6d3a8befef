"""What is easy to get wrong about ROS 2, on a real context in this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64

from robot_rl.errors import ConfigError
from robot_rl.runtime.scheduling import CPU_LATENCY
from robot_rl_bridge import emulator_node, policy_node, ros_compat
from robot_rl_bridge.ros_compat import ParameterSpec

pytestmark = pytest.mark.ros

SPECS = (
    ParameterSpec("rate_hz", 100.0, "Rate.", 1.0, 200.0),
    ParameterSpec("count", 3, "Count.", 0, 10),
    ParameterSpec("kind", "a", "Kind.", choices=("a", "b")),
)


@pytest.fixture
def executor(ros_domain):
    with ros_compat.ros_context([]) as executor:
        yield executor


def make_node(executor, name: str = "node", **overrides) -> Node:
    parameters = [Parameter(key, value=value) for key, value in overrides.items()]
    node = Node(name, parameter_overrides=parameters, enable_rosout=False)
    executor.add_node(node)
    return node


def test_parameters_are_declared_with_descriptions_and_overrides(executor) -> None:
    node = make_node(executor, rate_hz=50.0, use_sim_time=False)
    assert ros_compat.declare_parameters(node, SPECS) == {"rate_hz": 50.0, "count": 3, "kind": "a"}
    assert node.describe_parameter("rate_hz").floating_point_range[0].to_value == 200.0
    assert node.describe_parameter("kind").description == "Kind."
    assert not node.set_parameters([Parameter("count", value=4)])[0].successful


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"rate": 1.0}, "no parameters rate; valid: rate_hz, count, kind"),
        ({"rate_hz": 100}, "rate_hz"),
        ({"rate_hz": 1e6}, "rate_hz"),
        ({"rate_hz": float("nan")}, "rate_hz"),
        ({"count": 11}, "count"),
        ({"kind": "c"}, "kind is 'c'; valid: a, b"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(executor, overrides: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ros_compat.declare_parameters(make_node(executor, **overrides), SPECS)


@pytest.mark.parametrize("table", [policy_node.PARAMETERS, emulator_node.PARAMETERS], ids=["policy", "emulator"])
def test_every_parameter_has_a_description_and_a_default_inside_its_range(table) -> None:
    for spec in table:
        assert spec.description
        assert not spec.choices or spec.default in spec.choices
        if spec.low is not None and spec.high is not None:
            assert spec.low <= spec.default <= spec.high


def connect(executor, publisher_qos: QoSProfile, subscription_qos: QoSProfile):
    """(node, received messages) with one publisher and one subscription on `topic`, as far as they match."""
    node = make_node(executor)
    received: list[Float64] = []
    node.create_subscription(Float64, "topic", received.append, subscription_qos)
    publisher = node.create_publisher(Float64, "topic", publisher_qos)
    assert ros_compat.spin_while(executor, lambda: node.count_publishers("topic") < 1, 5.0)
    return node, publisher, received


def test_a_compatible_pair_is_no_problem(executor) -> None:
    node, _, _ = connect(executor, ros_compat.COMMAND_QOS, ros_compat.COMMAND_QOS)
    assert ros_compat.publisher_problem(node, "topic", ros_compat.COMMAND_QOS) is None
    assert ros_compat.subscription_problem(node, "topic", ros_compat.COMMAND_QOS) is None


def test_incompatible_qos_is_reported_with_its_reason_and_the_other_node(executor) -> None:
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node, _, _ = connect(executor, best_effort, ros_compat.COMMAND_QOS)
    problem = ros_compat.publisher_problem(node, "topic", ros_compat.COMMAND_QOS)
    assert problem is not None
    assert "node" in problem
    assert "incompatible" in problem
    assert "reliab" in problem.lower() or "best effort" in problem.lower()


def test_absent_and_doubled_endpoints_are_reported(executor) -> None:
    node = make_node(executor)
    qos = ros_compat.COMMAND_QOS
    assert ros_compat.publisher_problem(node, "topic", qos) == "no publisher on topic"
    assert ros_compat.subscription_problem(node, "topic", qos) == "no subscriber on topic"
    rival = make_node(executor, "rival")
    for owner in (node, rival):
        owner.create_publisher(Float64, "topic", qos)
    assert ros_compat.spin_while(executor, lambda: node.count_publishers("topic") < 2, 5.0)
    problem = ros_compat.publisher_problem(node, "topic", qos)
    assert problem == "2 publishers on topic: node, rival; expected one"


def test_the_clock_serves_callbacks_and_returns_at_its_deadline(executor) -> None:
    _, publisher, received = connect(executor, ros_compat.COMMAND_QOS, ros_compat.COMMAND_QOS)
    assert ros_compat.spin_while(executor, lambda: not publisher.get_subscription_count(), 5.0)
    clock = ros_compat.RosClock(executor)
    publisher.publish(Float64(data=1.5))
    deadline_s = clock.now() + 0.2
    clock.sleep_until(deadline_s)
    assert clock.now() >= deadline_s
    assert [m.data for m in received] == [1.5]
    # A deadline that has passed still leaves callbacks their share.
    publisher.publish(Float64(data=2.5))
    for _ in range(100):
        clock.sleep_until(clock.now() - 1.0)
    assert [m.data for m in received] == [1.5, 2.5]


def test_a_wait_gives_up_at_its_timeout(executor) -> None:
    make_node(executor)
    started_s = time.monotonic()
    assert not ros_compat.spin_while(executor, lambda: True, 0.1)
    assert time.monotonic() - started_s >= 0.1


def test_the_context_ends_without_its_nodes_being_seen_any_more(ros_domain) -> None:
    for _ in range(2):
        with ros_compat.ros_context([]) as executor:
            node = make_node(executor)
            node.create_publisher(Float64, "topic", ros_compat.COMMAND_QOS)
            assert ros_compat.spin_while(executor, lambda n=node: n.count_publishers("topic") != 1, 5.0)


def test_wrong_ros_arguments_are_one_error(ros_domain) -> None:
    with (
        pytest.raises(ConfigError, match=r"ROS 2 did not start: .*nowhere\.yaml"),
        ros_compat.ros_context(["node", "--ros-args", "--params-file", "nowhere.yaml"]),
    ):
        pass


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("ROS_")} | environment
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_importing_the_bridge_confines_discovery_unless_told_otherwise() -> None:
    show = "import os, robot_rl_bridge; print(os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'])"
    assert run_python(show).stdout.strip() == "LOCALHOST"
    assert run_python(show, ROS_AUTOMATIC_DISCOVERY_RANGE="OFF").stdout.strip() == "OFF"


def test_without_ros_the_error_says_what_to_install() -> None:
    code = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "rclpy" else real(name, *a)
from robot_rl.errors import MissingDependencyError
try:
    import robot_rl_bridge
except MissingDependencyError as error:
    print(error)
"""
    assert "robot-rl[ros]" in run_python(code).stdout


def test_message_packages_imported_too_early_are_refused() -> None:
    code = "import std_msgs.msg; from robot_rl_bridge import ros_compat"
    result = run_python(code)
    assert result.returncode != 0
    assert "field checks are off" in result.stderr


@pytest.mark.skipif(
    not os.access("/dev/cpu_dma_latency", os.W_OK), reason="/dev/cpu_dma_latency is not there, or not ours to write"
)
def test_a_node_with_priority_keeps_the_machine_awake_and_one_without_does_not(start_node) -> None:
    def holds(name: str, priority: int) -> bool:
        node = start_node("watchdog_node", name, robot="leap_hand", realtime_priority=priority)
        end_s = time.monotonic() + 20.0
        while "scheduling: " not in node.output:
            assert time.monotonic() < end_s, node.output
            time.sleep(0.05)
        links = [os.readlink(f) for f in Path(f"/proc/{node.process.pid}/fd").iterdir() if f.is_symlink()]
        assert ("cores stay awake" in node.output) is (priority > 0)
        return str(CPU_LATENCY) in links

    assert holds("watchdog", 20)
    assert not holds("other", 0)


def test_a_node_keeps_to_its_cores(start_node) -> None:
    core = max(os.sched_getaffinity(0))
    node = start_node("watchdog_node", "watchdog", robot="leap_hand", realtime_priority=0, cpu_affinity=[core])
    end_s = time.monotonic() + 20.0
    while "scheduling: " not in node.output:
        assert time.monotonic() < end_s, node.output
        time.sleep(0.05)
    assert f"on core {core}" in node.output
    threads = [int(thread.name) for thread in Path(f"/proc/{node.process.pid}/task").iterdir()]
    # The middleware's among them.
    assert len(threads) > 1
    assert all(os.sched_getaffinity(thread) == {core} for thread in threads)
    nowhere = start_node("watchdog_node", "other", robot="leap_hand", cpu_affinity=[4096])
    assert nowhere.wait(20.0) == 1
    assert "got [4096]" in nowhere.output


def test_a_node_with_coroutines_gets_an_executor_that_takes_them(ros_domain, monkeypatch) -> None:
    class Old:
        """Jazzy's: without futures."""

        def shutdown(self) -> None: ...
        def get_nodes(self) -> list:
            return []

    monkeypatch.setattr(ros_compat, "EventsExecutor", Old)
    with ros_compat.ros_context([]) as executor:
        assert isinstance(executor, Old)
    with ros_compat.ros_context([], coroutines=True) as executor:
        assert type(executor).__name__ == "SingleThreadedExecutor"


STUCK = """
import ctypes
from robot_rl_bridge import ros_compat

class Stuck(ros_compat.Node):
    def destroy_node(self):
        ctypes.PyDLL(None).sleep(60)  # holds the interpreter's lock, as rclpy does while it destroys

ros_compat.TEARDOWN_S = 0.5
with ros_compat.ros_context([]) as executor:
    executor.add_node(Stuck("stuck"))
"""


def test_a_process_whose_middleware_hangs_at_the_end_ends_all_the_same(ros_domain) -> None:
    result = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=40)
    assert result.returncode == 1
    assert "Timeout (0:00:00.500000)!" in result.stderr
    assert "in destroy_node" in result.stderr


def test_after_a_context_nothing_waits_to_end_the_process(ros_domain, monkeypatch) -> None:
    monkeypatch.setattr(ros_compat, "TEARDOWN_S", 1.0)
    with ros_compat.ros_context([]) as executor:
        executor.add_node(Node("brief"))
    time.sleep(1.2)
