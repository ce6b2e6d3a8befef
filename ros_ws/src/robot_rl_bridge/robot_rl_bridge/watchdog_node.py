"""Watchdog node: the last software hop between the policy node and the robot, in a process of its own.

Passes joint commands from `policy/joint_command` on to the robot, in the form that it takes (see `outputs`), as long as
one sender feeds it with fresh commands inside the robot's limits. Otherwise, and for a second on SIGINT, SIGTERM,
SIGHUP and any exception, it streams damping. `watchdog.Watchdog` says what trips it. If this process is killed,
commands stop, and the robot damps on its own when the last one's time to live has passed.

`estop` (std_msgs/Bool, true stops) and `~/estop` (std_srvs/Trigger) damp until `~/reset`. `~/passing` (std_msgs/Bool)
is its heartbeat, which the policy node watches. The status goes to /diagnostics.
"""

from __future__ import annotations

import time
from typing import Any, cast

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger

from robot_rl.contract import JointCommand, damping_command
from robot_rl.robots import robot_names
from robot_rl.runtime.interface import MonotonicClock
from robot_rl.runtime.loop import damp_out
from robot_rl.runtime.signals import no_garbage_collection, stop_on_signals
from robot_rl_bridge import converters, ros_compat
from robot_rl_bridge.cdr import Deserializer
from robot_rl_bridge.converters import MessageError
from robot_rl_bridge.outputs import FORMS, make_output
from robot_rl_bridge.ros_compat import ParameterSpec
from robot_rl_bridge.ros_robot import HEARTBEAT_S, STATE_TOPIC, STOP_TIME_TO_LIVE_S
from robot_rl_bridge.status import TOPIC as STATUS_TOPIC
from robot_rl_bridge.status import Level, status_message
from robot_rl_bridge.watchdog import FEED_TICKS, Trip, Watchdog

INPUT_TOPIC = "policy/joint_command"
ESTOP_TOPIC = "estop"
STATUS_PERIOD_S = 0.1
RIVAL_PERIOD_S = 1.0
"""How often to look for others that send to the robot."""

_NO_COMMAND = Float64MultiArray()
"""In place of bytes that are no message at all."""

PARAMETERS = (
    ParameterSpec("robot", "leap_hand", "Robot that the commands lead to.", choices=robot_names()),
    ros_compat.UNIT,
    ParameterSpec("loop_rate_hz", 100.0, "Rate of the policy node's control loop.", 10.0, 1000.0),
    ParameterSpec("feed_ticks", FEED_TICKS, "Loop periods without a usable command until the robot is damped.", 2, 20),
    ParameterSpec("output", FORMS[0], "Form in which the robot takes commands.", choices=FORMS),
    ParameterSpec("gains", False, "Whether a robot that takes positions also takes gains, on topics of their own."),
    ros_compat.PRIORITY,
    ros_compat.CORES,
)


