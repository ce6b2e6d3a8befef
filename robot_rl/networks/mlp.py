"""Multi-layer perceptrons of one shape, evaluated together and differentiated by hand: the body of actors and critics.

For networks of this size autograd costs about as much as the arithmetic. Here a whole stack is one node of its graph:
gradients are written straight into one flat vector, and those that nobody asks for (of the weights in an actor loss, of
the observations in any loss) are never computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

EPSILON = 1e-5
"""Of the layer normalisation."""

_aten = torch.ops.aten
# (function, derivative (gradient, saved) -> gradient, whether "saved" is the output; the function then overwrites).
_RULES: dict[Activation, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor], bool]] = {
    "relu": (torch.relu_, lambda g, h: _aten.threshold_backward(g, h, 0), True),
    "elu": (lambda z: F.elu(z, inplace=True), lambda g, h: _aten.elu_backward(g, 1, 1, 1, True, h), True),
    "silu": (F.silu, _aten.silu_backward, False),
    "gelu": (F.gelu, _aten.gelu_backward, False),
    "tanh": (torch.tanh_, _aten.tanh_backward, True),
}


Tape = tuple[Tensor, ...]
"""Inputs of all layers, what the activations' derivatives need, and the parts of the layer normalisations."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Views of one layer's parameters, or of their gradients, for n networks."""

    weight: Tensor
    """(n, in, out)."""
    bias: Tensor
    """(n, 1, out)."""
    scale: Tensor | None = None
    """(n, 1, out) of the layer normalisation, where there is one."""
    shift: Tensor | None = None

    def select(self, members: Tensor) -> Layer:
        """Copies of the parameters of some of the networks (k,)."""
        scale, shift = (None if part is None else part[members] for part in (self.scale, self.shift))
        return Layer(self.weight[members], self.bias[members], scale, shift)


class MLPStack(nn.Module):
    """n networks of one shape: linear layers with an activation after each but the last, and optionally a layer
    normalisation before each activation.

    All parameters are one vector, `flat`, so that an optimiser's step and a Polyak average are one operation each.
    """

    def __init__(
        self,
        n: int,
        in_dim: int,
        hidden: Sequence[int],
        out_dim: int,
        activation: Activation = "relu",
        layer_norm: bool = False,
        dtype: torch.dtype | None = None,
        heads: int = 1,
    ) -> None:
        """`dtype` is that of the hidden layers' products in `run` and its gradients, if not that of the parameters. The
        last layer (values of hundreds need more digits than bfloat16 has), normalisations and `forward` keep to it.

        With several heads, a batch is as many blocks of rows, and block i gets the i-th share of the outputs alone:
        wherever outputs are said to be (n, batch, out_dim), they are (n, batch, out_dim / heads).
        """
        super().__init__()
        self.n, self.heads = n, heads
        self.activation: Activation = activation
        self.dtype = dtype
        sizes = (in_dim, *hidden, out_dim)
        self.shapes: list[tuple[tuple[int, ...], ...]] = []
        for depth, (i, o) in enumerate(pairwise(sizes)):
            norm = ((n, 1, o), (n, 1, o)) if layer_norm and depth < len(hidden) else ()
            self.shapes.append(((n, i, o), (n, 1, o), *norm))
        self._sizes = [math.prod(shape) for shapes in self.shapes for shape in shapes]
        self.flat = nn.Parameter(torch.empty(sum(self._sizes)))
        with torch.no_grad():
            for layer in self.layers(self.flat):
                bound = 1 / math.sqrt(layer.weight.shape[1])  # as nn.Linear does
                layer.weight.uniform_(-bound, bound)
                layer.bias.uniform_(-bound, bound)
                if layer.scale is not None and layer.shift is not None:
                    layer.scale.fill_(1.0)
                    layer.shift.zero_()

    def layers(self, flat: Tensor) -> list[Layer]:
        """Views of a vector laid out as `flat`."""
        parts = iter(flat.split(self._sizes))
        return [Layer(*(next(parts).view(shape) for shape in shapes)) for shapes in self.shapes]

    def by_head(self, last: Layer) -> Layer:
        """The last layer of n networks as that of n * heads networks, each with one head."""
        shares = (part.unflatten(-1, (self.heads, -1)).movedim(-2, 1) for part in (last.weight, last.bias))
        return Layer(*(share.flatten(0, 1) for share in shares))

    def join_heads(self, share: Tensor) -> Tensor:
        """Undo `by_head` for a parameter's gradient."""
        return share.unflatten(0, (self.n, self.heads)).movedim(1, -2).flatten(-2)

    def forward(self, x: Tensor, then: Tensor | None = None, frozen: bool = False) -> Tensor:
        """x (batch, in_dim) -> (n, batch, out_dim). Gradients flow to the parameters unless `frozen`, and never to x.

        `then` (batch, k) follows x as the last k inputs; gradients flow to it.
        """
        flat = self.flat.detach() if frozen else self.flat
        if torch.is_grad_enabled():
            return _Forward.apply(flat, x, then, self)
        return self.run(x, then, flat, dtype=flat.dtype)[0]

    def run(
        self,
        x: Tensor,
        then: Tensor | None = None,
        flat: Tensor | None = None,
        members: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tape]:
        """`forward` outside of autograd: the output, and what `gradient` and `then_gradient` need to go back.

        With `members` (k,), only those networks are evaluated: (k, batch, out_dim), and there is no way back.
        """
        x = x if then is None else torch.cat((x, then), dim=-1)
        function, _, keeps_output = _RULES[self.activation]
        flat = self.flat.detach() if flat is None else flat
        dtype = dtype or self.dtype or flat.dtype
        hidden, last = self.layers(flat.to(dtype))[:-1], self.layers(flat)[-1]
        if members is not None:
            *hidden, last = (layer.select(members) for layer in (*hidden, last))
        h = x.to(dtype).expand(len(last.weight), -1, -1)
        inputs, kept, norms = [h], [], []
        for layer in hidden:
            z = torch.bmm(h, layer.weight).add_(layer.bias)
            if layer.scale is not None and layer.shift is not None:
                z = z.to(flat.dtype)
                normed, mean, rstd = _aten.native_layer_norm(z, z.shape[-1:], None, None, EPSILON)
                norms += [z, normed, mean, rstd]
                z = torch.addcmul(layer.shift, normed, layer.scale).to(dtype)
            h = function(z)
            inputs.append(h)
            kept.append(h if keeps_output else z)
        last = self.by_head(last)
        h = inputs[-1] = h.to(flat.dtype).reshape(len(last.weight), -1, h.shape[-1])
        if last.weight.shape[-1] == 1:
            # A product and a sum are several times faster than a batched matrix product with one column.
            out = (h * last.weight.mT).sum(-1, keepdim=True) + last.bias
        else:
            out = torch.baddbmm(last.bias, h, last.weight)
        return out.view(-1, len(x), out.shape[-1]), (*inputs, *kept, *norms)

    def gradient(self, tape: Tape, gradient: Tensor) -> Tensor:
        """Of the parameters, laid out as `flat`, from that of the output (n, batch, out_dim) of the `run`."""
        flat_gradient = _backward(self, self.flat.detach(), tape, gradient, True, 0)[0]
        assert flat_gradient is not None
        return flat_gradient

    def then_gradient(self, tape: Tape, gradient: Tensor, then_dim: int) -> Tensor:
        """Of the last `then_dim` inputs (batch, then_dim), summed over the networks."""
        then = _backward(self, self.flat.detach(), tape, gradient, False, then_dim)[1]
        assert then is not None
        return then

    def sequential(self, index: int, outputs: slice = slice(None)) -> nn.Sequential:
        """One of the networks, cut down to some of its outputs, as ordinary layers with copies of the weights."""
        modules: list[nn.Module] = []
        layers = self.layers(self.flat.detach())
        for depth, layer in enumerate(layers):
            columns = outputs if depth == len(layers) - 1 else slice(None)
            weight, bias = layer.weight[index, :, columns], layer.bias[index, 0, columns]
            linear = nn.Linear(weight.shape[0], weight.shape[1], device=weight.device, dtype=weight.dtype)
            linear.load_state_dict({"weight": weight.T, "bias": bias})
            modules.append(linear)
            if layer.scale is not None and layer.shift is not None:
                norm = nn.LayerNorm(weight.shape[1], EPSILON, device=weight.device, dtype=weight.dtype)
                norm.load_state_dict({"weight": layer.scale[index, 0], "bias": layer.shift[index, 0]})
                modules.append(norm)
            modules.append(ACTIVATIONS[self.activation]())
        return nn.Sequential(*modules[:-1])


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, x: Tensor, then: Tensor | None, stack: MLPStack) -> Tensor:
        out, tape = stack.run(x, then, flat, dtype=flat.dtype)
        ctx.save_for_backward(flat, *tape)
        ctx.stack, ctx.then_dim = stack, 0 if then is None else then.shape[-1]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:  # type: ignore[override]
        flat, *tape = ctx.saved_tensors
        then_dim = ctx.then_dim if ctx.needs_input_grad[2] else 0
        flat_gradient, then_gradient = _backward(ctx.stack, flat, tape, gradient, ctx.needs_input_grad[0], then_dim)
        return flat_gradient, None, then_gradient, None


