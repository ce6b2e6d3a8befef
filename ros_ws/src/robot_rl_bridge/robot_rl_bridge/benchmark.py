"""`robot-rl bench ros`: from a state to the command that rests on it, over ROS 2, beside a bare echo of the messages.

This process is the robot: at 50, 200 and 500 Hz it publishes the states of a humanoid (JointState and Imu) and waits
for the answers of a bare echo (`echo`, rclpy as it comes: a callback that publishes, and rclpy.spin), of the same echo
on the executor and without the garbage collection of the policy node (`floor`), and of the policy node in RUN
(`policy`, a network of real size at every tick), in turn and each time started anew, and at last of the policy node
behind its watchdog (`watchdog`). All have the same scheduling and keep to one core, which this process keeps away
from. A command tells the state that it rests on by its expiry, and an echo by its stamp. A measurement in which the
safety filter stops the policy is made again.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Bool, Float64MultiArray

from robot_rl.commands.result import Result, Row
from robot_rl.errors import RobotRLError
from robot_rl.robots import UNITREE_G1
from robot_rl.runtime.scheduling import ANY_CORE, on_any_core, schedule
from robot_rl.runtime.signals import no_garbage_collection
from robot_rl_bridge import converters, ros_compat
from robot_rl_bridge.operator import Operator, OperatorError
from robot_rl_bridge.outputs import COMMAND_TOPIC
from robot_rl_bridge.receiver import ROWS
from robot_rl_bridge.ros_robot import HEARTBEAT_S, IMU_TOPIC, PASSING_TOPIC, STATE_TOPIC

RATES_HZ = (50.0, 200.0, 500.0)
ROUNDS = 7
"""How often echoes and policy take turns: from one minute, and from one process, to the next all is up to twice as
fast. What is judged is therefore the median over the rounds of each one's ratio."""
MEASURE_S = 1.5
"""Of each way in each round."""
SETTLE_S = 1.0
"""Before each measurement. Its states come at other times than those before it, which a loop that follows the robot's
clock by at most 1 % has found after 50 ticks; robots do not jump."""
TARGET_RATIO = 1.4
TARGET_TICK_S = 0.002
HIDDEN = (512, 256, 128)
PRIORITY = 20
"""SCHED_FIFO of the nodes, as on a robot, if it is granted. This process has a little more."""
_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
NODES_CORE = _CORES[-1] if len(_CORES) > 1 else -1
"""What all nodes keep to, each in its turn, as on a robot; the robot's process has the others."""
ROBOT_CORES = tuple(_CORES[:-1]) or ANY_CORE
NICENESS = -15
"""Of the middleware's threads."""
ATTEMPTS = 10
START_S = 30.0

ROBOT = UNITREE_G1
DEFAULT = np.array([j.default_pos_rad for j in ROBOT.joints])
_KP = slice(
    converters.HEADER + ROWS.index("kp") * len(DEFAULT), converters.HEADER + (ROWS.index("kp") + 1) * len(DEFAULT)
)
LIFE_S = ROBOT.safety.state_damp_s
"""A command of the policy expires this long after the measurement that it rests on."""


@dataclass
class Answers:
    """What came back in one measurement."""

    sent_s: list[float] = field(default_factory=list)
    """When each state was published, on the monotonic clock."""
    round_trip_s: dict[int, float] = field(default_factory=dict)
    """State -> time until the first answer to it."""
    limp: int = 0
    """Joint commands without stiffness: the policy was not running."""
    cpu_s: float = 0.0
    """Time on a core of the processes that answer, all their threads."""

    def missed(self, period_s: float) -> int:
        """States not answered within their period. The last one had no time."""
        return sum(self.round_trip_s.get(k, math.inf) > period_s for k in range(len(self.sent_s) - 1))


