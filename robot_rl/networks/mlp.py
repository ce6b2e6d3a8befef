"""Multi-layer perceptrons of one shape, evaluated together and differentiated by hand: the body of actors and critics.

For networks of this size autograd costs about as much as the arithmetic. Here a whole stack is one node of its graph:
gradients are written straight into one flat vector, and those that nobody asks for (of the weights in an actor loss, of
the observations in any loss) are never computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Activation = Literal["relu", "elu", "silu", "gelu", "tanh"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}

_aten = torch.ops.aten
# (function, derivative (gradient, saved) -> gradient, whether "saved" is the output; the function then overwrites).
_RULES: dict[Activation, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor], bool]] = {
    "relu": (torch.relu_, lambda g, h: _aten.threshold_backward(g, h, 0), True),
    "elu": (lambda z: F.elu(z, inplace=True), lambda g, h: _aten.elu_backward(g, 1, 1, 1, True, h), True),
    "silu": (F.silu, _aten.silu_backward, False),
    "gelu": (F.gelu, _aten.gelu_backward, False),
    "tanh": (torch.tanh_, _aten.tanh_backward, True),
}


class MLPStack(nn.Module):
    """n networks of one shape, linear layers with an activation after each but the last.

    All parameters are one vector, `flat`, so that an optimiser's step and a Polyak average are one operation each.
    """

    def __init__(
        self, n: int, in_dim: int, hidden: Sequence[int], out_dim: int, activation: Activation = "relu"
    ) -> None:
        super().__init__()
        self.n = n
        self.activation: Activation = activation
        self.shapes = [shape for i, o in pairwise((in_dim, *hidden, out_dim)) for shape in ((n, i, o), (n, 1, o))]
        self.flat = nn.Parameter(torch.empty(sum(map(math.prod, self.shapes))))
        with torch.no_grad():
            for weight, bias in self.layers(self.flat):
                bound = 1 / math.sqrt(weight.shape[1])  # as nn.Linear does
                weight.uniform_(-bound, bound)
                bias.uniform_(-bound, bound)

    def layers(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Views of a vector laid out as `flat`: weight (n, in, out) and bias (n, 1, out) of each layer."""
        parts = flat.split([math.prod(shape) for shape in self.shapes])
        views = [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return list(zip(views[::2], views[1::2], strict=True))

    def forward(self, x: Tensor, then: Tensor | None = None, frozen: bool = False) -> Tensor:
        """x (batch, in_dim) -> (n, batch, out_dim). Gradients flow to the parameters unless `frozen`, and never to x.

        `then` (batch, k) follows x as the last k inputs; gradients flow to it.
        """
        return _Forward.apply(self.flat.detach() if frozen else self.flat, x, then, self)

    def sequential(self, index: int, outputs: slice = slice(None)) -> nn.Sequential:
        """One of the networks, cut down to some of its outputs, as ordinary layers with copies of the weights."""
        modules: list[nn.Module] = []
        layers = self.layers(self.flat.detach())
        for depth, (weights, biases) in enumerate(layers):
            columns = outputs if depth == len(layers) - 1 else slice(None)
            weight, bias = weights[index, :, columns], biases[index, 0, columns]
            linear = nn.Linear(weight.shape[0], weight.shape[1], device=weight.device, dtype=weight.dtype)
            linear.load_state_dict({"weight": weight.T, "bias": bias})
            modules += [linear, ACTIVATIONS[self.activation]()]
        return nn.Sequential(*modules[:-1])


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, x: Tensor, then: Tensor | None, stack: MLPStack) -> Tensor:
        x = x if then is None else torch.cat((x, then), dim=-1)
        function, _, keeps_output = _RULES[stack.activation]
        *hidden, (weight, bias) = stack.layers(flat)
        h = x.expand(stack.n, -1, -1)
        inputs, kept = [h], []
        for w, b in hidden:
            z = torch.baddbmm(b, h, w)
            h = function(z)
            inputs.append(h)
            kept.append(h if keeps_output else z)
        ctx.save_for_backward(flat, *inputs, *kept)
        ctx.stack, ctx.then_dim = stack, 0 if then is None else then.shape[-1]
        return _column(h, weight, bias) if weight.shape[-1] == 1 else torch.baddbmm(bias, h, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:  # type: ignore[override]
        flat, *saved = ctx.saved_tensors
        stack: MLPStack = ctx.stack
        layers = stack.layers(flat)
        inputs, kept = saved[: len(layers)], saved[len(layers) :]
        derivative = _RULES[stack.activation][1]
        flat_gradient = torch.empty_like(flat) if ctx.needs_input_grad[0] else None
        gradients = stack.layers(flat_gradient) if flat_gradient is not None else None
        g = gradient
        for depth in range(len(layers) - 1, -1, -1):
            if gradients is not None:
                torch.bmm(inputs[depth].mT, g, out=gradients[depth][0])
                torch.sum(g, dim=1, keepdim=True, out=gradients[depth][1])
            weight = layers[depth][0]
            if depth > 0:
                back = g * weight.mT if weight.shape[-1] == 1 else torch.bmm(g, weight.mT)
                g = derivative(back, kept[depth - 1])
        then_gradient = None
        if ctx.needs_input_grad[2]:
            then_gradient = torch.bmm(g, layers[0][0][:, -ctx.then_dim :].mT).sum(0)
        return flat_gradient, None, then_gradient, None


def _column(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A layer with one output: a product and a sum are several times faster than a batched matrix product."""
    return (h * weight.mT).sum(-1, keepdim=True) + bias