class WatchdogNode(Node):
    """Wires one Watchdog to topics. What it writes goes to the robot."""

    def __init__(self) -> None:
        super().__init__("watchdog", enable_rosout=False)
        values = ros_compat.declare_parameters(self, PARAMETERS)
        ros_compat.schedule(self, values)
        self.spec, thresholds = ros_compat.robot_of(values)
        for line in thresholds:
            print(f"{self.get_name()}: {line}", flush=True)
        self.period_s = 1.0 / values["loop_rate_hz"]
        self.watchdog = Watchdog(self.spec, self.period_s, values["feed_ticks"])
        self.damping_kd = self.watchdog.limits.damping_kd
        self._order = converters.JointOrder(self.spec.joint_names, extra_allowed=False)
        self._state_order = converters.JointOrder(self.spec.joint_names, extra_allowed=True)
        self._state: JointState | None = None
        self._form = values["output"]
        self._output = make_output(
            self, self.spec, self._form, self.period_s, gains=values["gains"], measured=self._measured
        )
        self._passed = self._refused = 0
        self._problem = ""
        self._told = (False, "")
        self._next_damping_s = self._next_heartbeat_s = self._next_status_s = self._next_rival_s = 0.0
        self._next_listeners_s = 0.0
        self._passing = self.create_publisher(Bool, "~/passing", ros_compat.COMMAND_QOS)
        self._status = self.create_publisher(DiagnosticArray, STATUS_TOPIC, ros_compat.STATUS_QOS)
        self._read = Deserializer(Float64MultiArray)
        on_command = ros_compat.with_info(self._on_command)
        ros_compat.subscribe_bytes(self, Float64MultiArray, INPUT_TOPIC, on_command, ros_compat.CONTESTED_QOS)
        ros_compat.hear_all(self, Bool, ESTOP_TOPIC, self._on_estop)
        self.create_service(Trigger, "~/estop", self._on_estop_service)
        self.create_service(Trigger, "~/reset", self._on_reset_service)
        if self._form != FORMS[0]:
            self.create_subscription(JointState, STATE_TOPIC, self._on_state, ros_compat.SENSOR_QOS)

    def serve(self, clock: ros_compat.RosClock) -> None:
        """Serve callbacks until something is due, at most for one period of the loop, and do it."""
        due_s = self.watchdog.deadline_s if self.watchdog.passing else self._next_damping_s
        clock.sleep_until(min(due_s, self._next_heartbeat_s, clock.now() + self.period_s))
        now = clock.now()
        self.watchdog.watch(now)
        if now >= self._next_listeners_s:
            self._next_listeners_s = now + HEARTBEAT_S
            self.watchdog.listeners(self._output.listeners, now)
        self._react(now)
        if now >= self._next_heartbeat_s:
            self._next_heartbeat_s = now + HEARTBEAT_S
            self._passing.publish(Bool(data=self.watchdog.passing))
        if now >= self._next_rival_s:
            self._next_rival_s = now + RIVAL_PERIOD_S
            self._problem = ros_compat.publisher_problem(self, self._output.topic, ros_compat.COMMAND_QOS) or ""
        if now >= self._next_status_s:
            self.publish_status()

    def write(self, command: JointCommand) -> JointCommand:
        """Send to the robot, unless it has expired."""
        self._output.send(command)
        return command

    def stop(self) -> None:
        """One last damping command. Its short time to live makes the robot's own damping follow."""
        try:
            self.write(damping_command(self.damping_kd, time.monotonic(), STOP_TIME_TO_LIVE_S))
        except Exception as error:
            self.get_logger().error(f"damping command not sent: {error}")

    def publish_status(self) -> None:
        """Publish now."""
        self._next_status_s = time.monotonic() + STATUS_PERIOD_S
        watchdog = self.watchdog
        values = {
            "passing": watchdog.passing,
            "trip": watchdog.trip.value,
            "reason": watchdog.reason,
            "tripped_s": watchdog.tripped_s,
            "problem": self._problem,
            "passed": self._passed,
            "trips": dict(watchdog.trips),
            "rejected": dict(watchdog.receiver.rejected),
            "refused_senders": len(watchdog.refused),
            "refused_commands": sum(watchdog.refused.values()),
            "output": self._form,
            "time_s": time.monotonic(),
        }
        waits = watchdog.trip in (Trip.NO_SENDER, Trip.NO_ROBOT)
        level: Level = "error" if not (watchdog.passing or waits) else "warn" if self._problem or waits else "ok"
        if watchdog.refused and level == "ok":
            level = "warn"
        summary = "passing" if watchdog.passing else f"damping: {watchdog.trip.value} {watchdog.reason}".rstrip()
        self._status.publish(status_message(self.get_name(), "watchdog", self.spec.name, level, summary, values))

    def _react(self, now: float) -> None:
        """Damp if nothing may pass, and tell whoever needs to know of a change."""
        watchdog = self.watchdog
        tripped = self._told[0] and not watchdog.passing
        if tripped or (not watchdog.passing and now >= self._next_damping_s):
            self._next_damping_s = now + self.period_s
            self.write(damping_command(self.damping_kd, now, watchdog.limits.time_to_live_s))
        if self._told != (watchdog.passing, watchdog.trip.value):
            self._told = (watchdog.passing, watchdog.trip.value)
            self._next_heartbeat_s = 0.0
            print(f"{self.get_name()}: {watchdog.trip.value} {watchdog.reason}".rstrip(), flush=True)
            self.publish_status()

    def _on_command(self, data: bytes, info: dict[str, Any]) -> None:
        now = time.monotonic()
        try:
            message = self._read(data)
        except MessageError:
            message = _NO_COMMAND
        if not self.watchdog.admits(_sender(message, info), now):
            return
        try:
            received = converters.decode_joint_command(message, self._order)
        except MessageError as error:
            self.watchdog.malformed(error, now)
        else:
            command = self.watchdog.judge(received, now)
            if command is not None:
                self.write(command)
                self._passed += 1
        self._react(now)

    def _on_estop(self, message: Bool) -> None:
        if message.data:
            self._stop("topic estop")

    def _on_estop_service(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stop("service estop")
        response.success, response.message = True, "damping"
        return response

    def _stop(self, reason: str) -> None:
        now = time.monotonic()
        self.watchdog.estop(reason, now)
        self._react(now)

    def _on_reset_service(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.watchdog.reset(time.monotonic())
        response.success, response.message = True, "passing once a sender begins without torque"
        return response

    def _on_state(self, message: JointState) -> None:
        self._state = message

    def _measured(self) -> Any:
        """(n_joints,) rad, of the newest state; None before the first usable one."""
        try:
            position = None if self._state is None else converters.decode_joint_state(self._state, self._state_order)[0]
        except MessageError:
            return None
        return position if position is not None and np.isfinite(position).all() else None


def _sender(message: Float64MultiArray, info: dict[str, Any]) -> bytes | float:
    """Who sent it: the publisher's identity, or where rclpy does not tell (Jazzy) the session in the message."""
    gid = info.get("publisher_gid")
    if gid is not None:
        return bytes(gid["data"])
    data = cast("list[float]", message.data)
    return data[0] if len(data) else 0.0


def main() -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, then damp; damp also on the way out of an exception."""
    with stop_on_signals() as stop, ros_compat.ros_context() as executor:
        node = WatchdogNode()
        executor.add_node(node)
        clock = ros_compat.RosClock(executor)
        with no_garbage_collection():
            try:
                while not stop:
                    node.serve(clock)
            finally:
                # Without callbacks: no command gets through any more, and none can raise.
                damp_out(node, node.damping_kd, node.period_s, MonotonicClock())
    return 0


def console() -> None:
    raise SystemExit(ros_compat.run_node(main))


if __name__ == "__main__":
    console()