def _backward(
    stack: MLPStack, flat: Tensor, tape: Sequence[Tensor], gradient: Tensor, parameters: bool, then_dim: int
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the parameters, if wanted, and of the last `then_dim` inputs, summed over the networks."""
    dtype = tape[0].dtype
    layers = [*stack.layers(flat.to(dtype))[:-1], stack.by_head(stack.layers(flat)[-1])]
    depths = len(layers)
    inputs, kept, norms = tape[:depths], tape[depths : 2 * depths - 1], tape[2 * depths - 1 :]
    derivative = _RULES[stack.activation][1]
    gradients: list[Tensor] = []
    g = gradient.reshape(len(layers[-1].weight), -1, gradient.shape[-1])
    for depth in range(depths - 1, -1, -1):
        if parameters:
            # Sums over the batch, as a product with ones: compiled, a sum down columns is several times slower.
            ones = g.new_ones(g.shape[0], 1, g.shape[1])
            own = (torch.bmm(inputs[depth].mT.to(g.dtype), g), torch.bmm(ones, g))
            gradients[:0] = map(stack.join_heads, own) if depth == depths - 1 else own
        if depth == 0:
            break
        weight = layers[depth].weight
        g = g * weight.mT if weight.shape[-1] == 1 else torch.bmm(g, weight.mT)
        g = derivative(g.to(dtype).view_as(kept[depth - 1]), kept[depth - 1])
        scale = layers[depth - 1].scale
        if scale is not None:
            z, normed, mean, rstd = norms[4 * (depth - 1) : 4 * depth]
            g = g.to(flat.dtype)
            if parameters:
                gradients[:0] = ((g * normed).sum(1), g.sum(1))
            g = _aten.native_layer_norm_backward(
                g * scale, z, z.shape[-1:], mean, rstd, None, None, [True, False, False]
            )[0].to(dtype)
    flat_gradient = torch.cat([part.reshape(-1).to(flat.dtype) for part in gradients]) if parameters else None
    if not then_dim:
        return flat_gradient, None
    then_gradient = torch.bmm(g, layers[0].weight[:, -then_dim:].mT).to(flat.dtype)
    return flat_gradient, then_gradient.view(stack.n, -1, then_dim).sum(0)