class Robot:
    """Publishes states of a robot that stands still, upright, and takes note of the answers."""

    def __init__(self, executor: Any, rate_hz: float) -> None:
        self.executor, self.period_s = executor, 1.0 / rate_hz
        self.node = Node("robot", enable_rosout=False)
        executor.add_node(self.node)
        self.operator = Operator(self.node, executor)
        self.answers: Answers | None = None
        self.is_watchdog = False
        """Whether this process says that it passes commands on, because no watchdog runs."""
        self._next_heartbeat_s = self._wall_offset_s = 0.0
        create = self.node.create_publisher
        self._joints = create(JointState, STATE_TOPIC, ros_compat.SENSOR_QOS)
        self._imu = create(Imu, IMU_TOPIC, ros_compat.SENSOR_QOS)
        self._passing = create(Bool, PASSING_TOPIC, ros_compat.COMMAND_QOS)
        self._deadman = create(Bool, "/policy/deadman", ros_compat.COMMAND_QOS)
        self._goal = create(Float64MultiArray, "/policy/command", ros_compat.COMMAND_QOS)
        self._by_expiry = True
        self._subscription: Any = None
        self._timer = self.node.create_timer(self.period_s, self.publish)

    def listen(self, topic: str, *, by_expiry: bool) -> None:
        """Take note of the answers on `topic`: joint commands, or echoes with the stamp of the state in them."""
        if self._subscription is not None:
            self.node.destroy_subscription(self._subscription)
        self._by_expiry = by_expiry
        qos = ros_compat.COMMAND_QOS
        self._subscription = self.node.create_subscription(Float64MultiArray, topic, self._on_answer, qos)

    def measure(self, seconds: float, processes: list[subprocess.Popen[bytes]]) -> Answers:
        """Round trips of `seconds` of states. Raises RobotRLError if none is answered."""
        answers, before_s = Answers(), 0.0
        # Deadlines of its own: a timer would skip some.
        self._timer.cancel()
        start_s = time.monotonic() + SETTLE_S
        for k in range(-round(SETTLE_S / self.period_s), round(seconds / self.period_s)):
            ros_compat.spin_until(self.executor, start_s + k * self.period_s)
            if k == 0:
                self.answers, before_s = answers, sum(map(_cpu_s, processes))
            self.publish()
        self.answers = None
        self._timer.reset()
        if not answers.round_trip_s and not answers.limp:
            raise RobotRLError(f"nothing came back in {seconds:g} s")
        answers.cpu_s = sum(map(_cpu_s, processes)) - before_s
        return answers

    def publish(self) -> None:
        """One state; and what else a robot and its operator send from time to time."""
        now = time.monotonic()
        if now >= self._next_heartbeat_s:
            self._next_heartbeat_s = now + HEARTBEAT_S
            self._deadman.publish(Bool(data=True))
            self._goal.publish(Float64MultiArray(data=converters.doubles(np.zeros(3))))
            if self.is_watchdog:
                self._passing.publish(Bool(data=True))
        now, stamp_s = time.monotonic(), time.time()
        if self.answers is not None:
            self.answers.sent_s.append(now)
        self._wall_offset_s = stamp_s - now
        zero = np.zeros(len(DEFAULT))
        joints = converters.encode_joint_state(ROBOT.joint_names, stamp_s, DEFAULT, zero, zero)
        imu = (np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3), np.array([0.0, 0.0, 9.81]))
        self._joints.publish(joints)
        self._imu.publish(converters.encode_imu(stamp_s, ROBOT.root_body, *imu))

    def _on_answer(self, message: Float64MultiArray) -> None:
        now, answers = time.monotonic(), self.answers
        if answers is None or not answers.sent_s:
            return
        data = cast("list[float]", message.data)
        if self._by_expiry and not any(data[_KP]):
            answers.limp += 1
            return
        measured_s = data[2] + data[3] - LIFE_S if self._by_expiry else data[2] - self._wall_offset_s
        # Clocks are brought together by the fastest message, so a stamp comes out a little late, never early.
        k = int(np.searchsorted(answers.sent_s, measured_s + 1e-4)) - 1
        if k >= 0:
            answers.round_trip_s.setdefault(k, now - answers.sent_s[k])


