"""`robot-rl gate`: does an exported policy depend on how it happened to be simulated?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl.bundle.load import Bundle
    from robot_rl.env import Task
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.gate.gate import Finding
    from robot_rl_sim.gate.variants import Variant


@dataclass(frozen=True)
class GateArgs:
    """Sim-to-sim gate: an exported bundle under other physics and at each corner of the randomisation.

    It fails, naming variant and term, where return, success or observations change by more than stated tolerances.
    """

    bundle: Annotated[Path, tyro.conf.Positional]
    """Folder or zip. gate.json and GATE.md are written into the folder, or beside the zip under its name."""
    task: str | None = None
    """Task; default: the bundle's own."""
    episodes: int = 200
    """Episodes of each variant, at least 30: one per world, from the same starts."""
    seed: int = 2_000
    """Of starts, dynamics, commands and sensor noise."""
    only: tuple[str, ...] = ()
    """Run only variants that match one of these shell-style patterns, such as 'timestep/*'."""
    backend: str = "auto"
    """Backend of the reference, mujoco or warp; auto: the one that the bundle was trained with."""
    num_threads: int = 0
    """CPU threads of the simulation; 0: all cores."""
    out: Path | None = None
    """Folder for gate.json and GATE.md instead."""


def run(args: GateArgs) -> Result:
    import torch

    from robot_rl.bundle.load import load_bundle
    from robot_rl.env import get_task
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.gate import page
    from robot_rl_sim.gate.gate import MIN_EPISODES, run_gate, select, variant_env
    from robot_rl_sim.gate.variants import OTHER_BACKEND, make_variants

    torch.set_num_threads(1)  # the physics has the others
    if args.episodes < MIN_EPISODES:
        raise ConfigError(f"--episodes must be at least {MIN_EPISODES}, got {args.episodes}")
    bundle = load_bundle(args.bundle)
    backend = _training_backend(bundle) if args.backend == "auto" else args.backend
    if backend not in OTHER_BACKEND:
        raise ConfigError(f"unknown backend {backend!r}; valid: auto, {', '.join(OTHER_BACKEND)}")
    task = get_task(args.task or bundle.manifest.task)
    env = task.make_env(
        num_envs=args.episodes,
        seed=args.seed,
        randomize=training_randomization(bundle, task),
        num_threads=args.num_threads,
        backend=backend,
    )
    if not isinstance(env, SimVecEnv):
        raise ConfigError(f"task {task.name!r} is not simulated here: its physics cannot be varied")
    if env.policy_io.contract.digest() != bundle.contract.digest():
        raise ConfigError(f"the bundle's contract is not that of task {task.name!r}; robot {bundle.contract.robot!r}")
    under_its_filter(env, bundle)
    variants = select(make_variants(env, backend), args.only)
    print(f"{task.name}: {args.episodes} episodes on {backend}, and {len(variants)} variants", flush=True)

    def build(variant: Variant) -> SimVecEnv:
        return under_its_filter(variant_env(env, variant, args.num_threads), bundle)

    report = run_gate(bundle, env, variants, args.seed, build, note=_print_progress)
    env.close()
    print("\n" + page.table(report), flush=True)
    data, text = _paths(args)
    page.write_data(data, report, bundle)
    page.write_page(text, report, bundle)
    print(f"written: {data}, {text}", flush=True)
    why = page.reason(report)
    details = {"gate": str(data), "page": str(text), "failed": [f.variant.name for f in report.failed]}
    return Result(ok=not why, rows=tuple(page.rows(report)), reason=why, details=details, quiet=True)


def _training_backend(bundle: Bundle) -> str:
    """What trained on a GPU trained on Warp; its CPU device runs the same code."""
    config = bundle.manifest.config
    named = config.get("env_backend", "auto")
    if named != "auto":
        return str(named)
    return "warp" if str(config.get("env_device", "cpu")).startswith("cuda") else "mujoco"


def training_randomization(bundle: Bundle, task: Task) -> Any:
    """That of the run, or the task's own where the bundle does not say."""
    from robot_rl.training.config import override_randomization

    values = bundle.manifest.config.get("randomization")
    return True if values is None else override_randomization(task, values)


def under_its_filter(env: SimVecEnv, bundle: Bundle) -> SimVecEnv:
    """`env`, where the policy was trained under the robot's safety filter with that filter."""
    if bundle.manifest.config.get("safety_filter") is True:
        env.limit_targets(bundle.manifest.low_pass_hz)
    return env


def _print_progress(finding: Finding) -> None:
    outcome = "skipped" if finding.skipped else "pass" if finding.worst is None else "FAIL"
    print(f"  {finding.variant.name}: {outcome}", flush=True)


def _paths(args: GateArgs) -> tuple[Path, Path]:
    if args.out is not None:
        return args.out / "gate.json", args.out / "GATE.md"
    if args.bundle.is_dir():
        return args.bundle / "gate.json", args.bundle / "GATE.md"
    return args.bundle.with_suffix(".gate.json"), args.bundle.with_suffix(".GATE.md")


VERB = Verb(GateArgs, run)
