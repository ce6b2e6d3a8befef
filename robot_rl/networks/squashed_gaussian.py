"""Actor whose action is the tanh of a diagonal Gaussian (Haarnoja et al. 2018, arXiv 1812.05905, appendix C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_rl.networks.mlp import Activation, MLPStack, Tape

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class Sample(NamedTuple):
    """Actions, and what their gradient needs."""

    action: Tensor
    """(n, action_dim)."""
    log_prob: Tensor
    """(n,)."""
    std_noise: Tensor
    """(n, action_dim): d u / d log std."""
    inside: Tensor
    """(n, action_dim): whether log std lies within its bounds."""
    tape: Tape


class SquashedGaussianActor(nn.Module):
    """obs (n, obs_dim) -> action (n, action_dim) in [-1, 1]. `forward` is tanh(mean).

    `log_std_bounds` are those of the Gaussian's log standard deviation.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        log_std_bounds: tuple[float, float] = (LOG_STD_MIN, LOG_STD_MAX),
        layer_norm: bool = False,
        initial_std: float | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """With `initial_std`, the last layer starts at zero: actions of mean 0 and this standard deviation (before the
        tanh) everywhere, until something is learned."""
        super().__init__()
        self.action_dim = action_dim
        self.log_std_bounds = log_std_bounds
        self.body = MLPStack(1, obs_dim, hidden, 2 * action_dim, activation, layer_norm, dtype)
        if initial_std is not None:
            last = self.body.layers[-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            nn.init.constant_(last.bias[..., action_dim:], math.log(initial_std))

    def forward(self, obs: Tensor) -> Tensor:
        return torch.tanh(self.body(obs)[0, :, : self.action_dim])

    def sample(self, obs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Reparameterised action (n, action_dim) and its log-density (n,), measured in [-1, 1] units."""
        mean, log_std = self.body(obs)[0].chunk(2, dim=-1)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return squash(mean, log_std.clamp(*self.log_std_bounds), noise)

    def run(self, obs: Tensor, noise: Tensor) -> Sample:
        """`sample` with the given standard normal noise (n, action_dim), outside of autograd."""
        out, tape = self.body.run(obs)
        mean, log_std = out[0].chunk(2, dim=-1)
        low, high = self.log_std_bounds
        clamped = log_std.clamp(low, high)
        action, log_prob = squash(mean, clamped, noise)
        # The clamp passes a gradient on its bounds, as torch's does.
        std_noise = clamped.exp() * noise * (clamped == log_std)
        return Sample(action, log_prob, std_noise, clamped == log_std, tape)

    def gradient(self, sample: Sample, action_gradient: Tensor, log_prob_gradient: Tensor) -> list[Tensor]:
        """Of the parameters, in their order, from those of the action (n, action_dim) and of log π (n,).

        With u = mean + std noise: d action / du = 1 - action², d log π / du = 2 action, d log π / d log std = -1.
        """
        log_prob_gradient = log_prob_gradient.unsqueeze(-1)
        action = sample.action
        mean = action_gradient * (1 - action.square()) + 2 * log_prob_gradient * action
        log_std = mean * sample.std_noise - log_prob_gradient * sample.inside
        return self.body.gradient(sample.tape, torch.cat((mean, log_std), dim=-1).unsqueeze(0))

    def deterministic(self) -> nn.Sequential:
        """`forward` as ordinary layers, with copies of the weights: for export."""
        return nn.Sequential(*self.body.sequential(0, slice(0, self.action_dim)), nn.Tanh())


def squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Action tanh(u), u = mean + std * noise, and log π(action) summed over the last dimension.

    log(1 - tanh(u)²) is written as 2 (log 2 - u - softplus(-2u)): equal, and finite for every u, where the usual
    log(1 - a² + 1e-6) is wrong by orders of magnitude once |u| > 7.
    """
    u = mean + log_std.exp() * noise
    log_prob = 2 * (u + F.softplus(-2 * u)) - log_std - 0.5 * noise.square()
    constant = mean.shape[-1] * (2 * math.log(2) + 0.5 * math.log(2 * math.pi))
    return torch.tanh(u), log_prob.sum(-1) - constant
