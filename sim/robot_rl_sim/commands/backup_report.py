"""`robot-rl backup-report`: how often does each backup save the robot, from states in which the policy fails?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl_sim.backups.report import Finding


@dataclass(frozen=True)
class BackupReportArgs:
    """Recovery rates of a robot's backups, from states in which a bundle fails or is stopped, into the bundle's card.

    Such states are collected by running the bundle under pushes, dynamics and sensors that are worse than in training.
    """

    bundle: Annotated[Path, tyro.conf.Positional]
    """Folder. The section "Backups" of its CARD.md is written, and backups.png and backups.json beside it."""
    recovery: Path | None = None
    """Bundle to try as the recovery policy; it may be the same one."""
    episodes: int = 100
    """Of each kind of failure, all at once."""
    seed: int = 3_000
    num_threads: int = 0
    """CPU threads of the simulation; 0: all cores."""
    out: Path | None = None
    """Folder for CARD.md (the section alone), backups.png and backups.json instead; the bundle stays as it is."""


def run(args: BackupReportArgs) -> Result:
    import torch

    from robot_rl.bundle.amend import write_section
    from robot_rl.bundle.load import load_bundle
    from robot_rl.bundle.verify import verify_bundle
    from robot_rl.env import get_task
    from robot_rl_sim.backups import page
    from robot_rl_sim.backups.report import run_report
    from robot_rl_sim.backups.sources import Source, sources_for
    from robot_rl_sim.commands.gate import training_randomization
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.tasks.assemble import assemble

    torch.set_num_threads(1)
    if args.episodes < 1:
        raise ConfigError(f"episodes must be at least 1, got {args.episodes}")
    if args.out is None and not args.bundle.is_dir():
        raise ConfigError(f"{args.bundle} is no folder: unpack it, or name another folder with --out")
    bundle = load_bundle(args.bundle)
    recovery = None if args.recovery is None else load_bundle(args.recovery)
    task = get_task(bundle.manifest.task)
    trained = training_randomization(bundle, task)
    env = task.make_env(
        num_envs=args.episodes, seed=args.seed, randomize=trained, num_threads=args.num_threads, backend="mujoco"
    )
    if not isinstance(env, SimVecEnv):
        raise ConfigError(f"task {task.name!r} is not simulated here")
    robot, mdp, randomization = env.mdp.robot, env.mdp, env.randomization
    for proven in (bundle, recovery):
        if proven is not None:
            verify_bundle(proven, robot).require_ok()
    if recovery is not None and recovery.contract.control_period_s != bundle.contract.control_period_s:
        raise ConfigError("the recovery policy must have the control period of the bundle")

    def make_env(source: Source) -> SimVecEnv:
        for name, value in env.first_mdp_state.items():
            mdp.state[name].copy_(value)
        return assemble(mdp, args.episodes, args.seed, source.change(randomization), "cpu", args.num_threads, "mujoco")

    print(f"{task.name}: {args.episodes} episodes of each kind of failure", flush=True)
    report = run_report(bundle, make_env, sources_for(robot), args.seed, recovery, note=_print_progress)
    if not report.findings:
        return Result(ok=False, reason="no episode tripped: there is nothing to recover from")
    print("\n" + page.table(report), flush=True)
    folder = args.bundle if args.out is None else args.out
    page.write_plot(folder / page.PLOT_FILE, report)
    page.write_data(folder / page.DATA_FILE, report)
    if args.out is None:
        write_section(args.bundle, page.TITLE, page.section(report))
    else:
        (folder / "CARD.md").write_text(f"## {page.TITLE}\n\n{page.section(report)}\n", encoding="utf-8")
    print(f"written: {folder / 'CARD.md'}, {folder / page.PLOT_FILE}, {folder / page.DATA_FILE}", flush=True)
    return Result(ok=True, rows=tuple(page.rows(report)), details={"folder": str(folder)}, quiet=True)


def _print_progress(finding: Finding) -> None:
    rates = ", ".join(f"{r.tier} {r.recovered}" for r in finding.rates)
    print(
        f"  {finding.source.name}, {finding.lead_s:g} s before: {finding.states} states; recovered: {rates}", flush=True
    )


VERB = Verb(BackupReportArgs, run)
