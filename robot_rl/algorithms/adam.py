"""Adam on one flat vector (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Adam(nn.Module):
    """One optimiser step is one fused kernel; torch.optim.Adam spends several times as long around the same kernel.

    `parameters` give the shape. Moments, step count and bias corrections are buffers, so they are saved as those of any
    module.
    """

    def __init__(self, parameters: Tensor, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        super().__init__()
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        self.mean: Tensor
        self.square: Tensor
        self.steps: Tensor
        self.decay1: Tensor
        self.decay2: Tensor
        self.register_buffer("mean", torch.zeros_like(parameters))
        self.register_buffer("square", torch.zeros_like(parameters))
        self.register_buffer("steps", torch.zeros((), device=parameters.device))
        # β1 and β2 to the power of steps, by multiplication: compiled, a power would be taken once per parameter.
        self.register_buffer("decay1", torch.ones((), device=parameters.device))
        self.register_buffer("decay2", torch.ones((), device=parameters.device))

    @torch.no_grad()
    def step(self, parameters: Tensor, gradient: Tensor, learning_rate: Tensor) -> None:
        """Move the parameters, in place, against their gradient. The learning rate is a tensor (), so that one which
        changes needs no new compilation."""
        self.steps += 1
        self.decay1 *= self._beta1
        self.decay2 *= self._beta2
        if torch.compiler.is_compiling():  # torch.compile cannot trace the kernel, but makes one of these lines
            self.mean.lerp_(gradient, 1 - self._beta1)
            self.square.lerp_(gradient.square(), 1 - self._beta2)
            mean, square = self.mean / (1 - self.decay1), self.square / (1 - self.decay2)
            parameters.sub_(learning_rate * mean / (square.sqrt() + self._epsilon))
        else:
            torch.ops.aten._fused_adam_(
                [parameters], [gradient], [self.mean], [self.square], [], [self.steps], lr=learning_rate,
                beta1=self._beta1, beta2=self._beta2, weight_decay=0.0, eps=self._epsilon, amsgrad=False,
                maximize=False,
            )  # fmt: skip
