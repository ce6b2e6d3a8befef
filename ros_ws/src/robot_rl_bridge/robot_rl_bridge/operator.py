"""Operator: asks the policy node for what a person decides, and waits until it is so. A library and a command.

operator up                     configure and activate the policy node
operator stand | run | stop | estop | reset
operator down                   deactivate and clean up
operator status                 print the newest status
operator command 0.1 0.2 ...    publish the policy's command once
operator fault drop_state       put a fault into the emulator's states
operator place                  put the object into the emulated robot's hand
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from robot_rl.errors import RobotRLError
from robot_rl_bridge import ros_compat
from robot_rl_bridge.status import TOPIC as STATUS_TOPIC
from robot_rl_bridge.status import parse_status

REQUESTS = ("stand", "run", "stop", "estop", "reset")
# Transition: its number, and the state that it leads to.
TRANSITIONS = {
    "configure": (Transition.TRANSITION_CONFIGURE, "inactive"),
    "activate": (Transition.TRANSITION_ACTIVATE, "active"),
    "deactivate": (Transition.TRANSITION_DEACTIVATE, "inactive"),
    "cleanup": (Transition.TRANSITION_CLEANUP, "unconfigured"),
    "shutdown": (Transition.TRANSITION_ACTIVE_SHUTDOWN, "finalized"),
}
RETRY_S = 0.1
RESEND_S = 2.0


class OperatorError(RobotRLError):
    """The policy node refused, failed, or did not answer in time."""


class Operator:
    """Client of one policy node, its watchdog, and the emulator where there is one. Every call serves the node's
    callbacks."""

    def __init__(
        self,
        node: Node,
        executor: Any,
        *,
        policy: str = "policy",
        watchdog: str = "watchdog",
        emulator: str = "emulator",
    ) -> None:
        self.status: dict[str, str] = {}
        """Newest status of the policy node, as `status.status_message` writes it."""
        self.watchdog: dict[str, str] = {}
        """Newest status of the watchdog node."""
        self._watchdog = watchdog
        self._node, self._executor = node, executor
        self._policy, self._emulator = policy, emulator
        self._clients: dict[str, Any] = {}
        self._goal = node.create_publisher(Float64MultiArray, f"/{policy}/command", ros_compat.COMMAND_QOS)
        node.create_subscription(DiagnosticArray, STATUS_TOPIC, self._on_status, ros_compat.STATUS_QOS)

    def up(self, timeout_s: float = 20.0) -> None:
        """Configure if need be, then activate, again and again until the robot is connected."""
        deadline_s = time.monotonic() + timeout_s
        if self.state() == "unconfigured":
            self.transition("configure", timeout_s)
        while self.state() == "inactive":
            self._retry("activate", deadline_s)

    def _retry(self, transition: str, deadline_s: float) -> None:
        """Try once; a failure counts only after the deadline."""
        try:
            self.transition(transition)
        except OperatorError:
            if time.monotonic() > deadline_s:
                raise
            ros_compat.spin_until(self._executor, time.monotonic() + RETRY_S)

    def down(self, timeout_s: float = 5.0) -> None:
        """Deactivate, which damps the robot, and clean up once it is damped."""
        deadline_s = time.monotonic() + timeout_s
        if self.state() == "active":
            self.transition("deactivate")
        while self.state() == "inactive":
            self._retry("cleanup", deadline_s)

    def state(self) -> str:
        """Lifecycle state: unconfigured, inactive, active or finalized."""
        return self._call(GetState, f"/{self._policy}/get_state", GetState.Request()).current_state.label

    def transition(self, name: str, timeout_s: float = 20.0) -> None:
        """One of TRANSITIONS. Raises OperatorError with the node's reason if it failed."""
        number, goal = TRANSITIONS[name]
        request = ChangeState.Request(transition=Transition(id=number))
        done = self._call(ChangeState, f"/{self._policy}/change_state", request, timeout_s).success
        # Asked for a second time, a transition fails because it has been made.
        if not done and self.state() != goal:
            # The reason comes with the next status.
            self.wait_for(lambda status: bool(status.get("problem")), 5.0, f"{name} to give a reason")
            raise OperatorError(f"{name} failed: {self.status.get('problem')}")

    def request(self, name: str) -> None:
        """One of REQUESTS. Raises OperatorError with the reason if the node refused.

        A stop and its reset are the watchdog's as well.
        """
        if name in ("estop", "reset"):
            self._call(Trigger, f"/{self._watchdog}/{name}", Trigger.Request())
        answer = self._call(Trigger, f"/{self._policy}/{name}", Trigger.Request())
        if not answer.success:
            raise OperatorError(f"{name} refused: {answer.message}")

    def insist(self, name: str, excuse: str, timeout_s: float = 15.0) -> None:
        """Repeat a request while it is refused for a reason that contains `excuse`, one that passes by itself.

        For instance "standing still" for run, or "not green" for stand while processes start. Raises OperatorError for
        any other refusal, and after the time-out.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                return self.request(name)
            except OperatorError as error:
                if excuse not in str(error) or time.monotonic() > deadline_s:
                    raise
            ros_compat.spin_until(self._executor, time.monotonic() + RETRY_S)

    def bring_to(self, mode: str, attempts: int = 4, timeout_s: float = 30.0) -> int:
        """Bring an active policy node to "stand" or "run" the way a person does: what a check ends on the way is tried
        again. Whatever else the policy needs (its command, a dead-man) must be published by callbacks.

        Returns how many attempts it took. Raises OperatorError with the last reason.
        """
        for attempt in range(attempts):
            try:
                if self.wait_for_mode("idle", "damp", "fault", "stand", timeout_s=timeout_s) == "fault":
                    self.insist("reset", "not green")
                if self.status["mode"] != "stand":
                    self.insist("stand", "not green")
                if mode == "run":
                    self.insist("run", "standing still")
                self.wait_for_mode(mode)
                return attempt + 1
            except OperatorError:
                if attempt == attempts - 1:
                    raise
        raise OperatorError(f"attempts must be at least 1, got {attempts}")

    def send_command(self, values: Sequence[float]) -> None:
        """Publish the policy's command, in the units of its contract; waits only for somebody to hear it."""
        if not ros_compat.spin_while(self._executor, lambda: not self._goal.get_subscription_count(), 5.0):
            raise OperatorError(f"nobody listens on {self._goal.topic_name}")
        self._goal.publish(Float64MultiArray(data=array("d", [float(v) for v in values])))

    def wait_for_mode(self, *modes: str, timeout_s: float = 10.0) -> str:
        """Wait until the mode is one of `modes`; returns it."""
        self.wait_for(lambda status: status.get("mode") in modes, timeout_s, f"mode {' or '.join(modes)}")
        return self.status["mode"]

    def wait_for(self, condition: Callable[[dict[str, str]], bool], timeout_s: float, what: str) -> None:
        """Wait for a status that arrives from now on and meets `condition`. Raises OperatorError after the time-out."""
        self.status = {}
        if not ros_compat.spin_while(self._executor, lambda: not (self.status and condition(self.status)), timeout_s):
            raise OperatorError(f"waited {timeout_s:g} s for {what}; status: {self.status or 'none received'}")

    def set_fault(self, name: str) -> None:
        """Set the emulator's parameter `fault`."""
        self.set_emulator("fault", ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=name))

    def set_suspended(self, suspended: bool) -> None:
        """Hang the emulated robot from its gantry, or let go."""
        self.set_emulator("suspended", ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=suspended))

    def place_object(self) -> None:
        """Let the emulator put the object where the policy's episodes begin."""
        answer = self._call(Trigger, f"/{self._emulator}/place_object", Trigger.Request())
        if not answer.success:
            raise OperatorError(f"place refused: {answer.message}")

    def set_emulator(self, name: str, value: ParameterValue) -> None:
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
        answer = self._call(SetParameters, f"/{self._emulator}/set_parameters", request)
        if not answer.results[0].successful:
            raise OperatorError(f"emulator refused {name}: {answer.results[0].reason}")

    def _call(self, kind: Any, service: str, request: Any, timeout_s: float = 10.0) -> Any:
        client = self._clients.get(service)
        if client is None:
            client = self._clients[service] = self._node.create_client(kind, service)
        if not ros_compat.spin_while(self._executor, lambda: not client.service_is_ready(), timeout_s):
            raise OperatorError(f"service {service} is not there")
        # A server that has not yet discovered this client's half of the service drops the answer, so ask again. Every
        # request here may be made twice.
        deadline_s = time.monotonic() + timeout_s
        while (remaining_s := deadline_s - time.monotonic()) > 0:
            future = client.call_async(request)
            if ros_compat.spin_while(self._executor, lambda f=future: not f.done(), min(RESEND_S, remaining_s)):
                return future.result()
            client.remove_pending_request(future)
        raise OperatorError(f"service {service} did not answer within {timeout_s:g} s")

    def _on_status(self, message: DiagnosticArray) -> None:
        if (found := parse_status(message, self._policy)) is not None:
            self.status = found
        if (found := parse_status(message, self._watchdog, "watchdog")) is not None:
            self.watchdog = found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="operator", description="Operate the policy node.")
    parser.add_argument("--policy", default="policy", help="name of the policy node")
    parser.add_argument("--watchdog", default="watchdog", help="name of the watchdog node")
    parser.add_argument("--emulator", default="emulator", help="name of the emulator node")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("up", "down", "status", "place", *REQUESTS):
        verbs.add_parser(verb)
    verbs.add_parser("command").add_argument("values", nargs="+", type=float)
    verbs.add_parser("fault").add_argument("name")
    return parser


