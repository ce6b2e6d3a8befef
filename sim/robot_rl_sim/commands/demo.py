"""`robot-rl demo`: the whole path on one machine, in one command."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError, RobotRLError

if TYPE_CHECKING:
    from robot_rl_sim.demo.page import Findings

TASK = "leap-reach"


@dataclass(frozen=True)
class DemoArgs:
    """Train a hand policy, export, verify, run it over ROS 2, cut its sensors, write a report."""

    out: Path = Path("demo")
    """Folder of the report and everything behind it. What an earlier demo wrote there is replaced."""
    seed: int = 1
    """Seed of training, goals and emulator."""
    train_steps: int | None = None
    """Environment steps of training; default: the task's preset."""
    episodes: int = 200
    """Episodes of each evaluation in simulation."""
    min_success: float = 0.9
    """Fail below this success rate in simulation."""
    ros_seconds: float = 30.0
    """Seconds of goals over ROS 2."""
    min_ros_success: float = 0.8
    """Fail below this success rate over ROS 2."""


def run(args: DemoArgs) -> Result:
    """Each step adds to the findings; whatever happens, the report shows what was measured."""
    # Rendering without a display; read when mujoco is first imported.
    os.environ.setdefault("MUJOCO_GL", "egl")
    from robot_rl_sim.demo.page import Findings, write_page

    _check_parts()
    _check_out(args.out)
    start = time.monotonic()
    findings = Findings(min_success=args.min_success, min_ros_success=args.min_ros_success, task=TASK)
    page = args.out / "report.html"
    try:
        for name, step in (("train", _train), ("evaluate", _evaluate), ("export", _export), ("ros", _ros)):
            began = time.monotonic()
            print(f"== demo: {name}", flush=True)
            step(args, findings)
            findings.rows.append(Row(f"demo/{name}/wall", time.monotonic() - began, "s"))
    except RobotRLError as error:
        findings.failure = str(error)
    findings.rows.append(Row("demo/wall", time.monotonic() - start, "s"))
    write_page(page, findings)
    print(f"report: {page.resolve()}", flush=True)
    if findings.session is not None:
        print(f"log:    {(args.out / 'ros' / 'session.mcap').resolve()}", flush=True)
    details = {"report": str(page), "run_dir": str(findings.run_dir)}
    return Result(ok=not findings.failure, rows=tuple(findings.rows), reason=findings.failure, details=details)


def _check_parts() -> None:
    """Find out now, and not after minutes of training, that the last step cannot run."""
    for package in ("rclpy", "robot_rl_bridge"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def _check_out(out: Path) -> None:
    """Replace an earlier demo, and nothing else."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out needs a folder")
    marker = out / ".robot-rl-demo"
    if out.exists() and any(out.iterdir()):
        if not marker.exists():
            raise ConfigError(f"{out} holds files that no demo wrote; give another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _train(args: DemoArgs, findings: Findings) -> None:
    from robot_rl.env import get_task
    from robot_rl.training.config import make_config
    from robot_rl.training.loop import train

    changes: dict[str, Any] = {"seed": args.seed, "runs": args.out / "runs"}
    if args.train_steps is not None:
        changes["total_env_steps"] = args.train_steps
    result = train(make_config(get_task(TASK), "sac", **changes))
    if result.interrupted:
        raise KeyboardInterrupt
    findings.run_dir, findings.train_wall_s = result.run_dir, result.wall_s
    findings.rows += [
        Row("demo/train/env_steps", result.env_steps, "steps"),
        Row("demo/train/updates", result.updates, "updates"),
    ]


def _evaluate(args: DemoArgs, findings: Findings) -> None:
    from robot_rl.commands import evaluate

    result = evaluate.run(evaluate.EvaluateArgs(policy=str(findings.run_dir), episodes=args.episodes))
    for name, evaluation in result.details.items():
        wins = sum(evaluation["successes"])
        findings.success[name] = (wins, args.episodes)
        findings.rows.append(Row(f"demo/success/{name}", wins / args.episodes))
    rate = findings.success["trained"][0] / args.episodes
    if rate < args.min_success:
        raise RobotRLError(
            f"success in simulation is {rate:.1%} over {args.episodes} episodes; asked {args.min_success:.0%}"
        )


def _export(args: DemoArgs, findings: Findings) -> None:
    from robot_rl.bundle.verify import verify_bundle
    from robot_rl.commands import export
    from robot_rl.robots import LEAP_HAND

    assert findings.run_dir is not None
    result = export.run(export.ExportArgs(policy=findings.run_dir, out=args.out / "bundle"))
    error = result.rows[0].value
    assert isinstance(error, float)
    findings.closed_loop_error = error
    findings.rows += result.rows
    verified = verify_bundle(args.out / "bundle", LEAP_HAND)
    verified.require_ok()
    findings.golden_rows = verified.rows
    findings.rows.append(Row("demo/golden_error", max(verified.golden_errors.values())))


def _ros(args: DemoArgs, findings: Findings) -> None:
    from robot_rl_sim.demo.page import try_video
    from robot_rl_sim.demo.ros_session import run_session

    session = run_session(args.out / "bundle", args.out / "ros", args.ros_seconds, seed=args.seed + 1000)
    findings.session = session
    rate = sum(session.success) / len(session.success)
    findings.rows += [
        Row("demo/success/ros", rate),
        Row("demo/interruptions", len(session.interruptions), ", ".join(session.interruptions)),
        Row(
            "demo/damp_latency",
            session.damp_latency_s,
            "s",
            "deadline",
            session.damp_latency_s / session.damp_deadline_s,
        ),
    ]
    try_video(findings, args.out / "session.mp4")
    if rate < args.min_ros_success:
        raise RobotRLError(
            f"success over ROS 2 is {rate:.0%} of {len(session.success)} goals; asked {args.min_ros_success:.0%}"
        )
    if not (session.damp_latency_s <= session.damp_deadline_s and session.robot_damped):
        raise RobotRLError(
            f"damping came {session.damp_latency_s:.3f} s after the last state, with a deadline of "
            f"{session.damp_deadline_s:.3f} s, and the robot {'was' if session.robot_damped else 'was not'} damped"
        )


VERB = Verb(arguments=DemoArgs, run=run)
