"""One signal against the one that it should equal, channel by channel: what simple mistakes explain the difference.

Of n channels, x_i is compared with a z_j(t - lag) + c for every source j. From means and second moments follow the
squared errors of all hypotheses at once: identity (j = i, a = 1, c = 0), sign (a = -1), scale (c = 0), offset
(a = 1), and each of them with another source, in every unit that the signal may come in. A hypothesis costs
N log(error) plus a price for every mistake that it makes, so that the simplest one that explains the data wins; which
channel takes which source is an assignment problem, since no two channels have the same source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_rl.parity.assignment import assign, cycles
from robot_rl.parity.causes import PRICE, Cause, Tolerance, price
from robot_rl.parity.fits import Fits
from robot_rl.parity.pair import Pair

Array = NDArray[np.float64]

_LAG_GAIN = 0.05
"""Least fall of the log squared error of every channel, for a lag to be one: a slow ramp fits at any."""
_LEAST_MOVING = 10
"""Rows in which something must move fast for a lag to be looked for."""
LATE = 0.75
"""Share of a control period from which a lag is a mistake, and not a latency that any robot has."""
_MOST = 20.0
"""Largest factor of a scale, and of a whole signal the inverse of the least: what is further off comes in another unit,
or is not explained by a factor. One channel alone may be as good as dead."""
_HYPOTHESES = (
    ((), 0.0), (("sign",), 1.0), (("offset",), 1.5), (("scale",), 1.5), (("sign", "offset"), 2.5),
    (("scale", "offset"), 3.0),
)  # fmt: skip
"""(mistakes, price) about x_i = a z_j + c."""


@dataclass(frozen=True)
class Comparison:
    """What was found in one signal."""

    causes: tuple[Cause, ...]
    cost: float
    """N log(squared error, in units of what is noise) of all channels, and the price of the causes."""
    error: Array
    """(n,) rms difference as recorded."""
    residual: Array
    """(n,) rms difference once the causes are mended: noise and model error."""
    judged: NDArray[np.bool_]
    """(n,) channels that moved enough for a sign or a scale to be seen."""
    lag_s: float
    """At which they were compared: that of a mistake, or of an ordinary latency."""


def compare(
    signal: str, pair: Pair, tolerance: Tolerance, *, period_s: float, lags: Sequence[float] = (0.0,), doubt: float = 0
) -> Comparison:
    """What makes x of z. `lags` are shares of `period_s`.

    Where two different mistakes of one channel cost the same, up to `doubt`, it is called unclear.
    """
    lag = _lag(pair, tolerance, period_s, lags)
    late = () if abs(lag) < LATE else (Cause("lag", signal, value=lag * period_s),)
    nominal = Fits.of(pair, min(lags, key=abs) * period_s, 1.0, tolerance)
    found = _explained(signal, pair, lag * period_s, 1.0, tolerance, doubt)
    if found.differs:
        others = [_explained(signal, pair, lag * period_s, unit, tolerance, doubt) for unit in tolerance.units]
        # A unit makes other mistakes superfluous; one that needs more of them makes a wrong model fit.
        simpler = [other for other in others if len(other.causes) - 1 <= len(found.causes)]
        if len(scales := [cause.value for cause in found.causes if cause.kind == "scale"]) > 1:
            factor = float(np.median(scales))
            whole = _explained(signal, pair, lag * period_s, factor, tolerance, doubt)
            plausible = len(whole.causes) < len(found.causes) and 1 / _MOST < factor < _MOST
            simpler += [whole] if plausible else []
        found = min([found, *simpler], key=lambda explanation: explanation.cost)
    return Comparison(
        causes=(*late, *found.causes),
        cost=found.cost + price(late),
        error=np.sqrt(np.diagonal(nominal.squared_error(1.0, 0.0))),
        residual=found.residual,
        judged=found.judged,
        lag_s=lag * period_s,
    )


def _lag(pair: Pair, tolerance: Tolerance, period_s: float, lags: Sequence[float]) -> float:
    """The lag of `lags` at which most is explained; a whole period is a mistake, and must explain much more."""
    moving = pair.where_moving()
    if moving.rows < _LEAST_MOVING:
        moving, lags = pair, [lag for lag in lags if abs(lag) < LATE]
    left = {lag: Fits.of(moving, lag * period_s, 1.0, tolerance).pooled for lag in lags}
    best, usual = min(left, key=left.__getitem__), min((k for k in lags if abs(k) < LATE), key=left.__getitem__)
    gain = left[usual] - left[best]
    return best if gain > max(PRICE, _LAG_GAIN * moving.samples * pair.x.shape[-1]) else usual


@dataclass(frozen=True)
class _Explanation:
    """What makes x of z if it comes in a certain unit."""

    causes: tuple[Cause, ...]
    cost: float
    residual: Array
    judged: NDArray[np.bool_]
    differs: bool
    """By more than is tolerated, whether or not `causes` explain it."""


def _explained(signal: str, pair: Pair, lag_s: float, unit: float, tolerance: Tolerance, doubt: float) -> _Explanation:
    fits = Fits.of(pair, lag_s, unit, tolerance)
    wrong = _wrong(fits, tolerance)
    found, source, factor, offset = _explain(signal, fits, tolerance, wrong, doubt)
    whole = Cause("unit" if unit in tolerance.units else "scale", signal, value=unit)
    separate = found if unit == 1.0 else [whole, *found]
    cost, error = fits.left_over(source, factor, offset)
    # Once mended: what is scaled down comes with small errors, which grow as it is scaled up again.
    residual = error if pair.before_x or not found else error / np.maximum(np.abs(factor), 1e-6)
    return _Explanation(tuple(separate), cost + price(separate), residual, fits.excited, bool(wrong.any()))


def _wrong(fits: Fits, limit: Tolerance) -> NDArray[np.bool_]:
    """(n,) channels that differ by more than is tolerated."""
    a = fits.slope
    off = (np.abs(a - 1) > 4 * fits.slope_error) & (_far(a, limit) | (a < 0))
    moved = np.abs(fits.x - fits.z) > limit.offset + 4 * fits.mean_error
    # Another channel explains this one far better; or it is far away in rows that say nothing of a and c.
    own = fits.squared_error(1.0, 0.0)
    better = own > 4 * fits.free_error.min(0) + (2 * fits.noise) ** 2
    return np.diagonal(off | moved | better) | (np.sqrt(np.diagonal(own)) > 2 * np.hypot(limit.offset, fits.noise))


def _far(factor: Array, limit: Tolerance) -> NDArray[np.bool_]:
    return np.abs(np.log(np.maximum(np.abs(factor), 1e-9))) > math.log(limit.factor)


def _explain(
    signal: str, fits: Fits, limit: Tolerance, wrong: NDArray[np.bool_], doubt: float
) -> tuple[list[Cause], NDArray[np.int64], Array, Array]:
    """The cheapest mistakes, and by them the source of each channel, its factor, and its offset; all (n,).

    Where nothing is wrong, factor and offset are what fits best: differences that are tolerated.
    """
    n = len(fits.x)
    a, through, mean = fits.slope, fits.through, fits.x - fits.z
    # What is tolerated is fitted, unless so few rows are free of bounds that it fits the others worse.
    fitted = np.diagonal(fits.squared_error(a, fits.x - a * fits.z) < fits.squared_error(1.0, 0.0))
    source = np.arange(n)
    factor, offset = np.where(fitted, np.diagonal(a), 1.0), np.where(fitted, np.diagonal(fits.x - a * fits.z), 0.0)
    if not wrong.any():
        return [], source, factor, offset
    factors = (1.0, -1.0, 1.0, through, -1.0, a)
    offsets = (0.0, 0.0, mean, 0.0, fits.x + fits.z, fits.x - a * fits.z)
    slack = (limit.offset / 3) ** 2 + fits.noise**2
    errors = np.stack([fits.squared_error(f, c) for f, c in zip(factors, offsets, strict=True)])
    samples = fits.samples if fits.bounds is None else fits.pair.samples
    costs = samples * np.log(errors + slack) + PRICE * np.array([h[1] for h in _HYPOTHESES])[:, None, None]
    # A scale or offset within the tolerance is none.
    costs[2][np.abs(mean) < limit.offset] = np.inf
    costs[3][~_far(through, limit) & (through > 0)] = np.inf
    costs[3][through < 0] += PRICE
    costs[5][~_far(a, limit) & (a > 0)] = np.inf
    costs[3][np.abs(through) > _MOST] = np.inf
    costs[5][np.abs(a) > _MOST] = np.inf
    chosen = costs.argmin(0)
    total = costs.min(0) + 0.5 * PRICE * ~np.eye(n, dtype=bool)
    channels = _closed(total, wrong)
    source[channels] = channels[assign(total[np.ix_(channels, channels)].T)]
    change, wider = _wider(total, source)
    while change < 0:
        source = wider
        change, wider = _wider(total, source)
    channels = np.union1d(channels, np.flatnonzero(source != np.arange(n)))
    causes = []
    unclear = change < doubt
    for cycle in cycles(wider if unclear else source):
        taken = tuple(source[cycle].tolist())
        causes.append(
            Cause("unclear", signal, tuple(cycle))
            if unclear and (source[cycle] != wider[cycle]).any()
            else Cause("permutation", signal, tuple(cycle), sources=taken)
        )
    for i, j in zip(channels.tolist(), source[channels].tolist(), strict=True):
        best = int(chosen[j, i])
        kinds, f, c = _HYPOTHESES[best][0], *(np.broadcast_to(v[best], (n, n))[j, i] for v in (factors, offsets))
        factor[i], offset[i] = f, c
        if len(kinds) == 1 and np.partition(costs[1:, j, i], 1)[1] - costs[best, j, i] < doubt:
            causes.append(Cause("unclear", signal, (i,)))
            continue
        if "scale" in kinds and f < 0:
            kinds = ("sign", *kinds)
        causes += [Cause(k, signal, (i,), {"scale": abs(float(f)), "offset": float(c)}.get(k, 0.0)) for k in kinds]
    return causes, source, factor, offset


def _wider(cost: Array, source: NDArray[np.int64]) -> tuple[float, NDArray[np.int64]]:
    """The cheapest assignment with one more channel, right as it seems, in a cycle; and what it costs more.

    Where channel i takes s, it takes k instead, and k takes s.
    """
    own = np.arange(len(source))
    struck, right = np.flatnonzero(source != own), np.flatnonzero(source == own)
    if not len(struck) or not len(right):
        return np.inf, source
    taken, wider = source[struck], source.copy()
    change = cost[np.ix_(right, struck)].T - cost[taken, struck][:, None]
    change += cost[np.ix_(taken, right)] - cost[right, right]
    i, k = np.unravel_index(change.argmin(), change.shape)
    wider[struck[i]], wider[right[k]] = right[k], taken[i]
    return float(change[i, k]), wider


def _closed(cost: Array, wrong: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Channels that are wrong, and those whose value stands in one of them, though they seem right."""
    members = wrong.copy()
    while True:
        best = cost.argmin(0)
        inside = np.where(members[:, None], cost, np.inf).min(0)
        missing = members & (cost.min(0) + PRICE < inside)
        if not missing.any():
            return np.flatnonzero(members)
        members[best[missing]] = True
