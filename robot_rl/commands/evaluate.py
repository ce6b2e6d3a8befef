"""`robot-rl evaluate`: how good a trained policy is, beside doing nothing and acting at random."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl.bundle.load import Bundle
    from robot_rl.env import VecEnv
    from robot_rl.training.evaluate import Evaluation, Policy

BASELINES = ("zero", "random", "scripted")


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
    backend: str = "auto"
    """Physics, such as mujoco or warp."""


def run(args: EvaluateArgs) -> Result:
    import torch

    from robot_rl.bundle.load import load_bundle
    from robot_rl.env import get_task
    from robot_rl.training.checkpoint import load_policy
    from robot_rl.training.evaluate import evaluate, random_policy, zero_policy

    torch.set_num_threads(1)
    task_name, trained, bundle = args.task, None, None
    path = Path(args.policy)
    if args.policy not in BASELINES and (path.suffix == ".zip" or (path / "manifest.json").exists()):
        bundle = load_bundle(path)
        task_name = task_name or bundle.manifest.task
    elif args.policy not in BASELINES:
        normalizer, actor, config = load_policy(Path(args.policy))
        task_name = task_name or config.task
        trained = torch.nn.Sequential(normalizer, actor)
    if task_name is None:
        raise ConfigError(f"evaluating {args.policy!r} needs --task; see `robot-rl list`")
    task = get_task(task_name)
    env = task.make_env(
        num_envs=min(args.num_envs, args.episodes),
        seed=args.seed,
        randomize=not args.nominal,
        backend=args.backend,
    )
    policies: dict[str, Policy] = {"zero": zero_policy(env), "random": random_policy(env, args.seed)}
    if task.scripted is not None:
        policies["scripted"] = task.scripted(env)
    if bundle is not None:
        policies = {"": _bundle_policy(bundle, env, task_name), **policies}
    elif trained is not None:
        _check_fits(env.obs_dim, trained, env.action_dim, task_name)
        policies = {"": trained, **policies}
    elif args.policy not in policies:
        raise ConfigError(f"task {task_name!r} has no {args.policy} policy; valid: {', '.join(policies)}")
    else:
        policies = {args.policy: policies[args.policy]}
    evaluations = {name: evaluate(env, policy, args.episodes, args.seed) for name, policy in policies.items()}
    env.close()
    rows = [row for name, evaluation in evaluations.items() for row in _rows(task_name, name, evaluation)]
    return Result(ok=True, rows=tuple(rows), details={name or "trained": asdict(e) for name, e in evaluations.items()})


def _bundle_policy(bundle: Bundle, env: VecEnv, task: str) -> Policy:
    """The exported graph, fed with the environment's raw inputs."""
    import torch

    from robot_rl.env import RobotVecEnv

    if not isinstance(env, RobotVecEnv) or env.policy_io.contract.digest() != bundle.contract.digest():
        raise ConfigError(
            f"the bundle was made for robot {bundle.contract.robot!r} and task {bundle.manifest.task!r} under another "
            f"contract than that of task {task!r}"
        )

    def act(obs: torch.Tensor) -> torch.Tensor:
        inputs = {name: value.cpu().numpy() for name, value in env.policy_inputs().items()}
        return torch.from_numpy(bundle.policy.run_batch(inputs)["action"]).to(obs.device)

    return act


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
    return rows


def _check_fits(obs_dim: int, policy: Policy, action_dim: int, task: str) -> None:
    import torch

    try:
        actions = policy(torch.zeros(1, obs_dim)).shape[-1]
    except RuntimeError as error:
        raise ConfigError(f"the policy does not take the {obs_dim} observations of task {task!r}") from error
    if actions != action_dim:
        raise ConfigError(f"the policy gives {actions} actions and task {task!r} takes {action_dim}")


VERB = Verb(arguments=EvaluateArgs, run=run)
