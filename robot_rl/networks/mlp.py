"""Multi-layer perceptrons of one shape, evaluated together and differentiated by hand: the body of actors and critics.

For networks of this size autograd costs about as much as the arithmetic. `gradient` and `then_gradient` go back through
a `run` without it, and compute only what is asked for: in an actor loss no gradients of critics' weights, and nowhere
those of observations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
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


class Layer(nn.Module):
    """One linear layer of n networks, started as nn.Linear is, and its layer normalisation, where there is one."""

    def __init__(self, n: int, in_dim: int, out_dim: int, layer_norm: bool = False) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_dim)
        self.weight = nn.Parameter(torch.empty(n, in_dim, out_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n, 1, out_dim).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.ones(n, 1, out_dim)) if layer_norm else None
        self.shift = nn.Parameter(torch.zeros(n, 1, out_dim)) if layer_norm else None


class MLPStack(nn.Module):
    """n networks of one shape: linear layers with an activation after each but the last, and optionally a layer
    normalisation before each activation. `parameters()` yields them layer by layer."""

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
        layers = (Layer(n, i, o, layer_norm and depth < len(hidden)) for depth, (i, o) in enumerate(pairwise(sizes)))
        self.layers = cast(Sequence[Layer], nn.ModuleList(layers))

    def by_head(self, share: Tensor) -> Tensor:
        """A parameter of the last layer of n networks as that of n * heads networks, each with one head."""
        return share.unflatten(-1, (self.heads, -1)).movedim(-2, 1).flatten(0, 1)

    def join_heads(self, share: Tensor) -> Tensor:
        """Undo `by_head`."""
        return share.unflatten(0, (self.n, self.heads)).movedim(1, -2).flatten(-2)

    def forward(self, x: Tensor, then: Tensor | None = None) -> Tensor:
        """x (batch, in_dim) -> (n, batch, out_dim), in the precision of the parameters. `then` (batch, k) follows x as
        the last k inputs."""
        return self.run(x, then, dtype=x.dtype)[0]

    def run(
        self,
        x: Tensor,
        then: Tensor | None = None,
        members: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tape]:
        """`forward`, and what `gradient` and `then_gradient` need to go back, with the hidden layers in `dtype`.

        With `members` (k,), only those networks are evaluated: (k, batch, out_dim), and there is no way back.
        """
        x = x if then is None else torch.cat((x, then), dim=-1)
        function, _, keeps_output = _RULES[self.activation]
        own, dtype = x.dtype, dtype or self.dtype or x.dtype
        *hidden, last = self.layers

        def of(parameter: Tensor) -> Tensor:
            return parameter if members is None else parameter[members]

        h = x.to(dtype).expand(self.n if members is None else len(members), -1, -1)
        inputs, kept, norms = [h], [], []
        for layer in hidden:
            z = torch.bmm(h, of(layer.weight).to(dtype)).add_(of(layer.bias).to(dtype))
            if layer.scale is not None and layer.shift is not None:
                z = z.to(own)
                normed, mean, rstd = _aten.native_layer_norm(z, z.shape[-1:], None, None, EPSILON)
                norms += [z, normed, mean, rstd]
                z = torch.addcmul(of(layer.shift), normed, of(layer.scale)).to(dtype)
            h = function(z)
            inputs.append(h)
            kept.append(h if keeps_output else z)
        weight, bias = self.by_head(of(last.weight)), self.by_head(of(last.bias))
        h = inputs[-1] = h.to(own).reshape(len(weight), -1, h.shape[-1])
        # A product and a sum are several times faster than a batched matrix product with one column.
        out = bias + ((h * weight.mT).sum(-1, keepdim=True) if weight.shape[-1] == 1 else torch.bmm(h, weight))
        return out.view(-1, len(x), out.shape[-1]), (*inputs, *kept, *norms)

    def gradient(self, tape: Tape, gradient: Tensor) -> list[Tensor]:
        """Of the parameters, in their order, from that of the output (n, batch, out_dim) of the `run`."""
        return self._back(tape, gradient, True)[0]

    def then_gradient(self, tape: Tape, gradient: Tensor, then_dim: int) -> Tensor:
        """Of the last `then_dim` inputs (batch, then_dim), summed over the networks."""
        _, g, weight = self._back(tape, gradient, False)
        return torch.bmm(g, weight[:, -then_dim:].mT).to(gradient.dtype).view(self.n, -1, then_dim).sum(0)

    def _back(self, tape: Tape, gradient: Tensor, parameters: bool) -> tuple[list[Tensor], Tensor, Tensor]:
        """Gradients of the parameters, if wanted, that of the first layer's product, and the weight in that product."""
        own, dtype, depths = gradient.dtype, tape[0].dtype, len(self.layers)
        inputs, kept, norms = tape[:depths], tape[depths : 2 * depths - 1], tape[2 * depths - 1 :]
        derivative = _RULES[self.activation][1]
        gradients: list[Tensor] = []
        weight = self.by_head(self.layers[-1].weight)
        g = gradient.reshape(len(weight), -1, gradient.shape[-1])
        for depth in range(depths - 1, -1, -1):
            if parameters:
                # Compiled, sums down columns are several times slower than a product with ones, and a product with one
                # column than the same transposed.
                h, ones = inputs[depth].to(g.dtype), g.new_ones(g.shape[0], 1, g.shape[1])
                product = torch.bmm(g.mT, h).mT if g.shape[-1] == 1 else torch.bmm(h.mT, g)
                of_layer = (product.to(own), torch.bmm(ones, g).to(own))
                gradients[:0] = map(self.join_heads, of_layer) if depth == depths - 1 else of_layer
            if depth == 0:
                break
            g = g * weight.mT if weight.shape[-1] == 1 else torch.bmm(g, weight.mT)
            g = derivative(g.to(dtype).view_as(kept[depth - 1]), kept[depth - 1])
            weight, scale = self.layers[depth - 1].weight.to(dtype), self.layers[depth - 1].scale
            if scale is not None:
                z, normed, mean, rstd = norms[4 * (depth - 1) : 4 * depth]
                g = g.to(own)
                if parameters:
                    gradients[:0] = ((g * normed).sum(1, keepdim=True), g.sum(1, keepdim=True))
                g = _aten.native_layer_norm_backward(
                    g * scale, z, z.shape[-1:], mean, rstd, None, None, [True, False, False]
                )[0].to(dtype)
        return gradients, g, weight

    def sequential(self, index: int, outputs: slice = slice(None)) -> nn.Sequential:
        """One of the networks, cut down to some of its outputs, as ordinary layers with copies of the weights."""
        modules: list[nn.Module] = []
        for layer in self.layers:
            columns = outputs if layer is self.layers[-1] else slice(None)
            weight, bias = layer.weight.detach()[index, :, columns], layer.bias.detach()[index, 0, columns]
            linear = nn.Linear(weight.shape[0], weight.shape[1], device=weight.device, dtype=weight.dtype)
            linear.load_state_dict({"weight": weight.T, "bias": bias})
            modules.append(linear)
            if layer.scale is not None and layer.shift is not None:
                norm = nn.LayerNorm(weight.shape[1], EPSILON, device=weight.device, dtype=weight.dtype)
                norm.load_state_dict({"weight": layer.scale[index, 0], "bias": layer.shift[index, 0]})
                modules.append(norm)
            modules.append(ACTIVATIONS[self.activation]())
        return nn.Sequential(*modules[:-1])