def main() -> int:
    """Do one thing; exit code 1 with the reason if it was refused."""
    arguments = _parser().parse_args(remove_ros_args(sys.argv)[1:])
    with ros_compat.ros_context() as executor:
        node = Node("operator", enable_rosout=False)
        executor.add_node(node)
        operator = Operator(
            node, executor, policy=arguments.policy, watchdog=arguments.watchdog, emulator=arguments.emulator
        )
        _do(operator, executor, arguments)
    return 0


def _do(operator: Operator, executor: Any, arguments: argparse.Namespace) -> None:
    if arguments.verb == "up":
        operator.up()
    elif arguments.verb == "down":
        operator.down()
    elif arguments.verb == "status":
        operator.wait_for(bool, 5.0, "a status")
        operator.wait_for(lambda _: bool(operator.watchdog), 5.0, "a status of the watchdog")
        print(json.dumps({"policy": operator.status, "watchdog": operator.watchdog}, indent=1))
    elif arguments.verb == "command":
        operator.send_command(arguments.values)
        ros_compat.spin_until(executor, time.monotonic() + RETRY_S)
    elif arguments.verb == "place":
        operator.place_object()
    elif arguments.verb == "fault":
        operator.set_fault(arguments.name)
    else:
        operator.request(arguments.verb)


def console() -> None:
    raise SystemExit(ros_compat.run_node(main))


if __name__ == "__main__":
    console()
