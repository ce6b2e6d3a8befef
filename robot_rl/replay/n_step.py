"""Returns over several steps, made when a batch is drawn: nothing but single steps is stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.errors import ConfigError


@dataclass(frozen=True)
class NStep:
    """Rewards of up to `n` steps are summed, discounted by `gamma` per step. The rows of one environment lie `num_envs`
    rows apart."""

    n: int
    gamma: float
    num_envs: int = 1

    def __post_init__(self) -> None:
        if self.n < 1 or self.num_envs < 1:
            raise ConfigError(f"n_step and num_envs must be at least 1, got {self.n} and {self.num_envs}")
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma must lie in [0, 1], got {self.gamma}")


def discounts(spec: NStep, device: torch.device) -> Tensor:
    """(n + 1,): γ^0 to γ^n."""
    return (spec.gamma ** torch.arange(spec.n + 1, dtype=torch.float64)).float().to(device)


def n_step_return(reward: Tensor, ended: Tensor, stored: Tensor, powers: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the rewards from a step on, to the end of its episode, to the newest stored step, or over all n of them.

    reward, ended and stored are (batch, n): of step i after the first, what it paid, whether the episode ended with it,
    and whether it is stored at all (the first is; entries that are not stored may hold anything finite). `powers` are
    the `discounts`. Returns Σ_{i<k} γ^i r_i and the number k of steps summed, int64 and at least 1, each (batch,).
    """
    goes_on = stored[:, 1:] & ~ended[:, :-1]
    weight = torch.cat((torch.ones_like(reward[:, :1]), goes_on.cumprod(1)), dim=1)
    return (reward * weight * powers[:-1]).sum(1), weight.sum(1).long()
