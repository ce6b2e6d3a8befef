"""How good a policy is: whole episodes, each environment contributing its share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.env import Step, VecEnv
from robot_rl.errors import ConfigError

COMMON = ("episode_return", "episode_length", "success", "diverged")
"""What every environment may tell besides."""
Policy = Callable[[Tensor], Tensor]
"""Raw obs (n, obs_dim) -> action (n, action_dim) in [-1, 1]."""


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns of `episodes` whole episodes."""

    episodes: int
    return_mean: float
    return_std: float
    length_mean: float
    success_rate: float | None
    """None where the task has no notion of success."""
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    successes: tuple[bool, ...] | None
    measures: dict[str, float]
    """Mean at the end of an episode of what else the task counts or measures, such as goals reached."""


@torch.no_grad()
def evaluate(env: VecEnv, policy: Policy, episodes: int, seed: int | None = None) -> Evaluation:
    """Run `episodes` episodes from a reset.

    Env i contributes its first k_i episodes, the k_i being equal or one apart and chosen beforehand. Taking instead
    whichever episodes end first would favour short ones.
    """
    if episodes < 1:
        raise ConfigError(f"episodes must be at least 1, got {episodes}")
    n = env.num_envs
    remaining = torch.full((n,), episodes // n) + (torch.arange(n) < episodes % n)
    obs = env.reset(seed)
    reward_sum, length = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)
    returns: list[float] = []
    lengths: list[int] = []
    successes: list[bool] = []
    measures: dict[str, float] = {}
    while (remaining > 0).any():
        step = env.step(policy(obs))
        obs = step.obs
        reward_sum += step.reward.cpu()
        length += 1
        done = (step.terminated | step.truncated).cpu()
        counted = done & (remaining > 0)
        returns += reward_sum[counted].tolist()
        lengths += length[counted].tolist()
        if "success" in step.info:
            successes += step.info["success"].cpu()[counted].tolist()
        if counted.any():
            for name in measures_of(step):
                measures[name] = measures.get(name, 0.0) + step.info[name].cpu()[counted].sum().item() / episodes
        remaining -= counted.long()
        reward_sum[done], length[done] = 0.0, 0
    values = torch.tensor(returns, dtype=torch.float64)
    return Evaluation(
        episodes=episodes,
        return_mean=values.mean().item(),
        return_std=values.std(correction=0).item(),
        length_mean=sum(lengths) / episodes,
        success_rate=sum(successes) / episodes if successes else None,
        returns=tuple(returns),
        lengths=tuple(lengths),
        successes=tuple(bool(s) for s in successes) if successes else None,
        measures=measures,
    )


def measures_of(step: Step) -> list[str]:
    """Names in `step.info` of what a task counts or measures of an episode."""
    return [name for name in step.info if name not in COMMON and not name.startswith("reward/")]


def zero_policy(env: VecEnv) -> Policy:
    """Always the middle of the action range."""
    return lambda obs: torch.zeros(env.num_envs, env.action_dim, device=obs.device)


def random_policy(env: VecEnv, seed: int) -> Policy:
    """Uniform in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return lambda obs: uniform_actions(env, generator).to(obs.device)


def uniform_actions(env: VecEnv, generator: torch.Generator) -> Tensor:
    """(n_envs, action_dim) uniform in [-1, 1]."""
    return 2 * torch.rand(env.num_envs, env.action_dim, generator=generator) - 1
