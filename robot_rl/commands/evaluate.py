"""`robot-rl evaluate`: how good a trained policy is, beside doing nothing and acting at random."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row

if TYPE_CHECKING:
    from robot_rl.training.evaluate import Evaluation


@dataclass(frozen=True)
class EvaluateArgs:
    """Measure a policy over whole episodes: a run folder, a bundle, or a baseline: zero, random, or the task's own
    scripted policy."""

    policy: Annotated[str, tyro.conf.Positional]
    """Run folder of `robot-rl train` or bundle (with the baselines measured beside it), or zero, random, scripted."""
    task: str | None = None
    """Task; default: that of the run or the bundle."""
    episodes: int = 200
    """Episodes of each policy."""
    num_envs: int = 64
    """Environments stepped together."""
    seed: int = 1_000
    """Seed of the start states, equal for all policies."""
    nominal: bool = False
    """The model as written: no domain randomisation, sensor noise or latency."""
    safety_filter: bool = False
    """Limit targets as the robot's safety filter does when the policy is deployed. Always so for a policy that was
    trained under it."""
    randomization_file: Path | None = None
    """JSON file with some of the task's randomization settings, by name (as of `robot-rl train`)."""
    backend: str = "auto"
    """Physics, such as mujoco or warp."""
    device: str = "cpu"
    """Where the environments run, and the policy of a run with them."""


def run(args: EvaluateArgs) -> Result:
    import torch

    from robot_rl.env import limited
    from robot_rl.training.config import read_randomization
    from robot_rl.training.evaluate import evaluate
    from robot_rl.training.policies import baselines, find_policy

    torch.set_num_threads(1)
    policy = find_policy(args.policy, args.task, args.seed)
    task = policy.task
    ranges: Any = not args.nominal
    if args.randomization_file is not None:
        ranges = read_randomization(task, args.randomization_file)
    env = task.make_env(
        num_envs=min(args.num_envs, args.episodes),
        seed=args.seed,
        randomize=ranges,
        backend=args.backend,
        device=args.device,
    )
    if args.safety_filter or policy.safety_filter:
        limited(env, task.name, policy.low_pass_hz)
    policies = {args.policy: policy.make(env)}
    if policy.trained:
        policies = {"": policies[args.policy], **baselines(task, env, args.seed)}
    evaluations = {name: evaluate(env, policy, args.episodes, args.seed) for name, policy in policies.items()}
    env.close()
    rows = [row for name, evaluation in evaluations.items() for row in _rows(task.name, name, evaluation)]
    return Result(ok=True, rows=tuple(rows), details={name or "trained": asdict(e) for name, e in evaluations.items()})


def _rows(task: str, policy: str, evaluation: Evaluation) -> list[Row]:
    """evaluate/<task>/<quantity> of the trained policy; a baseline's rows end in its name."""
    end = f"/{policy}" if policy else ""
    rows = [
        Row(f"evaluate/{task}/return{end}", evaluation.return_mean),
        Row(f"evaluate/{task}/return_std{end}", evaluation.return_std),
        Row(f"evaluate/{task}/length{end}", evaluation.length_mean, "steps"),
    ]
    if evaluation.success_rate is not None:
        rows.insert(0, Row(f"evaluate/{task}/success{end}", evaluation.success_rate))
    rows += [Row(f"evaluate/{task}/{name}{end}", value) for name, value in evaluation.measures.items()]
    return rows


VERB = Verb(arguments=EvaluateArgs, run=run)
