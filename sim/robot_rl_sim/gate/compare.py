"""How far two rollouts from the same starts are apart, quantity by quantity, and whether chance explains it.

Episodes are pairs: world i of both rollouts starts from the same state, with the same dynamics and command. Steps of
one episode hang together, so the unit of every test is the episode, and a difference counts only if a paired test
rejects chance at FAMILY_ERROR, divided by how many tests there are (Bonferroni).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.contract import Contract
from robot_rl_sim.gate.rollout import Rollout, frame_terms

FAMILY_ERROR = 0.01
"""Chance that any test of a whole gate errs."""
QUANTILES = torch.arange(0.05, 0.96, 0.05, dtype=torch.float64)
"""Where distributions are compared."""
OBS_FLOOR = 0.01
"""An observation is of order one; one that varies less than this is held against this instead of its own spread."""
INPUT_FLOOR = 1e-3
"""The same for a measurement, as a share of its physical range."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a variant may be from the reference. None: reported, and not judged.

    The defaults lie between what sound policies show and what faults do. Under half the time step, three integrators,
    two solvers and both cones, reaching with the LEAP hand shows at most 0.05 in `shift` and `spread` and 0.02 in
    `distribution`, balancing the Unitree G1 0.22 in `spread`. In `replay`, turning a cube in that hand shows at most
    0.1, balancing 0.34; a velocity of opposite sign shows 1.3 to 4, of twice its size 0.65 to 2, two joints exchanged
    0.8 or more. Servos with half their gain show 0.5 in `shift` and `spread` and 0.26 in `distribution`; with four
    times their damping 1 in `shift`.
    """

    success_loss: float | None = 0.05
    """Share of episodes."""
    return_loss: float | None = 0.05
    """Share of what the policy gains over the action zero."""
    shift: float | None = 0.25
    """Of an observation's mean, in standard deviations of the reference."""
    spread: float | None = 0.25
    """|log| of the ratio of standard deviations: 0.25 is a fifth less or a quarter more."""
    distribution: float | None = 0.1
    """Largest difference of the two distribution functions (Kolmogorov-Smirnov), at the reference's 5 % quantiles."""
    replay: float | None = 0.5
    """Median difference of a measurement under the same actions, in standard deviations of the reference. The median,
    because a wrong sensor is wrong in every world, while contacts that come a moment later change some of them much."""
    diverged: int | None = 0
    """Worlds whose physics fails."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One compared quantity."""

    quantity: str
    """A field of Tolerance."""
    term: str
    """Observation term or measured input; "" for what is of the whole episode."""
    value: float
    """The largest over the term's columns of those that chance does not explain; 0 if it explains all."""
    tolerance: float | None

    @property
    def excess(self) -> float:
        """Value over tolerance; above 1 fails."""
        if self.tolerance is None or not self.value > 0:
            return 0.0
        return self.value / self.tolerance if self.tolerance > 0 else math.inf


def compare(
    contract: Contract,
    reference: Rollout,
    variant: Rollout,
    replayed: tuple[dict[str, Tensor], Tensor],
    gain: float,
    tolerance: Tolerance,
    variants: int,
) -> list[Measure]:
    """All measures of one variant out of `variants`. `replayed` is what `replay` gave there; `gain` what the policy
    returns more than the action zero, in the reference."""
    lost = reference.success.int() - variant.success.int()
    fewer = reference.returns - variant.returns
    alpha = FAMILY_ERROR / variants
    success_loss = lost.double().mean().item() if sign_p(lost) < alpha else 0.0
    return_loss = fewer.mean().item() / gain if float(paired_p(fewer)) < alpha else 0.0
    measures = [
        Measure("diverged", "", float(variant.diverged), tolerance.diverged),
        Measure("success_loss", "", success_loss, tolerance.success_loss),
        Measure("return_loss", "", return_loss, tolerance.return_loss),
    ]
    for name, value in replay_error(contract, reference, *replayed).items():
        measures.append(Measure("replay", name, value, tolerance.replay))
    shift, spread, distribution = observation_differences(reference, variant, alpha)
    for name, columns in frame_terms(contract):
        measures += [
            Measure("shift", name, float(shift[columns].max()), tolerance.shift),
            Measure("spread", name, float(spread[columns].max()), tolerance.spread),
            Measure("distribution", name, float(distribution[columns].max()), tolerance.distribution),
        ]
    return measures


