"""Returns as probabilities of evenly spaced atoms (Bellemare et al. 2017, arXiv 1707.06887), and scalar targets as
histograms over them (HL-Gauss: Farebrother et al. 2024, arXiv 2403.03950).

A critic's outputs are logits (..., n_atoms). Both losses are cross-entropies, of which the gradient with respect to the
logits is softmax(logits) - target.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def support(low: float, high: float, n_atoms: int) -> Tensor:
    """The atoms (n_atoms,), both ends included."""
    return torch.linspace(low, high, n_atoms)


def project(probabilities: Tensor, atoms: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Probabilities (..., batch, n_atoms) on `atoms` of shift + scale Z, where Z has `probabilities`.

    Shift and scale are (batch,). Each moved atom is shared by its two neighbours in proportion to its distance; what
    leaves the support is put on its ends (Bellemare et al., algorithm 1).
    """
    step = atoms[1] - atoms[0]
    moved = (shift.unsqueeze(-1) + scale.unsqueeze(-1) * atoms).clamp(atoms[0], atoms[-1])
    position = ((moved - atoms[0]) / step).clamp(0, len(atoms) - 1)
    lower = position.floor()
    upper_share = (position - lower).expand_as(probabilities)
    below = lower.long().expand_as(probabilities)
    above = (below + 1).clamp(max=len(atoms) - 1)
    out = torch.zeros_like(probabilities)
    out = out.scatter_add(-1, below, probabilities * (1 - upper_share))
    return out.scatter_add(-1, above, probabilities * upper_share)


def histogram(target: Tensor, atoms: Tensor, sigma: float) -> Tensor:
    """HL-Gauss: probabilities (..., n_atoms) of bins centred on the atoms under a normal distribution around `target`
    (...), of deviation `sigma` and cut to the support."""
    step = atoms[1] - atoms[0]
    edges = torch.cat((atoms - step / 2, atoms[-1:] + step / 2))
    target = target.clamp(atoms[0], atoms[-1])
    cdf = torch.erf((edges - target.unsqueeze(-1)) / (math.sqrt(2) * sigma))
    return cdf.diff(dim=-1) / (cdf[..., -1:] - cdf[..., :1])


def expectation(logits: Tensor, atoms: Tensor) -> Tensor:
    """Mean (...) of the distribution."""
    return logits.softmax(-1) @ atoms


def expectation_gradient(logits: Tensor, atoms: Tensor, gradient: Tensor) -> Tensor:
    """Of the expectation with respect to the logits, times `gradient` (...)."""
    probabilities = logits.softmax(-1)
    mean = probabilities @ atoms
    return gradient.unsqueeze(-1) * probabilities * (atoms - mean.unsqueeze(-1))


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """-Σ target log softmax(logits), averaged over the batch with weights (batch,) or 1, summed over the critics."""
    each = -(target * logits.log_softmax(-1)).sum(-1)
    return (each if weight is None else weight * each).mean(-1).sum()


def cross_entropy_gradient(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Of cross_entropy with respect to the logits (n_critics, batch, n_atoms)."""
    difference = (logits.softmax(-1) - target) / logits.shape[-2]
    return difference if weight is None else weight.unsqueeze(-1) * difference
