"""`robot-rl bench exits`: every way in which a process can end, and how long it takes until the robot is damped.

Emulator, watchdog and policy node run as processes; the policy moves the robot (RUN). Then one of them is killed,
stopped, told to end, or made to raise. What counts is measured at the robot's side: the emulator's own report of
damping or, where the emulator is the one that ends, the first command after which nothing but damping is sent to it.
All times are on this host's monotonic clock.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Bool, Float64MultiArray, String

from robot_rl.commands.result import Result, Row
from robot_rl.errors import RobotRLError
from robot_rl.robots import LEAP_HAND
from robot_rl_bridge import converters, ros_compat
from robot_rl_bridge.operator import Operator
from robot_rl_bridge.outputs import COMMAND_TOPIC
from robot_rl_bridge.watchdog import FEED_TICKS
from robot_rl_bridge.watchdog_node import ESTOP_TOPIC

LOOP_RATE_HZ = 100.0
EMULATOR_RATE_HZ = 200.0
ATTEMPTS = 4
WATCH_S = 1.5
"""How long the robot must stay damped after that."""
COMMAND = [0.0, 0.0, 0.0]
PRIORITY = 20
"""SCHED_FIFO, as on a robot; where it is not permitted the nodes say so and run as they are."""
NICENESS = -15
"""Of the middleware's threads."""

_PROFILE = LEAP_HAND.safety
_TICK_S = 1.0 / LOOP_RATE_HZ
# One look of the emulator, and a command's way to it.
_NOTICE_S = 1.0 / EMULATOR_RATE_HZ + 0.005

# How a process is made to raise: the same node, but one of its callbacks fails at a message that is otherwise harmless.
_RAISING = """
import time
from robot_rl_bridge import {node}_node as module
real = module.{kind}.{callback}
def fail(self, message):
    if {condition}:
        print("raised", time.monotonic(), flush=True)
        raise RuntimeError("on purpose")
    real(self, message)
module.{kind}.{callback} = fail
module.console()
"""
_RAISING_OF = {
    "policy": {"kind": "PolicyNode", "callback": "_on_command", "condition": "len(message.data) == 1"},
    "watchdog": {"kind": "WatchdogNode", "callback": "_on_estop", "condition": "not message.data"},
    "emulator": {"kind": "EmulatorNode", "callback": "_on_command", "condition": "len(message.data) == 1"},
}


@dataclass(frozen=True)
class ExitPath:
    """One way to end, and the time after which the design promises a damped robot."""

    node: str
    how: str
    """A signal's name, or "exception"."""
    deadline_s: float
    by: str
    """Who damps the robot."""

    @property
    def name(self) -> str:
        return f"{self.node}/{self.how.lower()}"


_FEED_S = FEED_TICKS * _TICK_S + _NOTICE_S
_EXPIRY_S = _PROFILE.state_damp_s + _NOTICE_S
# A loop sees a signal or an exception in its next tick.
_TOLD_S = 2 * _TICK_S + _NOTICE_S
_STALE_S = _PROFILE.state_damp_s + _TICK_S + _NOTICE_S

PATHS = (
    ExitPath("policy", "SIGKILL", _FEED_S, "watchdog"),
    ExitPath("policy", "SIGSTOP", _FEED_S, "watchdog"),
    ExitPath("policy", "SIGINT", _TOLD_S, "policy node"),
    ExitPath("policy", "SIGTERM", _TOLD_S, "policy node"),
    ExitPath("policy", "SIGHUP", _TOLD_S, "policy node"),
    ExitPath("policy", "exception", _TOLD_S, "policy node"),
    ExitPath("watchdog", "SIGKILL", _EXPIRY_S, "robot, by the command's time to live"),
    ExitPath("watchdog", "SIGSTOP", _EXPIRY_S, "robot, by the command's time to live"),
    ExitPath("watchdog", "SIGINT", _TOLD_S, "watchdog"),
    ExitPath("watchdog", "SIGTERM", _TOLD_S, "watchdog"),
    ExitPath("watchdog", "SIGHUP", _TOLD_S, "watchdog"),
    ExitPath("watchdog", "exception", _TOLD_S, "watchdog"),
    ExitPath("emulator", "SIGKILL", _STALE_S, "policy node, by the state's age"),
    ExitPath("emulator", "SIGSTOP", _STALE_S, "policy node, by the state's age"),
    ExitPath("emulator", "SIGINT", _STALE_S, "policy node, by the state's age"),
    ExitPath("emulator", "SIGTERM", _STALE_S, "policy node, by the state's age"),
    ExitPath("emulator", "SIGHUP", _STALE_S, "policy node, by the state's age"),
    ExitPath("emulator", "exception", _STALE_S, "policy node, by the state's age"),
)


