"""Running observation normaliser, exported in front of the actor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalizer(nn.Module):
    """obs (n, dim) -> clip((obs - mean) / std, ±clip), with the mean and standard deviation of all `update` rows.

    `forward` only reads; statistics change in `update` alone, so an exported graph and an evaluation hold them fixed.
    Merging follows Chan, Golub and LeVeque (1983), in float64. Before the first update it is the (clipped) identity.
    """

    def __init__(self, dim: int, clip: float = 10.0, eps: float = 1e-4) -> None:
        super().__init__()
        self.clip = clip
        self.eps = eps
        self.mean: Tensor
        self.inverse_std: Tensor
        self.count: Tensor
        self.running_mean: Tensor
        self.sum_squared_deviation: Tensor
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("inverse_std", torch.ones(dim))
        # The accumulators, from which the two float32 buffers above are refreshed.
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("running_mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("sum_squared_deviation", torch.zeros(dim, dtype=torch.float64))

    def forward(self, obs: Tensor) -> Tensor:
        return ((obs - self.mean) * self.inverse_std).clamp(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, obs: Tensor) -> None:
        """Merge the rows of obs (n, dim) into the statistics."""
        rows = obs.double()
        n = rows.shape[0]
        batch_mean = rows.mean(0)
        delta = batch_mean - self.running_mean
        total = self.count + n
        self.sum_squared_deviation += (rows - batch_mean).square().sum(0) + delta.square() * (self.count * n / total)
        self.running_mean += delta * (n / total)
        self.count.copy_(total)
        # eps keeps a constant observation, whose deviation is rounding noise, from being blown up to order one.
        std = (self.sum_squared_deviation / total + self.eps**2).sqrt()
        self.mean.copy_(self.running_mean)
        self.inverse_std.copy_(std.reciprocal())


def actor_and_critic_obs(rows: Tensor, obs_dim: int, normalizer: nn.Module) -> tuple[Tensor, Tensor]:
    """What the actor sees of a batch's obs (n, obs_dim + privileged_dim): the first obs_dim, normalised; and what the
    critics see: the same with the rest behind it."""
    obs = normalizer(rows[:, :obs_dim])
    return obs, obs if rows.shape[1] == obs_dim else torch.cat((obs, rows[:, obs_dim:]), dim=-1)


def make_normalizer(enabled: bool, dim: int) -> Normalizer | nn.Identity:
    """The normaliser, or the identity where a task's observations are of order one already."""
    return Normalizer(dim) if enabled else nn.Identity()
