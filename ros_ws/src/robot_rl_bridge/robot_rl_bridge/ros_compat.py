"""Everything about ROS 2 that is easy to get wrong, once.

- rclpy's own signal handlers destroy the context before a node can send its last command. None are installed.
- `EventsExecutor.spin()` without a timeout never dispatches in some releases. `spin_until` is the way to spin.
- A misspelt parameter is silently ignored by rclpy. `declare_parameters` refuses it.
- Fast DDS can deadlock while endpoints are destroyed here and elsewhere at once. `ros_context` waits no longer than
  TEARDOWN_S for it.
"""

from __future__ import annotations

import faulthandler
import inspect
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.duration import Infinite
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Float64

from robot_rl.commands.drivers import read_unit, spec_of
from robot_rl.errors import ConfigError, RobotRLError
from robot_rl.robots import RobotSpec
from robot_rl.runtime import scheduling
from robot_rl.runtime.signals import STOPPING

try:
    Float64().data = "not a number"  # type: ignore[assignment]
except AssertionError:
    pass
else:
    raise ConfigError(
        "ROS message field checks are off: import robot_rl_bridge before any message package, and run without python -O"
    )


def _qos(
    reliability: ReliabilityPolicy, depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE
) -> QoSProfile:
    # The infinite times are spelt out because an endpoint found in the graph reports its defaults so, and is compared.
    return QoSProfile(
        depth=depth,
        reliability=reliability,
        durability=durability,
        deadline=Infinite,
        liveliness_lease_duration=Infinite,
    )


SENSOR_QOS = _qos(ReliabilityPolicy.BEST_EFFORT, 1)
"""States: a lost one is replaced by the next, never sent again late."""
COMMAND_QOS = _qos(ReliabilityPolicy.RELIABLE, 1)
CONTESTED_QOS = _qos(ReliabilityPolicy.RELIABLE, 16)
"""Commands, where a second sender must be told from the first: all senders share a queue, and in one of depth 1 the
commands of a rival push out those of the sender in command before anybody has read them."""
STATUS_QOS = _qos(ReliabilityPolicy.RELIABLE, 10)
LATCHED_QOS = _qos(ReliabilityPolicy.RELIABLE, 1, DurabilityPolicy.TRANSIENT_LOCAL)
"""The last value is there for whoever comes later."""

TEARDOWN_S = 20.0
"""A process that cannot get rid of its nodes within this time, which is usually 0.02 s, ends without."""

MIN_SERVICE_S = 0.001
"""What a loop that overran still gives its callbacks, so that it goes on hearing the robot and the operator."""


def with_info(callback: Callable[[Any, dict[str, Any]], None]) -> Callable[..., None]:
    """A subscription callback that is also told who sent the message.

    The EventsExecutor of some releases hands both over as one argument, other executors as two.
    """

    def adapted(*arguments: Any) -> None:
        callback(*(arguments if len(arguments) == 2 else arguments[0]))

    # From it rclpy tells which kind of callback this is.
    adapted.__signature__ = inspect.signature(callback)  # type: ignore[attr-defined]
    return adapted


def subscribe_bytes(node: Node, kind: type, topic: str, callback: Callable[..., None], qos: QoSProfile) -> Any:
    """A subscription whose callback is given each message as it came, in bytes; rclpy's types do not know of it."""
    return node.create_subscription(kind, topic, callback, qos, raw=True)


def hear_all(node: Node, kind: type, topic: str, callback: Callable[[Any], None]) -> None:
    """Subscribe so that no publisher's QoS keeps its messages from us; each may come more than once.

    For an emergency stop: latched publishers are heard even if they spoke before, and the others as well, which a
    subscription that asks for latched ones would not match.
    """
    # One of them always fits, so that another does not is nothing to warn of.
    quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
    for qos in (LATCHED_QOS, COMMAND_QOS, SENSOR_QOS):
        node.create_subscription(kind, topic, callback, qos, event_callbacks=quiet)


def spin_until(executor: Any, deadline_s: float) -> None:
    """Serve callbacks until `deadline_s` on the monotonic clock; for MIN_SERVICE_S if it has passed."""
    deadline_s = max(deadline_s, time.monotonic() + MIN_SERVICE_S)
    while (remaining := deadline_s - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=remaining)


def spin_while(executor: Any, condition: Callable[[], bool], timeout_s: float) -> bool:
    """Serve callbacks while `condition()`; returns whether it became false before the time-out."""
    deadline_s = time.monotonic() + timeout_s
    while condition():
        if (remaining := deadline_s - time.monotonic()) <= 0:
            return False
        executor.spin_once(timeout_sec=min(0.02, remaining))
    return True


class RosClock:
    """Monotonic clock whose sleep serves the node's callbacks; a robot_rl Clock."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    def now(self) -> float:
        return time.monotonic()

    def sleep_until(self, deadline_s: float) -> None:
        spin_until(self._executor, deadline_s)


@contextmanager
def ros_context(argv: Sequence[str] | None = None, *, coroutines: bool = False) -> Iterator[Any]:
    """rclpy initialised without signal handlers, and an executor for `spin_until`; destroys its nodes at the end.

    It is an EventsExecutor, but for nodes with `coroutines` as callbacks on Jazzy, whose EventsExecutor takes none.
    Where the middleware hangs while they are destroyed, the process ends with code 1 and a traceback after TEARDOWN_S.

    Raises ConfigError for ROS arguments or a parameter file that rcl cannot parse.
    """
    try:
        rclpy.init(args=None if argv is None else list(argv), signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:
        raise ConfigError(f"ROS 2 did not start: {error}") from error
    try:
        executor: Any = EventsExecutor()
        if coroutines and not hasattr(executor, "create_future"):
            executor.shutdown()
            executor = SingleThreadedExecutor()
        try:
            yield executor
        finally:
            _exit_if_stuck(TEARDOWN_S)
            for node in list(executor.get_nodes()):
                executor.remove_node(node)
                node.destroy_node()
            executor.shutdown()
    finally:
        try:
            rclpy.try_shutdown()
        finally:
            faulthandler.cancel_dump_traceback_later()


def _exit_if_stuck(seconds: float) -> None:
    """End the process unless `faulthandler.cancel_dump_traceback_later` comes within that time.

    A deadlock in there (github.com/eProsima/Fast-DDS/issues/6502) holds Python's lock: no thread or signal handler in
    Python gets a turn, and Ctrl-C does nothing. Robots are damped by then.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)


