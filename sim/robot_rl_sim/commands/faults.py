"""`robot-rl faults`: what the runtime makes of everything that breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl.bundle.load import Bundle
    from robot_rl_sim.faults.ordinary import Ordinary
    from robot_rl_sim.faults.report import Finding

_LOOP_RATE_HZ = 100.0
_WORLDS = 64


@dataclass(frozen=True)
class FaultsArgs:
    """Break sensors, links, clock, process, policy and body of a simulated robot, and see what the runtime does.

    Every fault must be noticed within its threshold and one tick, and no command may lie outside the limits; otherwise
    it fails, naming the fault. The same is run without the safety filter, for comparison. And for minutes nothing is
    broken at all, as in training, its sensors' errors and pushes included: the filter must not trip a sound robot.
    """

    bundle: Annotated[Path, tyro.conf.Positional]
    """Folder or zip. faults.json, FAULTS.md and FAULTS.png are written into it, or beside the zip under its name."""
    only: tuple[str, ...] = ()
    """Run only faults that match one of these: a kind, such as nan, or a shell-style pattern, such as 'policy_*/*'."""
    seeds: int = 5
    """Trials of each fault: noise, loss, latency, phase of the motion."""
    seed: int = 3_000
    """The first one."""
    loop_rate_hz: float | None = None
    """Rate of the control loop. Default: the lowest of 100 Hz or more that the policy's rate divides."""
    minutes: float = 20.0
    """Of ordinary operation, in 64 worlds at once. 0: none; nor with `--only`."""
    robot: Literal["mismatched", "nominal"] = "mismatched"
    """Dynamics and sensors: unlike those of training, or as modelled."""
    bare: bool = True
    """Also run without the safety filter."""
    ros: bool = False
    """Instead over ROS 2, with real processes on real clocks: one trial each, to faults_ros.json and FAULTS_ROS.md.
    Of a LEAP hand's bundles only."""
    out: Path | None = None
    """Folder for what is written instead."""


def run(args: FaultsArgs) -> Result:
    return _run_over_ros(args) if args.ros else _run_in_process(args)


def _run_over_ros(args: FaultsArgs) -> Result:
    from robot_rl_sim.faults import over_ros, page

    report = over_ros.run_over_ros(args.bundle, args.only)
    folder = args.out or (args.bundle if args.bundle.is_dir() else args.bundle.parent)
    data, text = over_ros.write_report(folder, report, f"robot-rl faults {args.bundle} --ros")
    print(f"written: {data}, {text}", flush=True)
    why = report.reason
    details = {"faults": str(data), "page": str(text)}
    return Result(ok=not why, rows=page.rows(report.outcomes, "fault/ros"), reason=why, details=details, quiet=True)


def _run_in_process(args: FaultsArgs) -> Result:
    import torch

    from robot_rl.bundle.load import load_bundle
    from robot_rl.robots import get_robot
    from robot_rl_sim.faults import page
    from robot_rl_sim.faults.report import run_faults
    from robot_rl_sim.faults.table import select
    from robot_rl_sim.sim_robot_config import MISMATCHED, NOMINAL

    torch.set_num_threads(1)  # for one robot's sensors, more only wait for one another
    if args.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {args.seeds}")
    bundle = load_bundle(args.bundle)
    spec = get_robot(bundle.contract.robot)
    period_s = bundle.contract.control_period_s
    loop_period_s = 1 / args.loop_rate_hz if args.loop_rate_hz else period_s / math.ceil(_LOOP_RATE_HZ * period_s)
    cases = select(bundle, spec, args.only)
    print(f"{bundle.manifest.task}: {len(cases)} faults, {args.seeds} seeds, {1 / loop_period_s:.0f} Hz", flush=True)
    report = run_faults(
        bundle,
        spec,
        cases,
        loop_period_s=loop_period_s,
        config={"mismatched": MISMATCHED, "nominal": NOMINAL}[args.robot],
        seeds=range(args.seed, args.seed + args.seeds),
        bare=args.bare,
        note=_print_progress,
    )
    ordinary = _run_ordinary(args, bundle) if args.minutes and not args.only else None
    data = page.data_of(report, ordinary, _command_line(args))
    paths = _paths(args)
    picture = page.write_report(*paths, data)
    print(f"written: {', '.join(map(str, (*paths, picture)))}", flush=True)
    details = {"faults": str(paths[0]), "page": str(paths[1])}
    rows = (*page.rows(data["faults"]), *page.ordinary_rows(data["ordinary"]))
    return Result(ok=data["passed"], rows=rows, reason=data["reason"], details=details, quiet=True)


def _run_ordinary(args: FaultsArgs, bundle: Bundle) -> Ordinary | None:
    """None, with a line that says so, for a bundle whose task is not installed here."""
    from robot_rl.env import get_task
    from robot_rl_sim.commands.gate import training_randomization
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.faults.ordinary import run_ordinary

    try:
        task = get_task(bundle.manifest.task)
    except ConfigError as error:
        print(f"none/training: not measured: {error}", flush=True)
        return None
    env = task.make_env(num_envs=_WORLDS, seed=args.seed, randomize=training_randomization(bundle, task))
    if not isinstance(env, SimVecEnv):
        raise ConfigError(f"task {task.name!r} is not simulated here; use --minutes 0")
    ordinary = run_ordinary(bundle, env, args.minutes, args.seed)
    print(f"none/training: {ordinary.wrong.total()} of {ordinary.episodes} episodes tripped for no reason", flush=True)
    return ordinary


def _print_progress(finding: Finding) -> None:
    from robot_rl_sim.faults.page import figures, line

    cells = line(finding.case.name, figures(finding))
    print("  ".join(c.ljust(width) for c, width in zip(cells, (24, 4, 17, 8, 8, 8), strict=False)), flush=True)


def _command_line(args: FaultsArgs) -> str:
    """What repeats the table."""
    words = [f"robot-rl faults {args.bundle} --seeds {args.seeds} --seed {args.seed}"]
    words += [f"--loop-rate-hz {args.loop_rate_hz:g}"] if args.loop_rate_hz else []
    words += [f"--robot {args.robot}"] if args.robot != "mismatched" else []
    words += ["--only " + " ".join(args.only)] if args.only else []
    words += [f"--minutes {args.minutes:g}"] if args.minutes != FaultsArgs.minutes else []
    return " ".join([*words, *([] if args.bare else ["--no-bare"])])


def _paths(args: FaultsArgs) -> tuple[Path, Path]:
    if args.out is not None:
        return args.out / "faults.json", args.out / "FAULTS.md"
    if args.bundle.is_dir():
        return args.bundle / "faults.json", args.bundle / "FAULTS.md"
    return args.bundle.with_suffix(".faults.json"), args.bundle.with_suffix(".FAULTS.md")


VERB = Verb(FaultsArgs, run)