@contextlib.contextmanager
def _nodes(folder: Path, *nodes: tuple[str, tuple[str, ...]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Each (module, parameters) as a process."""
    processes = []
    try:
        for module, parameters in nodes:
            common = (f"robot:={ROBOT.name}", f"realtime_priority:={PRIORITY}", f"cpu_affinity:=[{NODES_CORE}]")
            flags = [word for p in (*common, *parameters) for word in ("-p", p)]
            with (folder / f"{module}.log").open("wb") as log, on_any_core():
                command = [sys.executable, "-m", f"robot_rl_bridge.{module}", "--ros-args", *flags]
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, processes[-1].pid, NICENESS)
        yield processes
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def benchmark() -> Result:
    """Rows `ros/<rate>/...`: round trips against the echo, missed deadlines, time on a core per cycle, and the tick."""
    # A domain of its own, so that no robot on this host is met.
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    rows: list[Row] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as name, no_garbage_collection():
        folder = Path(name)
        scheduling = schedule(PRIORITY + 5, ROBOT_CORES)
        for rate_hz in RATES_HZ:
            try:
                rows += _at_rate(rate_hz, folder)
            except RobotRLError as error:
                # A machine that cannot hold one rate still tells of the others.
                failed.append(f"{rate_hz:g} Hz: {error}")
    slow = [r.name for r in rows if r.reference == "target" and r.ratio is not None and r.ratio > 1.0]
    reasons = [f"slower than asked: {', '.join(slow)}"] if slow else []
    reason = "; ".join(reasons + failed)
    return Result(ok=not reason, rows=tuple(rows), reason=reason, details={"scheduling": scheduling})


def _at_rate(rate_hz: float, folder: Path) -> list[Row]:
    bundle = _bundle(folder, rate_hz)
    loop = f"loop_rate_hz:={rate_hz}"
    policy = ("policy_node", (loop, f"bundle:={bundle}"))
    with ros_compat.ros_context([]) as executor:
        robot = Robot(executor, rate_hz)
        ways: dict[str, list[Answers]] = {"echo": [], "floor": [], "policy": [], "watchdog": []}
        ticks_s: list[float] = []
        libraries, interrupted = "", 0
        for _ in range(ROUNDS):
            for way in ("echo", "floor"):
                ways[way].append(_echo(robot, folder, bare=way == "echo"))
            robot.is_watchdog = True
            robot.listen("/policy/joint_command", by_expiry=True)
            with _nodes(folder, policy) as processes:
                _run_policy(robot, folder)
                answers, repeated = _policy(robot, folder, processes)
                ways["policy"].append(answers)
                interrupted += repeated
                ticks_s.append(float(robot.operator.status["latency_p99_s"]))
                libraries += Path(f"/proc/{processes[0].pid}/maps").read_text()
        robot.is_watchdog = False
        robot.listen(COMMAND_TOPIC, by_expiry=True)
        with _nodes(folder, ("watchdog_node", (loop,)), policy) as processes:
            _run_policy(robot, folder)
            ways["watchdog"] = [_policy(robot, folder, processes)[0] for _ in range(ROUNDS)]
    label = f"ros/{rate_hz:g}Hz"
    rows = [row for way in ways for row in _rows(label, way, ways[way], ways["echo"], 1.0 / rate_hz)]
    # What is asked is asked of the bare echo. Floor and watchdog, a second hop that echoes do not have, are reported.
    for other in ("echo", "floor"):
        ratios = _by_round(ways["policy"], ways[other])
        median, name = float(np.median(ratios)), f"{label}/policy/p50-to-{other}"
        against = ("target", median / TARGET_RATIO) if other == "echo" else (None, None)
        rows.append(Row(name, median, "", *against))
        rows.append(Row(f"{name}/rounds", ", ".join(f"{ratio:.2f}" for ratio in ratios)))
    rows.append(Row(f"{label}/tick/p99", 1e3 * max(ticks_s), "ms", "target", max(ticks_s) / TARGET_TICK_S))
    rows.append(Row(f"{label}/policy/interrupted", interrupted, f"of {ROUNDS + interrupted}"))
    rows.append(Row(f"{label}/torch_in_process", "libtorch" in libraries))
    return rows


def _rows(label: str, way: str, answers: list[Answers], echoes: list[Answers], period_s: float) -> list[Row]:
    """What came back on one way, of all rounds together."""
    rows = []
    times_s, echo_s = _times_s(answers), _times_s(echoes)
    for share in (50, 99):
        value = float(np.percentile(times_s, share))
        row = Row(f"{label}/{way}/p{share}", 1e3 * value, "ms")
        if way != "echo":
            row = replace(row, reference="echo", ratio=value / float(np.percentile(echo_s, share)))
        rows.append(row)
    cycles = sum(len(a.sent_s) for a in answers)
    rows.append(Row(f"{label}/{way}/missed", sum(a.missed(period_s) for a in answers), f"of {cycles}"))
    rows.append(Row(f"{label}/{way}/cpu_per_cycle", 1e3 * sum(a.cpu_s for a in answers) / cycles, "ms"))
    return rows


def _by_round(answers: list[Answers], others: list[Answers]) -> list[float]:
    """Median round trip over that of the other way, of each round."""
    medians = ([float(np.median(_times_s([a]))) for a in way] for way in (answers, others))
    return [own / other for own, other in zip(*medians, strict=True)]


def _times_s(answers: list[Answers]) -> list[float]:
    return [time_s for a in answers for time_s in a.round_trip_s.values()]


def _echo(robot: Robot, folder: Path, *, bare: bool) -> Answers:
    robot.listen(COMMAND_TOPIC, by_expiry=False)
    with _nodes(folder, ("echo", (f"bare:={str(bare).lower()}",))) as processes:
        first = robot.answers = Answers()
        first.sent_s.append(time.monotonic())
        if not ros_compat.spin_while(robot.executor, lambda: not first.round_trip_s, START_S):
            raise RobotRLError(f"the echo does not answer: {(folder / 'echo.log').read_text()}")
        return robot.measure(MEASURE_S, processes)


def _policy(robot: Robot, folder: Path, processes: list[subprocess.Popen[bytes]]) -> tuple[Answers, int]:
    """Round trips of a policy that was brought to run and ran all the time, and how many measurements it took besides,
    in which the safety filter stopped it: a machine that stands still for a moment does that."""
    for attempt in range(ATTEMPTS):
        answers = robot.measure(MEASURE_S, processes)
        if not answers.limp:
            return answers, attempt
        _run_policy(robot, folder)
    raise RobotRLError(f"the policy was stopped in each of {ATTEMPTS} measurements, at last by {robot.operator.status}")


def _run_policy(robot: Robot, folder: Path) -> None:
    """Bring the policy node to RUN, while the robot's timer publishes states."""
    try:
        robot.operator.up(START_S)
        robot.operator.bring_to("run", ATTEMPTS)
    except OperatorError as error:
        log = (folder / "policy_node.log").read_text()
        raise RobotRLError(f"the policy does not run: {error}; {robot.operator.status}; {log}") from error
    # The window of its statistics.
    ros_compat.spin_until(robot.executor, time.monotonic() + 1.0)


def _bundle(folder: Path, rate_hz: float) -> Path:
    """A policy that is evaluated at every tick, built in another process: torch in this one would not be honest."""
    code = (
        "import sys; from pathlib import Path; from robot_rl.commands.runtime_benchmark import Case, build; "
        f"build(Path(sys.argv[1]), (Case({ROBOT.name!r}, {HIDDEN}, {1.0 / rate_hz}),))"
    )
    target = folder / f"{rate_hz:g}"
    subprocess.run([sys.executable, "-c", code, str(target)], check=True, capture_output=True)
    return target / ROBOT.name


def _cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Time that all threads of a process have spent on a core, s."""
    total = 0.0
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += 1e-9 * int((task / "schedstat").read_text().split()[0])
    return total
