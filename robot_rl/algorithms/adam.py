"""Adam on one flat vector (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Adam(nn.Module):
    """One optimiser step is one fused kernel; torch.optim.Adam spends several times as long around the same kernel.

    `parameters` give the shape. The moments and the step count are buffers, so they are saved as those of any module.
    """

    def __init__(self, parameters: Tensor, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        super().__init__()
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        self.mean: Tensor
        self.square: Tensor
        self.steps: Tensor
        self.register_buffer("mean", torch.zeros_like(parameters))
        self.register_buffer("square", torch.zeros_like(parameters))
        self.register_buffer("steps", torch.zeros((), device=parameters.device))

    @torch.no_grad()
    def step(self, parameters: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """Move the parameters, in place, against their gradient."""
        self.steps += 1
        torch.ops.aten._fused_adam_(
            [parameters], [gradient], [self.mean], [self.square], [], [self.steps], lr=learning_rate,
            beta1=self._beta1, beta2=self._beta2, weight_decay=0.0, eps=self._epsilon, amsgrad=False,
            maximize=False,
        )  # fmt: skip