def run_node(main: Callable[[], int]) -> int:
    """Exit code of a node's main function; an error of ours is one line on stderr."""
    try:
        return main()
    except RobotRLError as error:
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
        return 1
    finally:
        # Launch repeats the terminal's Ctrl-C: it must not turn a clean end into a death.
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a node. Numbers are refused outside [low, high], strings outside `choices`."""

    name: str
    default: bool | int | float | str | list[int] | list[float]
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    at_run_time: bool = False
    """May be set while the node runs; the others are read once."""


PRIORITY = ParameterSpec(
    "realtime_priority",
    0,
    "SCHED_FIFO priority to ask the kernel for, with cores that stay awake; 0: leave the scheduling as it is.",
    0,
    scheduling.MOST_PRIORITY,
)

CORES = ParameterSpec("cpu_affinity", list(scheduling.ANY_CORE), "Cores to keep to; [-1]: any.")


def schedule(node: Node, values: Mapping[str, Any]) -> None:
    """Do as the parameters PRIORITY and CORES say, for the threads that this process has now, and print what came of
    it. Raises ConfigError for cores that there are not."""
    print(f"{node.get_name()}: {scheduling.schedule(values[PRIORITY.name], values[CORES.name])}", flush=True)


UNIT = ParameterSpec(
    "unit", "", "Unit file of the robot, hardware/units/<serial>.yaml, for its safety thresholds; empty: none."
)


def robot_of(values: Mapping[str, Any]) -> tuple[RobotSpec, tuple[str, ...]]:
    """The robot of the parameters `robot` and `unit`, with the unit's thresholds, and a line about each of those."""
    return spec_of(values["robot"], read_unit(Path(values["unit"]) if values["unit"] else None))


def declare_parameters(node: Node, specs: Sequence[ParameterSpec]) -> dict[str, Any]:
    """Declare all, with descriptors and ranges, and return their values.

    Raises ConfigError for an override whose name is not declared, and for a value of the wrong type, not finite, or
    outside its range.
    """
    names = [spec.name for spec in specs]
    # No public API tells which overrides a node was started with.
    overrides = getattr(node, "_parameter_overrides", {})
    unknown = sorted(set(overrides) - set(names) - {"use_sim_time"} - {n for n in overrides if n.startswith("qos_")})
    if unknown:
        raise ConfigError(f"node {node.get_name()!r} has no parameters {', '.join(unknown)}; valid: {', '.join(names)}")
    values = {}
    for spec in specs:
        try:
            values[spec.name] = node.declare_parameter(spec.name, spec.default, _descriptor(spec)).value
        except Exception as error:
            raise ConfigError(f"parameter {spec.name} of node {node.get_name()!r}: {error}") from error
        check_parameter(spec, values[spec.name])
    return values


def check_parameter(spec: ParameterSpec, value: Any) -> None:
    """Raise ConfigError if `value` is not finite or not one of the choices."""
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if any(isinstance(v, float) and not math.isfinite(v) for v in numbers):
        raise ConfigError(f"parameter {spec.name} must be finite, got {value}")
    if spec.choices and value not in spec.choices:
        raise ConfigError(f"parameter {spec.name} is {value!r}; valid: {', '.join(spec.choices)}")


def _descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=spec.description, read_only=not spec.at_run_time)
    if spec.choices:
        descriptor.additional_constraints = f"one of: {', '.join(spec.choices)}"
    if spec.low is not None and spec.high is not None:
        if isinstance(spec.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(spec.low), to_value=float(spec.high))
            ]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(spec.low), to_value=int(spec.high), step=1)]
    return descriptor


def publisher_problem(node: Node, topic: str, qos: QoSProfile) -> str | None:
    """Why nothing, or too much, is heard on `topic`: None if exactly one publisher exists and its QoS fits ours."""
    found = node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
    return _endpoint_problem(topic, "publisher", found, lambda other: qos_check_compatible(other, qos))


def subscription_problem(node: Node, topic: str, qos: QoSProfile) -> str | None:
    """Why our messages on `topic` reach nobody: None if a subscription exists whose QoS fits ours."""
    found = node.get_subscriptions_info_by_topic(node.resolve_topic_name(topic))
    # Of several subscribers (a recorder, a plot) the first that fits will do.
    problems = [
        _endpoint_problem(topic, "subscriber", [e], lambda other: qos_check_compatible(qos, other)) for e in found
    ]
    return problems[0] if found and all(problems) else None if found else f"no subscriber on {topic}"


def _endpoint_problem(
    topic: str, what: str, found: Sequence[Any], compatible: Callable[[QoSProfile], Any]
) -> str | None:
    if not found:
        return f"no {what} on {topic}"
    if len(found) > 1:
        return f"{len(found)} {what}s on {topic}: {', '.join(sorted(e.node_name for e in found))}; expected one"
    verdict, reason = compatible(found[0].qos_profile)
    if verdict == QoSCompatibility.ERROR:
        return f"QoS of the {what} on {topic} ({found[0].node_name}) is incompatible: {reason.strip()}"
    return None
