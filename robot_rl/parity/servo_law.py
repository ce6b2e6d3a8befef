"""One joint's mistakes by its servo's law alone: of its target, or of its position?

The law is linear in all that may be wrong with it, s target = a (q + kd dq / kp) + g τ / kp - c: a target scaled by s
and moved by c, a position (and with it a velocity) read 1 / a times too large, and an effort of which no more is known
than that g is about 1. What is right has a narrow prior, what is wrong none, and all hypotheses are held against the
same rows: the load moves with the true position, which tells a scale of the one from a scale of the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_rl.parity.causes import Cause, Tolerance, price

Array = NDArray[np.float64]

_TARGET, _POSITION, _OFFSET, _EFFORT = range(4)
_PRIOR = np.array([1e-3, 1e-3, 0.01, 0.1])
"""Standard deviations of s, a, c (rad) and g of a sound joint: encoders and motors are not exact."""
_ANYTHING = 1e3
_SMOOTH_ROWS = 5
_FREED = {"scale": _TARGET, "offset": _OFFSET}


@dataclass(frozen=True)
class Law:
    """Second moments of the terms target, -(q + kd dq / kp), 1 and -τ / kp, in units of the noise of their sum."""

    moments: Array
    """(4, 4) summed over rows."""
    rows: float
    """How many independent ones are as good as these."""

    @staticmethod
    def of(terms: Array, noise: Array, precision: Array) -> Law:
        """From terms (4, T), white noise (T,) of the position's term, and the `precision` (T,) of each row's sum: 1 /
        variance, less where rows are not independent. Noise of what is fitted would make every factor of it too small:
        rows are means of several, and what is left of it is subtracted (Fuller 1987)."""
        window = np.ones(min(_SMOOTH_ROWS, len(precision)))
        total = np.stack([np.convolve(precision * term, window, "same") for term in terms])
        means = total / np.maximum(np.convolve(precision, window, "same"), 1e-300)
        moments = (means * precision) @ means.T
        moments[_POSITION, _POSITION] -= min(precision @ noise**2 / len(window), 0.9 * moments[_POSITION, _POSITION])
        return Law(moments, float(precision.sum() ** 2 / max((precision**2).sum(), 1e-12)))

    @staticmethod
    def joined(laws: Sequence[Law]) -> Law:
        return Law(np.sum([law.moments for law in laws], 0), sum(law.rows for law in laws))

    def fit(self, free: Sequence[int], sign: float) -> Fit:
        """With those of (s, a, c, g) `free` that are wrong, s being about `sign`."""
        usual = np.array([sign, 1.0, 0.0, 1.0])
        width = np.where(np.isin(range(4), free), _ANYTHING, _PRIOR)
        change = np.linalg.solve(self.moments + np.diag(width**-2.0), -self.moments @ usual)
        values: Array = np.asarray(usual + change, np.float64)
        left = max(float(values @ self.moments @ values) / max(self.rows, 1.0), 0.0)
        unlikely = float((((values - usual) / width) ** 2).sum())
        return Fit(self.rows * math.log1p(left) + unlikely, left, values)


@dataclass(frozen=True)
class Fit:
    cost: float
    """-2 log likelihood."""
    left: float
    """Mean square of what is not explained, where that of noise is at most 1."""
    values: Array
    """(s, a, c, g)"""


def cheapest(i: int, own: list[Cause], law: Law, tolerance: Tolerance, doubt: float) -> list[Cause]:
    """What is wrong with joint `i`: `own`, the mistakes of its target as compared with all others, or its position."""
    kinds = {cause.kind for cause in own}
    candidates = [["scale"], ["offset"]] if "unclear" in kinds else [sorted(kinds)]
    sign = -1.0 if "sign" in kinds else 1.0
    by_target = []
    for candidate in candidates:
        freed = [_FREED[kind] for kind in candidate if kind in _FREED]
        costs = price(Cause(kind, "target") for kind in candidate)
        by_target.append(law.fit(freed, sign).cost + costs)
    position = law.fit([_POSITION], 1.0)
    factor = 1.0 / position.values[_POSITION] if position.values[_POSITION] > 0.1 else 1.0
    gain = min(by_target) - position.cost - price([Cause("scale", "joints")])
    if abs(math.log(factor)) < math.log(tolerance.factor) or gain < -doubt:
        return own
    if not own and (gain < doubt or position.left > 1):
        return []
    if gain < doubt and candidates != [["scale"]]:
        return [Cause("unclear", "target", (i,))]
    return [Cause("scale", "joints", (i,), float(factor))]
