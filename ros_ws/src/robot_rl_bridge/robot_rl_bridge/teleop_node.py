"""Teleop node: an operator's joystick or keyboard as command, dead-man button and emergency stop.

Reads `joy` (sensor_msgs/Joy), or the terminal's keys if `source` is keyboard: w s a d q e move, space stops. Writes, at
`rate_hz`, `policy/deadman` (std_msgs/Bool) and, while the button is held and once after, the command: `cmd_vel`
(geometry_msgs/TwistStamped or Twist) or `policy/command` (std_msgs/Float64MultiArray). `estop` (std_msgs/Bool, latched)
says whether the stop button is pressed. Buttons can also ask the policy node to stand, run or stop.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from geometry_msgs.msg import Twist, TwistStamped
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger

from robot_rl.errors import ConfigError
from robot_rl.runtime.signals import stop_on_signals
from robot_rl_bridge import ros_compat
from robot_rl_bridge.converters import time_message
from robot_rl_bridge.ros_compat import ParameterSpec
from robot_rl_bridge.teleop import NO_BUTTON, STOP_KEY, Intent, Mapping, Teleop
from robot_rl_bridge.watchdog_node import ESTOP_TOPIC

COMMANDS = ("twist_stamped", "twist", "array")
REQUESTS = ("stand", "run", "stop")

_BUTTON = (NO_BUTTON, 31)
PARAMETERS = (
    ParameterSpec("source", "joy", "Where input comes from.", choices=("joy", "keyboard")),
    ParameterSpec("command", COMMANDS[0], "Form of the command.", choices=COMMANDS),
    ParameterSpec("frame", "base_link", "Frame of the header of a TwistStamped."),
    ParameterSpec("axes", [1, 0, 3], "Axis per component of the command; -1: none."),
    ParameterSpec("scale", [0.5, 0.3, 0.8], "Command at full deflection, less the offset."),
    ParameterSpec("offset", [0.0, 0.0, 0.0], "Command at rest."),
    ParameterSpec("deadman_button", 4, "Nothing moves unless it is held.", 0, 31),
    ParameterSpec("estop_button", 1, "Emergency stop; -1: none.", *_BUTTON),
    *(ParameterSpec(f"{name}_button", NO_BUTTON, f"Asks for {name}; -1: none does.", *_BUTTON) for name in REQUESTS),
    ParameterSpec("rate_hz", 20.0, "Rate of dead-man and command.", 10.0, 200.0),
    ParameterSpec("timeout_s", 0.25, "A joystick silent for this long counts as released.", 0.05, 2.0),
)


class TeleopNode(Node):
    """Wires one Teleop to topics."""

    def __init__(self) -> None:
        super().__init__("teleop", enable_rosout=False)
        values = ros_compat.declare_parameters(self, PARAMETERS)
        self.period_s = 1.0 / values["rate_hz"]
        self.keyboard = values["source"] == "keyboard"
        self._kind, self._frame = values["command"], values["frame"]
        mapping = Mapping(
            tuple(values["axes"]),
            tuple(values["scale"]),
            tuple(values["offset"]),
            values["deadman_button"],
            values["estop_button"],
            tuple((name, values[f"{name}_button"]) for name in REQUESTS),
        )
        if self._kind != "array" and len(mapping.axes) != 3:
            raise ConfigError(f"a twist has three components (x, y, yaw), but there are {len(mapping.axes)} axes")
        self.teleop = Teleop(mapping, values["timeout_s"])
        self._last: Intent | None = None
        self._problem = ""
        qos = ros_compat.COMMAND_QOS
        types = {"twist_stamped": TwistStamped, "twist": Twist, "array": Float64MultiArray}
        topic = "policy/command" if self._kind == "array" else "cmd_vel"
        self._command = self.create_publisher(types[self._kind], topic, qos)
        self._deadman = self.create_publisher(Bool, "policy/deadman", qos)
        self._estop = self.create_publisher(Bool, ESTOP_TOPIC, ros_compat.LATCHED_QOS)
        self._requests = {name: self.create_client(Trigger, f"policy/{name}") for name in REQUESTS}
        if not self.keyboard:
            self.create_subscription(Joy, "joy", self._on_joy, ros_compat.STATUS_QOS)

    def tick(self) -> None:
        """Tell the policy node and the watchdog what the operator wants now."""
        intent, last = self.teleop.intent(time.monotonic()), self._last
        if intent.stop != (last is not None and last.stop):
            self._estop.publish(Bool(data=intent.stop))
            print(f"{self.get_name()}: stop {'pressed' if intent.stop else 'released'}", flush=True)
        self._deadman.publish(Bool(data=intent.held))
        if intent.held or (last is not None and last.held):
            self._command.publish(self._message(intent.values))
        if intent.request:
            # Who asks sees the answer in the status; a joystick has no display.
            self._requests[intent.request].call_async(Trigger.Request())
        if self.teleop.problem and self.teleop.problem != self._problem:
            print(f"{self.get_name()}: {self.teleop.problem}", flush=True)
        self._last, self._problem = intent, self.teleop.problem

    def release(self) -> None:
        """The operator is gone."""
        self._deadman.publish(Bool(data=False))

    def _message(self, values: Sequence[float]) -> Any:
        if self._kind == "array":
            return Float64MultiArray(data=array("d", values))
        message = TwistStamped()
        twist = message.twist
        twist.linear.x, twist.linear.y, twist.angular.z = values
        if self._kind == "twist":
            return twist
        message.header.stamp = time_message(time.time())
        message.header.frame_id = self._frame
        return message

    def _on_joy(self, message: Joy) -> None:
        self.teleop.joy(list(message.axes), list(message.buttons), time.monotonic())


@contextlib.contextmanager
def _keys(wanted: bool) -> Iterator[None]:
    """The terminal gives single keys while the block runs. Raises ConfigError where there is no terminal."""
    if not wanted:
        yield
        return
    if not sys.stdin.isatty():
        raise ConfigError(
            "source is keyboard, but there is no terminal: run it in one of its own, not from a launch file"
        )
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # of a terminal that was lost
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _read_keys() -> str:
    """What was typed since the last call; a stop among it outranks the rest. Nothing, if the terminal was lost."""
    typed = ""
    with contextlib.suppress(OSError):
        while select.select([sys.stdin], [], [], 0)[0] and (data := os.read(sys.stdin.fileno(), 64)):
            typed += data.decode(errors="replace")
    return STOP_KEY if STOP_KEY in typed else typed[-1:]


def main() -> int:
    """Run until SIGINT, SIGTERM or SIGHUP; the dead-man is released on the way out."""
    with stop_on_signals() as stop, ros_compat.ros_context() as executor:
        node = TeleopNode()
        executor.add_node(node)
        clock = ros_compat.RosClock(executor)
        deadline_s = clock.now()
        try:
            with _keys(node.keyboard):
                while not stop:
                    deadline_s = max(deadline_s + node.period_s, clock.now())
                    clock.sleep_until(deadline_s)
                    if node.keyboard and (key := _read_keys()):
                        node.teleop.key(key, time.monotonic())
                    node.tick()
        finally:
            node.release()
    return 0


def console() -> None:
    raise SystemExit(ros_compat.run_node(main))


if __name__ == "__main__":
    console()
