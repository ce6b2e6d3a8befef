"""`robot-rl export`: from a training run to a bundle."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError


@dataclass(frozen=True)
class ExportArgs:
    """Export a trained policy as a bundle: one ONNX graph, contract, golden rows, card."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of `robot-rl train`."""
    out: Path | None = None
    """Where the bundle goes; a name that ends in .zip makes one file. Default: RUN/bundle."""
    overwrite: bool = False
    """Replace a bundle that is already there."""


def run(args: ExportArgs) -> Result:
    from robot_rl.bundle.export import Provenance, export_policy
    from robot_rl.env import RobotVecEnv, get_task
    from robot_rl.training.checkpoint import load_policy

    normalizer, actor, config = load_policy(args.run)
    env = get_task(config.task).make_env(num_envs=1, seed=config.seed, num_threads=1)
    if not isinstance(env, RobotVecEnv):
        raise ConfigError(f"task {config.task!r} is no robot task: it has no contract to export. See `robot-rl list`")
    evaluation = args.run / "evaluation.json"
    provenance = Provenance(
        task=config.task,
        algorithm=config.algo,
        git_revision=git_revision(),
        run=args.run.name,
        # Where the runs lie on the machine that trained is nobody else's business.
        config={k: v for k, v in json.loads(config.to_json()).items() if k != "runs"},
        seeds={"training": config.seed},
        evaluation=json.loads(evaluation.read_text()) if evaluation.exists() else {},
    )
    path = args.out or args.run / "bundle"
    loop = export_policy(env, normalizer, actor, path, provenance, overwrite=args.overwrite)
    env.close()
    period_s = env.policy_io.contract.control_period_s
    assert loop.latency is not None
    rows = (
        Row("export/closed_loop_error", loop.max_error, "1"),
        Row("export/closed_loop_steps", loop.steps, "steps"),
        Row("export/action_p99", loop.latency.p99_s * 1e3, "ms", "control period", loop.latency.p99_s / period_s),
        Row("export/bundle", str(path)),
    )
    return Result(ok=True, rows=rows, details={"bundle": str(path), "contract": env.policy_io.contract.digest()})


def git_revision() -> str:
    """Commit of this package's source tree, with "+changes" if it was edited; "" outside a repository."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        revision = git("rev-parse", "HEAD")
        return revision + "+changes" if revision and git("status", "--porcelain", "--untracked-files=no") else revision
    except OSError:  # no git installed
        return ""


VERB = Verb(arguments=ExportArgs, run=run)
