"""The fault table over ROS 2, whose trials `robot_rl_bridge.fault_trials` runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_rl.errors import RobotRLError
from robot_rl_sim.demo.processes import private_domain, require_ros
from robot_rl_sim.faults.page import failures, markdown, write

_HEADER = ("fault", "verdict", "noticed as", "threshold", "latency", "mode", "robot damped")


@dataclass(frozen=True)
class RosReport:
    """What was seen of each fault, as `fault_trials.Outcome` has it."""

    bundle: Path
    outcomes: dict[str, dict[str, Any]]

    @property
    def reason(self) -> str:
        """What failed; empty if nothing did."""
        return failures(self.outcomes)


def run_over_ros(bundle: Path, only: tuple[str, ...] = ()) -> RosReport:
    """Raises MissingDependencyError without ROS 2, RobotRLError if the trials could not be run."""
    require_ros()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "outcomes.json"
        words = [sys.executable, "-m", "robot_rl_bridge.fault_trials", str(bundle), str(out)]
        words += ["--only", *only] if only else []
        done = subprocess.run(words, env={**os.environ, **private_domain()}, check=False)
        if done.returncode != 0:
            raise RobotRLError(f"the trials over ROS 2 ended with exit code {done.returncode}; see above")
        return RosReport(bundle, json.loads(out.read_text()))


def write_report(folder: Path, report: RosReport, command: str) -> tuple[Path, Path]:
    """FAULTS_ROS.md and faults_ros.json in `folder`; returns their paths."""
    data, text = folder / "faults_ros.json", folder / "FAULTS_ROS.md"
    write(data, json.dumps({"passed": not report.reason, "faults": report.outcomes}, indent=1) + "\n")
    lines = [
        f"# Faults over ROS 2: {'FAILED' if report.reason else 'passed'}",
        "",
        *([report.reason + ".", ""] if report.reason else []),
        f"- emulator, watchdog and policy node as processes, a new session for each fault; `{command}`",
        "",
        *markdown(_HEADER, [_line(name, outcome) for name, outcome in report.outcomes.items()]),
        "",
        "One trial each, on real clocks. `latency`: from the emulator's or the policy's first wrong word, or the "
        "signal, to the policy node's tick that noticed it; for `damped by` and `expired`, to the robot's own report "
        "that it is damped. One loop period, and 30 ms of transport on a busy machine, are allowed beyond it. "
        "A robot's temperatures, battery and motor errors reach the safety filter through drivers, not over these "
        "topics. A trial in which the machine kept a node waiting (overrun, comm_loss) is repeated, at most twice.",
    ]
    write(text, "\n".join(lines) + "\n")
    return data, text


def _line(name: str, o: dict[str, Any]) -> tuple[str, ...]:
    verdict = "ok" if o["attempts"] == 1 else f"ok, at attempt {o['attempts']}"
    return (
        name,
        f"FAIL: {o['problem']}" if o["problem"] else verdict,
        o["cause"] or "tolerated",
        *("" if o[key] is None else f"{1e3 * o[key]:.0f} ms" for key in ("threshold_s", "latency_s")),
        o["mode"],
        "yes" if o["robot_damped"] else "no",
    )
