"""The fault table over ROS 2: emulator, watchdog and policy node as processes, one fault at a time, on real clocks.

    python -m robot_rl_bridge.fault_trials BUNDLE OUT.json [--only PATTERN ...]

It is what `robot-rl faults BUNDLE --ros` runs. Faults, causes and thresholds are those of the table in process
(`robot_rl_sim.faults.table`); processes end as in `exit_paths`. Times are of the nodes themselves: when the emulator or
the policy broke, the policy node's tick that noticed, the emulator's report of damping.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import Float64MultiArray

from robot_rl.bundle.load import Bundle, load_bundle
from robot_rl.contract import damping_command
from robot_rl.errors import ConfigError, RobotRLError
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.checks import Cause
from robot_rl.runtime.limits import SafetyLimits
from robot_rl_bridge import converters, ros_compat
from robot_rl_bridge.exit_paths import EMULATOR_RATE_HZ, LOOP_RATE_HZ, PATHS, ExitPath, Rig
from robot_rl_bridge.outputs import COMMAND_TOPIC
from robot_rl_bridge.status import TOPIC as STATUS_TOPIC
from robot_rl_bridge.status import parse_status
from robot_rl_bridge.watchdog import FEED_TICKS
from robot_rl_bridge.watchdog_node import INPUT_TOPIC
from robot_rl_sim.faults.expect import Expect
from robot_rl_sim.faults.table import FAULTS

TRANSPORT_S = 0.03
"""From one node's tick to the other's next period, DDS included, on a busy machine."""
WATCH_S = 1.0
RIVAL_COMMANDS = 50
ATTEMPTS = 3

_TICK_S = 1.0 / LOOP_RATE_HZ
_WAITED = {Cause.OVERRUN.value, Cause.COMM_LOSS.value}
"""What is noticed of the policy node's or the watchdog's own delay."""
_STATES = (
    "drop_state/one", "drop_state/burst", "drop_state/lasting", "delay/long", "delay/lasting", "duplicate/each",
    "duplicate/lasting", "reorder/neighbours", "nan/one", "nan/lasting", "spike/one", "spike/lasting",
    "velocity_spike/one", "velocity_spike/lasting",
)  # fmt: skip
_POLICIES = ("policy_raises", "policy_nan", "policy_step", "policy_slow", "policy_hangs")
_ENDS = {"SIGKILL": "process_killed", "SIGSTOP": "process_stopped", "exception": "process_raises"}


@dataclass(frozen=True)
class Outcome:
    """What was seen of one fault; s from its beginning on."""

    threshold_s: float | None
    """None: tolerated."""
    latency_s: float | None
    cause: str
    mode: str
    """Of the policy node at last."""
    robot_damped: bool
    problem: str
    """What is wrong; empty if nothing is."""


class Station:
    """A rig whose policy runs, and every status that its policy node has sent since."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.statuses: list[dict[str, str]] = []
        rig.node.create_subscription(DiagnosticArray, STATUS_TOPIC, self._on_status, ros_compat.STATUS_QOS)
        rig.drive("run")
        self.statuses.clear()

    def _on_status(self, message: DiagnosticArray) -> None:
        if (status := parse_status(message, "policy")) is not None:
            self.statuses.append(status)

    def left_run(self) -> dict[str, str] | None:
        """The first status that is not of mode run."""
        return next((s for s in self.statuses if s["mode"] != "run"), None)

    def spin(self, seconds: float) -> None:
        self.rig.spin(seconds)

    def tolerated(self, extra: str = "") -> Outcome:
        """Nothing may have happened for the time that one watches."""
        self.spin(WATCH_S)
        left = self.left_run()
        damped = bool(self.rig.emulator["damping"])
        problem = extra or (f"not tolerated: {left['cause']}" if left else "not tolerated: damped" if damped else "")
        cause, mode = (left["cause"], left["mode"]) if left else ("", "run")
        return Outcome(None, None, cause, mode, damped, problem)

    def bounded(self) -> Outcome:
        """Whatever else happens, the watchdog may not have met a command outside the limits."""
        self.spin(WATCH_S)
        self.rig.until(lambda: bool(self.rig.operator.watchdog), 5.0)
        trips, left = self.rig.operator.watchdog["trips"], self.left_run()
        problem = f"commands outside the limits: {trips}" if "limit" in trips else ""
        mode = self.statuses[-1]["mode"]
        return Outcome(
            0.0, None, left["cause"] if left else "bounded", mode, bool(self.rig.emulator["damping"]), problem
        )

    def noticed(self, expect: Expect, since_s: Callable[[], float], threshold_s: float) -> Outcome:
        """A check of the policy node must have tripped, for one of the expected causes."""
        ros_compat.spin_while(self.rig.executor, lambda: self.left_run() is None, WATCH_S + threshold_s)
        self.spin(0.3)
        left = self.left_run()
        damped = bool(self.rig.emulator["damping"])
        if left is None:
            return Outcome(threshold_s, None, "", "run", damped, "not detected")
        # A tick is dated before its policy speaks.
        latency_s = max(0.0, float(left["tick_s"]) - since_s())
        allowed_s = threshold_s + _TICK_S + TRANSPORT_S
        problem = ""
        if left["cause"] not in {c.value for c in expect.causes}:
            problem = f"not detected; tripped by {left['cause']}"
        elif latency_s > allowed_s:
            problem = f"detected {latency_s - allowed_s:.3f} s too late"
        return Outcome(threshold_s, latency_s, left["cause"], self.statuses[-1]["mode"], damped, problem)

    def damped(self, since_s: Callable[[], float], threshold_s: float) -> Outcome:
        """The robot must have been damped, whoever did it."""
        self.spin(threshold_s + WATCH_S)
        emulator = self.rig.emulator
        latency_s = emulator["damping_since_s"] - since_s() if emulator["damping"] else None
        problem = "" if latency_s is not None else "the robot is not damped"
        if latency_s is not None and latency_s > threshold_s + _TICK_S + TRANSPORT_S:
            problem = f"damped {latency_s - threshold_s - _TICK_S - TRANSPORT_S:.3f} s too late"
        mode = self.statuses[-1]["mode"] if self.statuses else "none"
        return Outcome(threshold_s, latency_s, "expired", mode, bool(emulator["damping"]), problem)