@dataclass(frozen=True)
class Outcome:
    """What was seen at the robot's side."""

    latency_s: float
    """From the end to the damped robot; infinite if it never was."""
    stayed: bool
    """Whether it was damped for the rest of the time, and after a stopped process went on."""
    mode: str
    """Of the policy node at last; "none" if it is gone."""


def _hear_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Rig:
    """Emulator, watchdog and policy node as processes, and a node that watches them and acts as the operator."""

    def __init__(
        self,
        executor: Any,
        folder: Path,
        bundle: Path,
        raising: str = "",
        *,
        command: Sequence[float] = COMMAND,
        policy_program: Sequence[str] = (),
    ) -> None:
        self.executor, self.folder, self.goal = executor, folder, list(command)
        self.node = Node("exit_paths", enable_rosout=False)
        executor.add_node(self.node)
        self.operator = Operator(self.node, executor)
        self.emulator: dict[str, Any] = {}
        self.commands: list[tuple[float, bool]] = []
        """(time sent, whether it only damps) of each command to the robot."""
        self._order = converters.JointOrder(LEAP_HAND.joint_names, extra_allowed=False)
        self.node.create_subscription(String, "/emulator/status", self._on_emulator, ros_compat.STATUS_QOS)
        # A deep queue: this process may have to wait for a core, and must not miss a command meanwhile.
        self.node.create_subscription(Float64MultiArray, COMMAND_TOPIC, self._on_command, QoSProfile(depth=1000))
        self._goal = self.node.create_publisher(Float64MultiArray, "/policy/command", ros_compat.COMMAND_QOS)
        self._stop = self.node.create_publisher(Bool, ESTOP_TOPIC, ros_compat.LATCHED_QOS)
        loop = f"loop_rate_hz:={LOOP_RATE_HZ}"
        self.processes = {
            "emulator": self._start("emulator", raising == "emulator", f"rate_hz:={EMULATOR_RATE_HZ}"),
            "watchdog": self._start("watchdog", raising == "watchdog", loop),
            "policy": self._start("policy", raising == "policy", loop, f"bundle:={bundle}", program=policy_program),
        }

    def drive(self, mode: str) -> None:
        """Bring the robot to "stand" or "run" the way a person does."""
        self.operator.up(60.0)
        self.node.create_timer(0.05, lambda: self._command(self.goal))
        for _ in range(ATTEMPTS):
            self.operator.bring_to(mode)
            # Stiff, as the robot itself says; on a loaded machine something may have tripped meanwhile.
            if ros_compat.spin_while(self.executor, lambda: not self._stiff(), 2.0):
                return
        raise RobotRLError("the robot did not stay stiff")

    def _stiff(self) -> bool:
        return self.emulator.get("damping") is False and bool(self.commands) and not self.commands[-1][1]

    def end(self, path: ExitPath) -> float:
        """Make it happen; returns when."""
        if path.how != "exception":
            sent_s = time.monotonic()
            self.processes[path.node].send_signal(getattr(signal, path.how))
            return sent_s
        if path.node == "policy":
            self._command([0.0])
        elif path.node == "emulator":
            command = self.node.create_publisher(Float64MultiArray, COMMAND_TOPIC, ros_compat.COMMAND_QOS)
            self.until(lambda: command.get_subscription_count() > 1, 5.0)  # the first listener is this node
            command.publish(Float64MultiArray(data=[0.0]))
        else:
            self._stop.publish(Bool(data=False))
        log = self.folder / f"{path.node}.log"
        self.until(lambda: "raised" in log.read_text(), 5.0)
        return float(log.read_text().split("raised")[1].split()[0])

    def watch(self, path: ExitPath, ended_s: float) -> Outcome:
        """What becomes of the robot."""
        self.spin(path.deadline_s + WATCH_S)
        damped_s = self._damped_s(path)
        if path.how == "SIGSTOP":
            self.processes[path.node].send_signal(signal.SIGCONT)
            self.spin(WATCH_S)
        latency_s = max(0.0, damped_s - ended_s)
        alive = self.processes["policy"].poll() is None
        mode = self.operator.status.get("mode", "none") if alive else "none"
        return Outcome(latency_s, math.isfinite(damped_s) and self._damped_s(path) == damped_s, mode)

    def _damped_s(self, path: ExitPath) -> float:
        """Since when the robot is damped, as far as can be told from its side; infinite if it is not."""
        if path.node != "emulator":
            return float(self.emulator["damping_since_s"]) if self.emulator["damping"] else math.inf
        stiff = [k for k, (_, damps) in enumerate(self.commands) if not damps]
        after = self.commands[stiff[-1] + 1 :] if stiff else self.commands
        return after[0][0] if after else math.inf

    def until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Raises RobotRLError if it does not come true."""
        if not ros_compat.spin_while(self.executor, lambda: not condition(), timeout_s):
            raise RobotRLError(f"the processes did not get there within {timeout_s:g} s: {self.operator.status}")

    def spin(self, seconds: float) -> None:
        ros_compat.spin_until(self.executor, time.monotonic() + seconds)

    def close(self) -> None:
        """End every process."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(
        self, node: str, raising: bool, *parameters: str, program: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        code = _RAISING.format(node=node, **_RAISING_OF[node]) if raising else ""
        program = program or (["-c", code] if raising else ["-m", f"robot_rl_bridge.{node}_node"])
        flags = [
            word
            for p in (f"robot:={LEAP_HAND.name}", f"realtime_priority:={PRIORITY}", *parameters)
            for word in ("-p", p)
        ]
        with (self.folder / f"{node}.log").open("wb") as log:
            command = [sys.executable, *program, "--ros-args", *flags]
            # What is started under nohup ignores a hangup, and so would the nodes.
            prepare = _hear_hangup if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else None
            process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=prepare)
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        return process

    def _command(self, values: list[float]) -> None:
        self._goal.publish(Float64MultiArray(data=converters.doubles(values)))

    def _on_emulator(self, message: String) -> None:
        self.emulator = json.loads(message.data)

    def _on_command(self, message: Float64MultiArray) -> None:
        if len(message.data) == 1:
            return  # what makes the emulator raise
        received = converters.decode_joint_command(message, self._order)
        self.commands.append((received.sent_s, not received.values[2:4].any()))


