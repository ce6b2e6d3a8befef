"""What moves parameters: Adam (Kingma and Ba 2015, arXiv 1412.6980), and the average that target networks are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling


class Adam(nn.Module):
    """Algorithm 1 of that paper. All parameters step in one fused kernel; torch.optim.Adam spends several times as long
    around the same kernel.

    Moments, step count and bias corrections are saved as those of any module; the parameters are not.
    """

    def __init__(
        self, parameters: Iterable[Tensor], beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        super().__init__()
        self._moved = list(parameters)
        device = self._moved[0].device
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        self.means, self.squares = (
            nn.ParameterList(nn.Parameter(torch.zeros_like(p), requires_grad=False) for p in self._moved)
            for _ in range(2)
        )
        self.steps: Tensor
        self.decay1: Tensor
        self.decay2: Tensor
        self.register_buffer("steps", torch.zeros((), device=device))
        # β1 and β2 to the power of steps, by multiplication: compiled, a power would be taken once per parameter.
        self.register_buffer("decay1", torch.ones((), device=device))
        self.register_buffer("decay2", torch.ones((), device=device))

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: Tensor) -> None:
        """Move the parameters, in place, against their gradients. The learning rate is a tensor (), so that one which
        changes needs no new compilation."""
        self.steps += 1
        self.decay1 *= self._beta1
        self.decay2 *= self._beta2
        if not is_compiling():
            torch.ops.aten._fused_adam_(
                self._moved, gradients, list(self.means), list(self.squares), [], [self.steps] * len(gradients),
                lr=learning_rate, beta1=self._beta1, beta2=self._beta2, weight_decay=0.0, eps=self._epsilon,
                amsgrad=False, maximize=False,
            )  # fmt: skip
            return
        # torch.compile cannot trace that kernel, and makes one of these lines for each parameter. They are in the order
        # of section 2: a division and a root less per number.
        correction = (1 - self.decay2).sqrt()
        rate, epsilon = learning_rate * correction / (1 - self.decay1), self._epsilon * correction
        for moved, gradient, mean, square in zip(self._moved, gradients, self.means, self.squares, strict=True):
            mean.lerp_(gradient, 1 - self._beta1)
            square.lerp_(gradient.square(), 1 - self._beta2)
            moved.sub_(rate * mean / (square.sqrt() + epsilon))


@torch.no_grad()
def polyak(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move every parameter of `target`, in place, by the share tau towards that of `source`."""
    for moved, towards in zip(target.parameters(), source.parameters(), strict=True):
        moved.lerp_(towards, tau)