class Trials:
    """Each case by name -> a function that runs it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bundle: Bundle = load_bundle(path)
        if self.bundle.contract.robot != LEAP_HAND.name:
            raise ConfigError(
                f"over ROS 2, faults are put into the {LEAP_HAND.name} only, not {self.bundle.contract.robot}"
            )
        self.limits = SafetyLimits.make(LEAP_HAND, self.bundle.contract, _TICK_S)
        spec = self.bundle.contract.command
        self.command = [] if spec is None else [float(v) for v in self.bundle.golden[f"in/{spec.name}"][0]]
        self._cases = {c.name: c for c in FAULTS}
        self.run: dict[str, Callable[[], Outcome]] = {}
        self.run |= {name: lambda name=name: self._state(name) for name in _STATES}
        self.run |= {f"{kind}/lasting": lambda kind=kind: self._policy(kind) for kind in _POLICIES}
        self.run |= {f"{_ENDS[p.how]}/{p.node}": lambda p=p: self._ends(p) for p in PATHS if p.how in _ENDS}
        self.run |= {
            "second_publisher/watchdog": lambda: self._rival(INPUT_TOPIC),
            "second_publisher/robot": lambda: self._rival(COMMAND_TOPIC),
            "bad_command/nan": self._bad_command,
            "estop/pressed": self._estop,
        }

    def _state(self, name: str) -> Outcome:
        case = self._cases[name]
        with self._station() as station:
            station.rig.operator.set_fault(name)
            if case.expect is None:
                return station.tolerated()
            threshold_s = case.expect.within(self.limits) + 1.0 / EMULATOR_RATE_HZ
            return station.noticed(case.expect, lambda: float(station.rig.emulator["fault_since_s"]), threshold_s)

    def _policy(self, kind: str) -> Outcome:
        expect = self._cases[f"{kind}/lasting"].expect
        assert expect is not None
        with self._station(kind) as station:
            (station.rig.folder / "break").touch()
            log = station.rig.folder / "policy.log"
            station.rig.until(lambda: "broken" in log.read_text(), 5.0)
            began_s = float(log.read_text().split("broken")[1].split()[0])
            if expect.by == "filter":
                return station.bounded()
            if expect.by == "robot":
                return station.damped(lambda: began_s, FEED_TICKS * _TICK_S)
            # Counted from the first wrong answer, so not from up to a period before it.
            threshold_s = expect.within(self.limits) - self.limits.control_period_s + _TICK_S
            return station.noticed(expect, lambda: began_s, threshold_s)

    def _ends(self, path: ExitPath) -> Outcome:
        with self._station(path.node if path.how == "exception" else "") as station:
            seen = station.rig.watch(path, station.rig.end(path))
            late_s = seen.latency_s - path.deadline_s - TRANSPORT_S
            problem = "" if seen.stayed else "the robot did not stay damped"
            problem = problem or (f"damped {late_s:.3f} s too late" if late_s > 0 else "")
            return Outcome(path.deadline_s, seen.latency_s, f"damped by {path.by}", seen.mode, seen.stayed, problem)

    def _rival(self, topic: str) -> Outcome:
        """Somebody else sends damping, which would let the robot drop what it holds."""
        with self._station() as station:
            rig = station.rig
            publisher = rig.node.create_publisher(Float64MultiArray, topic, ros_compat.COMMAND_QOS)
            # The rig listens to the robot's topic, too: it is the receiver that must have been found.
            listeners = 1 if topic == INPUT_TOPIC else 2
            rig.until(lambda: publisher.get_subscription_count() >= listeners, 5.0)
            writer = converters.CommandWriter(LEAP_HAND.joint_names)
            for number in range(1, RIVAL_COMMANDS + 1):
                now = time.monotonic()
                command = damping_command(np.full(len(LEAP_HAND.joints), 0.1), now, 0.1)
                publisher.publish(writer.fill(command, session=7, sequence=number, now_s=now))
                station.spin(0.02)
            refused = self._refused(rig, topic)
            return station.tolerated("" if refused > 0.5 * RIVAL_COMMANDS else f"only {refused} commands were refused")

    def _refused(self, rig: Rig, topic: str) -> int:
        sent_s = time.monotonic()
        if topic == COMMAND_TOPIC:
            rig.until(lambda: float(rig.emulator["time_s"]) > sent_s, 5.0)
            return int(rig.emulator["commands_rejected"].get("another sender is in command", 0))
        rig.until(lambda: float(rig.operator.watchdog.get("time_s", 0.0)) > sent_s, 5.0)
        return int(rig.operator.watchdog["refused_commands"])

    def _bad_command(self) -> Outcome:
        with self._station() as station:
            station.rig.goal = [float("nan")] * len(self.command)
            station.spin(WATCH_S)
            rejected = int(station.statuses[-1]["rejected_messages"])
            return station.tolerated("" if rejected > 0 else "the command was not refused")

    def _estop(self) -> Outcome:
        expect = self._cases["estop/pressed"].expect
        assert expect is not None
        with self._station() as station:
            began_s = time.monotonic()
            station.rig.operator.request("estop")
            return station.noticed(expect, lambda: began_s, expect.within(self.limits) + _TICK_S)

    def _station(self, fault: str = "") -> _Running:
        return _Running(self.path, self.command, fault)


class _Running:
    """Context manager: processes started and the policy running; ended afterwards."""

    def __init__(self, bundle: Path, command: list[float], fault: str) -> None:
        self._bundle, self._command, self._fault = bundle, command, fault

    def __enter__(self) -> Station:
        # A loaded machine may trip a check before anything is broken: that is no outcome.
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(RobotRLError):
                return self._start()
        return self._start()

    def _start(self) -> Station:
        self._folder = tempfile.TemporaryDirectory()
        self._context = ros_compat.ros_context([])
        executor = self._context.__enter__()
        folder = Path(self._folder.name)
        program = ("-m", "robot_rl_bridge.faulty_policy_node", self._fault, str(folder / "break"))
        policy_program = program if self._fault in _POLICIES else ()
        raising = "" if policy_program else self._fault
        self._rig = Rig(executor, folder, self._bundle, raising, command=self._command, policy_program=policy_program)
        try:
            return Station(self._rig)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(self, *error: Any) -> None:
        self._rig.close()
        self._context.__exit__(None, None, None)
        self._folder.cleanup()


def main() -> int:
    """Write one JSON object, name -> Outcome; a case that could not be run is there with its problem."""
    parser = argparse.ArgumentParser(prog="fault_trials", description="The fault table over ROS 2.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="shell-style patterns of names")
    arguments = parser.parse_args()
    trials = Trials(arguments.bundle)
    only = arguments.only
    names = [n for n in trials.run if not only or any(fnmatch(n, p) or n.split("/")[0] == p for p in only)]
    if not names:
        raise ConfigError(f"no fault matches {', '.join(only)}; valid: {', '.join(trials.run)}")
    outcomes: dict[str, Any] = {}
    for name in names:
        outcome, attempts = None, 0
        # That the machine kept a node waiting is no fault that was put in; how often it took is told.
        while attempts < ATTEMPTS and (outcome is None or (outcome.problem and outcome.cause in _WAITED)):
            attempts += 1
            try:
                outcome = trials.run[name]()
            except RobotRLError as error:
                outcome = Outcome(None, None, "", "", False, f"not run: {error}")
        assert outcome is not None
        outcomes[name] = dataclasses.asdict(outcome) | {"attempts": attempts}
        print(f"{name}: {outcome.problem or 'ok'}", flush=True)
    temporary = arguments.out.with_name(f".{arguments.out.name}.tmp")
    temporary.write_text(json.dumps(outcomes, indent=1))
    os.replace(temporary, arguments.out)
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except RobotRLError as error:
        print(f"fault_trials: {error}", file=sys.stderr)
        raise SystemExit(1) from None
