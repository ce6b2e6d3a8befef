"""Exact confidence intervals for a share: Clopper and Pearson, Biometrika 26 (1934), 404-413."""

from __future__ import annotations

import math

CONFIDENCE = 0.95


def at_least(successes: int, trials: int, share: float) -> float:
    """P(X >= successes) of X ~ Binomial(trials, share)."""
    if successes <= 0:
        return 1.0
    if share <= 0.0 or share >= 1.0:
        return float(share >= 1.0)
    log_p, log_q = math.log(share), math.log1p(-share)
    choose = math.lgamma(trials + 1)
    terms = [
        math.exp(choose - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_p + (trials - k) * log_q)
        for k in range(successes, trials + 1)
    ]
    return min(1.0, math.fsum(terms))


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of all shares that `successes` in `trials` do not reject at (1 - confidence) / 2 on either side.

    It holds the true share at least as often as `confidence` says. No trials say nothing: (0, 1).
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be in [0, {trials}], got {successes}")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else _root(successes, trials, tail)
    high = 1.0 if successes == trials else _root(successes + 1, trials, 1.0 - tail)
    return low, high


def _root(successes: int, trials: int, probability: float) -> float:
    """The share at which `at_least`, which grows with it, is `probability`; by bisection to the last bits."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if at_least(successes, trials, middle) < probability else (low, middle)
    return (low + high) / 2.0
