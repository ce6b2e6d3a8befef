"""Multi-layer perceptron: the body of every actor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

Activation = Literal["relu", "elu", "silu", "gelu", "tanh"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


def mlp(in_dim: int, hidden: Sequence[int], out_dim: int, activation: Activation = "relu") -> nn.Sequential:
    """(n, in_dim) -> (n, out_dim): linear layers with an activation after each but the last."""
    sizes = (in_dim, *hidden)
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], out_dim))