def take(path: ExitPath, bundle: Path, mode: str = "run") -> Outcome:
    """One run of `path` from `mode`, in the ROS domain of the environment."""
    with tempfile.TemporaryDirectory() as folder, ros_compat.ros_context([]) as executor:
        rig = Rig(executor, Path(folder), bundle, path.node if path.how == "exception" else "")
        try:
            try:
                rig.drive(mode)
            except RobotRLError as error:
                seen = {k: rig.operator.status.get(k) for k in ("mode", "cause", "note", "problem")}
                raise RobotRLError(f"{error}; policy: {seen}; watchdog: {rig.operator.watchdog}") from error
            return rig.watch(path, rig.end(path))
        finally:
            rig.close()


def benchmark() -> Result:
    """Rows `exit/<process>/<how>` in s against the deadline, and whether the robot stayed damped."""
    from robot_rl.testing.bundles import TinyPolicy

    # A domain of its own, so that no robot on this host is met.
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    rows: list[Row] = []
    late: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = TinyPolicy(LEAP_HAND).write(Path(folder) / "tiny.zip")
        for path in PATHS:
            outcome = take(path, bundle)
            ratio = outcome.latency_s / path.deadline_s
            rows.append(Row(f"exit/{path.name}", outcome.latency_s, "s", f"deadline ({path.by})", ratio))
            rows.append(Row(f"exit/{path.name}/stayed_damped", outcome.stayed))
            if ratio > 1 or not outcome.stayed:
                late.append(path.name)
            print(f"exit/{path.name}: {1e3 * outcome.latency_s:.1f} ms, damped by {path.by}", flush=True)
    reason = f"late, or not damped to the end: {', '.join(late)}" if late else ""
    return Result(ok=not late, rows=tuple(rows), reason=reason, details={"table": markdown(rows)})


def markdown(rows: list[Row]) -> str:
    """The rows of `benchmark` as a table."""
    lines = ["| process | ends by | robot damped after | deadline | by |", "|---|---|---|---|---|"]
    times = {row.name.removeprefix("exit/"): row.value for row in rows}
    for path in PATHS:
        if isinstance(value := times.get(path.name), float):
            cells = (path.node, path.how, f"{1e3 * value:.0f} ms", f"{1e3 * path.deadline_s:.0f} ms", path.by)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