def observation_differences(reference: Rollout, variant: Rollout, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """|shift| in standard deviations, |log ratio of standard deviations| and largest difference of the distribution
    functions: (frame_dim,) each, 0 where chance explains it."""
    columns = reference.obs.shape[-1]
    alpha = alpha / (columns * (2 + len(QUANTILES)))
    mean_r, mean_v = episode_means(reference.obs, reference), episode_means(variant.obs, variant)
    centre = mean_r.mean(0)
    square_r = episode_means((reference.obs - centre) ** 2, reference)
    square_v = episode_means((variant.obs - mean_v.mean(0)) ** 2, variant)
    std_r, std_v = (s.mean(0).sqrt().clamp(min=OBS_FLOOR) for s in (square_r, square_v))
    shift = (mean_v - mean_r).mean(0).abs() / std_r * (paired_p(mean_v - mean_r) < alpha)
    spread = (std_v / std_r).log().abs() * (paired_p(square_v - square_r) < alpha)

    distribution = torch.zeros(columns, dtype=torch.float64)
    # Within the floor, values are equal: of a constant, rounding would decide which side of a quantile it is on.
    levels = torch.quantile(_sample(reference), QUANTILES, dim=0)
    for level in levels:
        below_r = episode_means((reference.obs <= level + OBS_FLOOR / 2).double(), reference)
        below_v = episode_means((variant.obs <= level + OBS_FLOOR / 2).double(), variant)
        difference = (below_v - below_r).mean(0).abs() * (paired_p(below_v - below_r) < alpha)
        distribution = torch.maximum(distribution, difference)
    return shift, spread, distribution


def replay_error(contract: Contract, reference: Rollout, inputs: dict[str, Tensor], valid: Tensor) -> dict[str, float]:
    """Input name -> largest over its columns of the median difference, in the reference's deviations."""
    valid = valid & reference.valid[: len(valid)]
    errors = {}
    for spec in contract.inputs:
        if spec.source != "state":
            continue
        expected, found = reference.first_inputs[spec.name][valid].double(), inputs[spec.name][valid].double()
        floor = INPUT_FLOOR * (spec.high - spec.low if spec.high is not None and spec.low is not None else 1.0)
        scale = expected.std(0, correction=0).clamp(min=floor)
        errors[spec.name] = float(((found - expected).abs().median(0).values / scale).max())
    return errors


def episode_means(values: Tensor, rollout: Rollout) -> Tensor:
    """Mean (n, d) over each episode's steps of values (t, n, d)."""
    valid = rollout.valid.unsqueeze(-1)
    return torch.where(valid, values.double(), 0.0).sum(0) / rollout.lengths.unsqueeze(-1)


def paired_p(difference: Tensor) -> Tensor:
    """Two-sided p of mean 0, by the normal approximation, of differences (n, ...) -> (...)."""
    n = len(difference)
    mean, std = difference.mean(0), difference.std(0)
    z = torch.where(mean == 0, 0.0, mean.abs() / (std / math.sqrt(n)))
    return torch.erfc(z / math.sqrt(2))


def sign_p(lost: Tensor) -> float:
    """Two-sided p (exact sign test, McNemar 1947) that wins and losses (n,) in {-1, 0, 1} are as likely."""
    wins, losses = int((lost < 0).sum()), int((lost > 0).sum())
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n
    return min(1.0, 2 * tail)


def _sample(rollout: Rollout) -> Tensor:
    """At most some 20,000 rows (k, frame_dim) of what was observed, evenly spread."""
    rows = rollout.obs[rollout.valid].double()
    return rows[:: max(1, len(rows) // 20_000)]
