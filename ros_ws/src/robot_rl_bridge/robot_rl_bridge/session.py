"""A scripted session: stand, run, play a list of commands, then break something, and write down what was seen.

    python -m robot_rl_bridge.session --commands commands.json --period 2 --fault drop_state --out session.json

`commands.json` holds a list of commands, each a list of numbers in the units of the policy's contract. The result holds
the robot's true joint positions (from the emulator), every status of the policy node, and when what happened; times
are s on this host's monotonic clock. It is what `robot-rl demo` and a soak test run as the operator.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from robot_rl.errors import ConfigError
from robot_rl_bridge import ros_compat
from robot_rl_bridge.operator import Operator, OperatorError

FAULT_TIMEOUT_S = 3.0
MOST_INTERRUPTIONS = 2
"""So often a check may end a run, such as that of overruns on a host that stood still for a moment. As a person would,
the session brings the robot back and repeats the command; it says so."""
AFTER_FAULT_S = 1.5
"""How long the session goes on watching after the robot was damped."""


class Session:
    """Plays one script through an Operator and keeps what it hears."""

    def __init__(self, node: Node, executor: Any, operator: Operator, emulator: str) -> None:
        self._executor, self._operator = executor, operator
        self.record: dict[str, Any] = {"events": [], "truth": {"time_s": [], "joint_pos": []}, "status": []}
        self._emulator: dict[str, Any] = {}
        self._seen_status: dict[str, str] = {}
        truth = f"/{emulator}/ground_truth"
        node.create_subscription(JointState, truth, self._on_truth, ros_compat.SENSOR_QOS)
        node.create_subscription(String, f"/{emulator}/status", self._on_emulator, ros_compat.STATUS_QOS)

    def play(self, commands: list[list[float]], period_s: float, fault: str) -> None:
        """Raises OperatorError with the reason if the policy node refuses, or does not react to the fault."""
        self._operator.up()
        self._event("up")
        attempts = self._operator.bring_to("stand")
        self._event("stand", attempts=attempts)
        self._operator.send_command(commands[0])
        attempts = self._operator.bring_to("run")
        self._event("run", attempts=attempts)
        interruptions = 0
        for k, command in enumerate(commands):
            while not self._in_run_throughout(k, command, period_s):
                interruptions += 1
                if interruptions > MOST_INTERRUPTIONS:
                    raise OperatorError(f"the policy left run during command {k}: {self._operator.status}")
                self._event("interrupted", index=k, cause=self._operator.status.get("cause", ""))
                self._operator.bring_to("run")
        if fault:
            self._break(fault)
        self._operator.down()
        self._event("down")

    def _in_run_throughout(self, index: int, command: list[float], period_s: float) -> bool:
        self._event("command", index=index)
        self._operator.send_command(command)
        self._watch(period_s)
        return self._operator.status.get("mode") == "run"

    def _break(self, fault: str) -> None:
        self._operator.set_fault(fault)
        self._event("fault", fault=fault)
        mode = self._operator.wait_for_mode("damp", "fault", timeout_s=FAULT_TIMEOUT_S)
        self._event("damped", mode=mode, cause=self._operator.status.get("cause", ""))
        self._watch(AFTER_FAULT_S)
        self.record["emulator"] = self._emulator

    def _watch(self, duration_s: float) -> None:
        """Serve callbacks, keeping each new status."""
        deadline_s = time.monotonic() + duration_s
        while time.monotonic() < deadline_s:
            ros_compat.spin_until(self._executor, min(deadline_s, time.monotonic() + 0.05))
            if self._operator.status and self._operator.status is not self._seen_status:
                self._seen_status = self._operator.status
                self.record["status"].append({"time_s": time.monotonic(), **self._operator.status})

    def _event(self, name: str, **facts: Any) -> None:
        self.record["events"].append({"time_s": time.monotonic(), "name": name, **facts})
        print(f"session: {name} {' '.join(f'{k}={v}' for k, v in facts.items())}".rstrip(), flush=True)

    def _on_truth(self, message: JointState) -> None:
        self.record.setdefault("joint_names", list(message.name))
        self.record["truth"]["time_s"].append(time.monotonic())
        self.record["truth"]["joint_pos"].append(list(message.position))

    def _on_emulator(self, message: String) -> None:
        self._emulator = json.loads(message.data)


def _read_commands(path: Path) -> list[list[float]]:
    try:
        commands = json.loads(path.read_text())
        if not commands:
            raise ValueError("the list is empty")
        return [[float(v) for v in command] for command in commands]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not a list of commands: {error}") from error


def main() -> int:
    """Run one session; exit code 1 with the reason if it did not go as scripted. The record is written either way."""
    parser = argparse.ArgumentParser(prog="session", description="Play a scripted session.")
    parser.add_argument("--commands", type=Path, required=True, help="JSON list of commands")
    parser.add_argument("--period", type=float, default=2.0, help="seconds per command")
    parser.add_argument("--fault", default="", help="fault to put into the emulator's states at the end; none if empty")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--policy", default="policy", help="name of the policy node")
    parser.add_argument("--emulator", default="emulator", help="name of the emulator node")
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])
    commands = _read_commands(arguments.commands)
    with ros_compat.ros_context() as executor:
        node = Node("session", enable_rosout=False)
        executor.add_node(node)
        operator = Operator(node, executor, policy=arguments.policy, emulator=arguments.emulator)
        session = Session(node, executor, operator, arguments.emulator)
        try:
            session.play(commands, arguments.period, arguments.fault)
        finally:
            temporary = arguments.out.with_name(f".{arguments.out.name}.tmp")
            temporary.write_text(json.dumps(session.record))
            os.replace(temporary, arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(ros_compat.run_node(main))
