"""Policies by name, as a command line gives them: a run folder, a bundle, or a baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from robot_rl.bundle.load import Bundle, load_bundle
from robot_rl.env import RobotVecEnv, Task, VecEnv, get_task
from robot_rl.errors import ConfigError
from robot_rl.training.checkpoint import load_policy
from robot_rl.training.evaluate import Policy, random_policy, zero_policy

BASELINES = ("zero", "random", "scripted")


@dataclass(frozen=True)
class NamedPolicy:
    """A policy of a task that is yet to be put to its environments."""

    task: Task
    trained: bool
    """Not a baseline."""
    make: Callable[[VecEnv], Policy]
    """Raises ConfigError for environments that the policy does not fit."""
    safety_filter: bool = False
    """It was trained under the robot's safety filter."""
    low_pass_hz: float | None = None
    """It was trained behind a filter of first order with this cut-off."""


def find_policy(name: str, task: str | None = None, seed: int = 0) -> NamedPolicy:
    """A run folder of `robot-rl train`, a bundle (folder or zip), or one of BASELINES.

    `task` replaces the one that a run or a bundle names, and a baseline needs it. `seed` is that of random actions.
    Raises ConfigError, or BundleError or CheckpointError for what cannot be loaded.
    """
    path = Path(name)
    if name in BASELINES:
        if task is None:
            raise ConfigError(f"policy {name!r} needs --task; see `robot-rl list`")
        chosen = get_task(task)
        return NamedPolicy(chosen, False, lambda env: _baseline(name, chosen, env, seed))
    if path.suffix == ".zip" or (path / "manifest.json").exists():
        bundle = load_bundle(path)
        chosen = get_task(task or bundle.manifest.task)
        return NamedPolicy(
            chosen,
            True,
            lambda env: bundle_policy(bundle, env, chosen.name),
            bundle.manifest.config.get("safety_filter") is True,
            bundle.manifest.low_pass_hz,
        )
    normalizer, actor, config = load_policy(path)
    chosen = get_task(task or config.task)
    return NamedPolicy(
        chosen,
        True,
        lambda env: _fitting(torch.nn.Sequential(normalizer, actor), env, chosen.name),
        config.safety_filter,
        config.low_pass_hz,
    )


def baselines(task: Task, env: VecEnv, seed: int) -> dict[str, Policy]:
    """What a policy is measured beside."""
    policies = {"zero": zero_policy(env), "random": random_policy(env, seed)}
    return policies if task.scripted is None else {**policies, "scripted": task.scripted(env)}


def _baseline(name: str, task: Task, env: VecEnv, seed: int) -> Policy:
    valid = baselines(task, env, seed)
    if name not in valid:
        raise ConfigError(f"task {task.name!r} has no {name} policy; valid: {', '.join(valid)}")
    return valid[name]


def bundle_policy(bundle: Bundle, env: VecEnv, task: str) -> Policy:
    """The exported graph, fed with the environment's raw inputs."""
    if not isinstance(env, RobotVecEnv) or env.policy_io.contract.digest() != bundle.contract.digest():
        raise ConfigError(
            f"the bundle was made for robot {bundle.contract.robot!r} and task {bundle.manifest.task!r} under another "
            f"contract than that of task {task!r}"
        )

    def act(obs: torch.Tensor) -> torch.Tensor:
        inputs = {name: value.cpu().numpy() for name, value in env.policy_inputs().items()}
        return torch.from_numpy(bundle.policy.run_batch(inputs)["action"]).to(obs.device)

    return act


def _fitting(policy: torch.nn.Module, env: VecEnv, task: str) -> Policy:
    policy = policy.to(env.device)
    try:
        actions = policy(torch.zeros(1, env.obs_dim, device=env.device)).shape[-1]
    except RuntimeError as error:
        raise ConfigError(f"the policy does not take the {env.obs_dim} observations of task {task!r}") from error
    if actions != env.action_dim:
        raise ConfigError(f"the policy gives {actions} actions and task {task!r} takes {env.action_dim}")
    return policy
