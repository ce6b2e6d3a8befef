"""Ensembles of Q networks, evaluated together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robot_rl.networks.mlp import Activation, MLPStack


class CriticEnsemble(MLPStack):
    """(obs, action) -> Q (n_critics, batch)."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        n_critics: int = 2,
        layer_norm: bool = False,
        outputs: int = 1,
        dtype: torch.dtype | None = None,
    ) -> None:
        """More than one of `outputs` are the logits of a distribution (see networks/categorical.py)."""
        super().__init__(n_critics, obs_dim + action_dim, hidden, outputs, activation, layer_norm, dtype)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(obs, action).squeeze(-1)


class GaussianCriticEnsemble(MLPStack):
    """(obs, action) -> mean Q and standard deviation σ > 0 of the return, (n_critics, batch) each."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        n_critics: int = 2,
        layer_norm: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(n_critics, obs_dim + action_dim, hidden, 2, activation, layer_norm, dtype)

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return gaussian(super().forward(obs, action))


def gaussian(out: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (n_critics, batch) from a Gaussian critic's outputs (n_critics, batch, 2)."""
    mean, raw = out.unbind(-1)
    return mean, F.softplus(raw)
