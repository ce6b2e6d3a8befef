"""One signal against the one that it should equal, channel by channel: what simple mistakes explain the difference.

Of n channels, x_i is compared with a z_j(t - lag) + c for every source j. From means and second moments follow the
squared errors of all hypotheses at once: identity (j = i, a = 1, c = 0), sign (a = -1), scale (c = 0), offset
(a = 1), and each of them with another source. A hypothesis costs N log(error) plus a price for every mistake that it
makes, so that the simplest one that explains the data wins; which channel takes which source is an assignment problem,
since no two channels have the same source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ANGLES = {
    180 / math.pi: "degrees for radians",
    math.pi / 180: "radians for degrees",
    1 / (2 * math.pi): "turns for radians",
    2 * math.pi: "radians for turns",
    1e3: "milliradians for radians",
    1e-3: "radians for milliradians",
}
RATES = ANGLES | {60 / (2 * math.pi): "rpm for rad/s", 2 * math.pi / 60: "rad/s for rpm"}
ACCELERATIONS = {1 / 9.80665: "g for m/s²", 9.80665: "m/s² for g", 1e3: "mm/s² for m/s²", 1000 / 9.80665: "mg for m/s²"}
ALL_UNITS = RATES | ACCELERATIONS
"""Factor by which a value comes out too large -> what was given for what was asked for."""
UNIT_TOLERANCE = 0.12
"""Of a factor, against that of a unit."""
PRICE = 12.0
"""Of each mistake, in units of N log(squared error): odds of exp(6) against it before the data speak."""
_MANY = 0.15
"""Share of channels that must have moved for a unit to be seen."""
_LAG_GAIN = 0.05
"""Least fall of the log squared error of every channel, for a lag to be one: a slow ramp fits at any."""
_LEAST_MOVING = 10
"""Rows in which something must move fast for a lag to be looked for."""
LATE = 0.75
"""Share of a control period from which a lag is a mistake, and not a latency that any robot has."""


@dataclass(frozen=True)
class Tolerance:
    """Of one signal: what a good robot's model error and calibration make of it; differences below are no mistakes."""

    factor: float
    """Largest ratio of a scale to 1."""
    offset: float
    """In the signal's unit."""
    floor: float
    """Standard deviation below which an error is nothing, in the signal's unit."""
    units: Mapping[float, str]
    """Those it may come in by mistake, of ALL_UNITS."""


@dataclass(frozen=True)
class Cause:
    """One mistake: `signal` is what `kind` makes of it, in `channels` (empty: in all)."""

    kind: str
    """permutation, sign, scale, offset, unit, lag, quaternion_order, quaternion_conjugate or frame; or "limits", where
    joints are said to be where they cannot be, and nothing tells why."""
    signal: str
    channels: tuple[int, ...] = ()
    value: float = 0.0
    """Factor of a scale or unit, offset, or lag in s."""
    sources: tuple[int, ...] = ()
    """Of a permutation: the channel whose value stands in each of `channels`."""


@dataclass(frozen=True)
class Comparison:
    """What was found in one signal."""

    causes: tuple[Cause, ...]
    cost: float
    """N log(squared error) of all channels, and the price of the causes."""
    error: Array
    """(n,) rms difference as recorded."""
    residual: Array
    """(n,) rms difference once the causes are mended: noise and model error."""
    judged: NDArray[np.bool_]
    """(n,) channels that moved enough for a sign or a scale to be seen."""


@dataclass(frozen=True)
class Pair:
    """x (n, T, n) or (T, n), which should equal z (T, n). x[j, :, i] is channel i as source j would have it."""

    x: Array
    z_at: Callable[[float], Array]
    """z, a lag in s ago."""
    usable: NDArray[np.bool_] | None = None
    """(T, n) where x is what it seems, and not at its bounds; None: everywhere."""
    low: Array | None = None
    high: Array | None = None
    """As x: where it ends, whatever z is. None: nowhere."""
    moving: NDArray[np.bool_] | None = None
    """(T,) rows in which z changes so fast that a lag shows; None: all."""

    def where_moving(self) -> Pair:
        if self.moving is None:
            return self
        rows, z_at = np.flatnonzero(self.moving), self.z_at
        usable = None if self.usable is None else self.usable[rows]
        return Pair(self.x[..., rows, :], lambda lag_s: z_at(lag_s)[rows], usable)


def compare(
    signal: str,
    pair: Pair,
    tolerance: Tolerance,
    *,
    samples: float,
    period_s: float,
    lags: Sequence[float] = (0.0,),
) -> Comparison:
    """What makes x of z. `samples`: how many of the T rows are independent. `lags` are shares of `period_s`."""
    moving = pair.where_moving()
    share = 1.0 if pair.moving is None else float(pair.moving.mean())
    if share * len(pair.z_at(0.0)) < _LEAST_MOVING:
        lags = tuple(lag for lag in lags if abs(lag) < LATE)
        moving, share = pair, 1.0
    least = samples * share
    pooled = {lag: _Fits.of(moving, lag * period_s, 1.0, tolerance, least).pooled for lag in lags}
    best, usual = min(lags, key=pooled.__getitem__), min((k for k in lags if abs(k) < LATE), key=pooled.__getitem__)
    causes: list[Cause] = []
    if abs(best) >= LATE and pooled[usual] - pooled[best] > max(PRICE, _LAG_GAIN * least * pair.x.shape[-1]):
        causes.append(Cause("lag", signal, value=best * period_s))
        usual = best
    nominal = _Fits.of(pair, min(lags, key=abs) * period_s, 1.0, tolerance, samples)
    error = np.sqrt(np.diagonal(nominal.squared_error(1.0, 0.0)))
    best_fit = _explained(signal, pair, usual * period_s, 1.0, tolerance, samples)
    if unit := best_fit.fit.common_unit():
        best_fit = _explained(signal, pair, usual * period_s, unit, tolerance, samples)
    elif pair.low is not None and any(cause.kind in ("scale", "offset") for cause in best_fit.causes):
        # Where most channels are at their bounds, too few tell of a unit by themselves; all together may.
        others = [_explained(signal, pair, usual * period_s, u, tolerance, samples) for u in tolerance.units]
        whole = [other for other in others if not any(cause.kind == "scale" for cause in other.causes)]
        best_fit = min([best_fit, *whole], key=lambda e: e.cost)
    causes += best_fit.causes
    cost, residual, fit = best_fit.cost + PRICE * (len(causes) - len(best_fit.causes)), best_fit.residual, best_fit.fit
    return Comparison(tuple(causes), cost, error, residual, fit.excited)


@dataclass(frozen=True)
class _Explanation:
    """What makes x of z if it comes in a certain unit."""

    causes: tuple[Cause, ...]
    cost: float
    residual: Array
    fit: _Fits


def _explained(
    signal: str, pair: Pair, lag_s: float, unit: float, tolerance: Tolerance, samples: float
) -> _Explanation:
    fit = _Fits.of(pair, lag_s, unit, tolerance, samples)
    found, residual = fit.explain(signal)
    causes = tuple(found) if unit == 1.0 else (Cause("unit", signal, value=unit), *found)
    # Errors count as they were recorded: divided by a large unit, all would be small.
    cost = samples * float(np.log((unit * residual) ** 2 + tolerance.floor**2).sum()) + PRICE * len(causes)
    return _Explanation(causes, cost, residual, fit)


@dataclass(frozen=True)
class _Fits:
    """Moments over time of x[j, i] and z[j], where they are usable; arrays are (j, i)."""

    rows: tuple[Array, Array]
    """x (n, T, n) and z (T, n)."""
    bounds: tuple[Array, Array] | None
    x: Array
    z: Array
    xx: Array
    zz: Array
    xz: Array
    tolerance: Tolerance
    samples: Array
    """(i,) independent rows among the usable ones."""
    all_samples: float

    @classmethod
    def of(cls, pair: Pair, lag_s: float, unit: float, tolerance: Tolerance, samples: float) -> _Fits:
        z = pair.z_at(lag_s)
        rows, n = z.shape
        x = np.broadcast_to((pair.x if pair.x.ndim == 3 else pair.x[None]) / unit, (n, rows, n))
        weight = np.ones((rows, n)) if pair.usable is None else pair.usable.astype(float)
        share = weight.mean(0)
        weight = weight / np.maximum(weight.sum(0), 1.0)
        bounds = None if pair.low is None or pair.high is None else (pair.low / unit, pair.high / unit)
        return cls(
            (x, z), bounds, np.einsum("jti,ti->ji", x, weight), z.T @ weight, np.einsum("jti,jti,ti->ji", x, x, weight),
            (z * z).T @ weight, np.einsum("jti,tj,ti->ji", x, z, weight), tolerance, np.maximum(samples * share, 1.0),
            samples,
        )  # fmt: skip

    @property
    def var_z(self) -> Array:
        return np.maximum(self.zz - self.z**2, 1e-18)

    @property
    def slope(self) -> Array:
        return (self.xz - self.x * self.z) / self.var_z

    @property
    def through(self) -> Array:
        """The best a where c is 0."""
        return self.xz / np.maximum(self.zz, 1e-18)

    @property
    def free_error(self) -> Array:
        """Squared error of the best a and c."""
        return np.maximum(self.xx - self.x**2 - self.slope**2 * self.var_z, 0.0)

    def squared_error(self, a: Array | float, c: Array | float) -> Array:
        """Mean squared difference of x_i and a z_j + c, over the usable rows, or over all where bounds are known."""
        if self.bounds is None:
            error = self.xx + a**2 * self.zz + c**2 - 2 * a * self.xz - 2 * c * self.x + 2 * a * c * self.z
            return np.maximum(error, 0.0)
        x, z = self.rows
        n = len(x)
        a, c = np.broadcast_to(a, (n, n)), np.broadcast_to(c, (n, n))
        predicted = np.clip(a[:, None, :] * z.T[:, :, None] + c[:, None, :], *self.bounds)
        return ((x - predicted) ** 2).mean(1)

    @property
    def pooled(self) -> float:
        return float((self.samples * np.log(self.free_error.min(0) + self.tolerance.floor**2)).sum())

    @property
    def slope_error(self) -> Array:
        """Standard error of the slope."""
        return np.sqrt((self.free_error + self.tolerance.floor**2) / (self.samples * self.var_z))

    @property
    def excited(self) -> NDArray[np.bool_]:
        return np.diagonal(self.slope_error) < 0.25

    def common_unit(self) -> float:
        """Factor of a unit by which most channels are too large; 0 if there is none."""
        through = self.through
        source = self.squared_error(through, 0.0).argmin(0)
        channels = np.arange(len(source))
        ratio = np.abs(through[source, channels])
        noise = self.free_error[source, channels] + self.tolerance.floor**2
        error = np.sqrt(noise / (self.samples * np.maximum(self.zz[source, channels], 1e-18)))
        usable = error < 0.1 * np.maximum(ratio, 0.3)
        if usable.sum() < max(1.0, _MANY * len(usable)):
            return 0.0
        ratio, error = ratio[usable], error[usable]
        # What comes thousands of times too small is next to nothing beside the noise, which many channels even out.
        slack = 3 * float(np.median(error)) / math.sqrt(len(ratio))
        away = {
            unit: abs(float(np.median(ratio)) - unit) / (UNIT_TOLERANCE * unit + slack) for unit in self.tolerance.units
        }
        unit = min(away, key=lambda u: away[u])
        near = np.abs(ratio - unit) < 0.3 * unit + 3 * error
        return unit if away[unit] < 1 and near.mean() > 0.6 else 0.0

    def explain(self, signal: str) -> tuple[list[Cause], Array]:
        """The cheapest mistakes, and the rms error (n,) that they leave."""
        n = len(self.x)
        limit = self.tolerance
        a, through, mean = self.slope, self.through, self.x - self.z
        off = np.abs(a - 1) > 4 * self.slope_error
        mean_error = np.sqrt((self.free_error + limit.floor**2) / self.samples)
        moved = np.abs(mean) > limit.offset + 4 * mean_error
        # Another channel explains this one far better; or it is far away in rows that say nothing of a and c.
        better = self.squared_error(1.0, 0.0) > 4 * self.free_error.min(0) + (2 * limit.floor) ** 2
        residual = np.sqrt(np.diagonal(self.squared_error(1.0, 0.0)))
        wrong = np.diagonal(off & (self._far(a) | (a < 0)) | moved | better) | (residual > 2 * limit.offset)
        if not wrong.any():
            return [], np.sqrt(np.diagonal(self.free_error))
        # (mistakes, price, their factor, their offset) of each hypothesis about x_i = a z_j + c. A number that may be
        # anything explains more than a sign, and must pay for it.
        hypotheses = [
            ((), 0.0, 1.0, 0.0), (("sign",), 1.0, -1.0, 0.0), (("offset",), 1.5, 1.0, mean),
            (("scale",), 1.5, through, 0.0), (("sign", "offset"), 2.5, -1.0, self.x + self.z),
            (("scale", "offset"), 3.0, a, self.x - a * self.z),
        ]  # fmt: skip
        slack = (limit.offset / 3) ** 2 + limit.floor**2
        errors = [self.squared_error(factor, offset) for _, _, factor, offset in hypotheses]
        samples = self.samples if self.bounds is None else self.all_samples
        costs = np.stack([samples * np.log(e + slack) + PRICE * h[1] for e, h in zip(errors, hypotheses, strict=True)])
        # A scale or offset within the tolerance is none.
        costs[2][np.abs(mean) < limit.offset] = np.inf
        costs[3][~self._far(through) & (through > 0)] = np.inf
        costs[3][through < 0] += PRICE
        costs[5][~self._far(a) & (a > 0)] = np.inf
        chosen = costs.argmin(0)
        price = costs.min(0) + 0.5 * PRICE * ~np.eye(n, dtype=bool)
        channels = _closed(price, wrong)
        sources = channels[assign(price[np.ix_(channels, channels)].T)]
        causes: list[Cause] = []
        if (channels != sources).any():
            other = channels != sources
            causes.append(
                Cause("permutation", signal, tuple(channels[other].tolist()), sources=tuple(sources[other].tolist()))
            )
        for i, j in zip(channels.tolist(), sources.tolist(), strict=True):
            kinds, _, factor, offset = hypotheses[chosen[j, i]]
            factor, offset = (float(v[j, i]) if isinstance(v, np.ndarray) else v for v in (factor, offset))
            # Once mended: what is scaled down comes with small errors, which grow as it is scaled up again.
            residual[i] = math.sqrt(errors[chosen[j, i]][j, i]) / max(abs(factor), 1e-6)
            if "scale" in kinds and factor < 0:
                kinds, factor = ("sign", *kinds), -factor
            causes += [Cause(k, signal, (i,), {"scale": factor, "offset": offset}.get(k, 0.0)) for k in kinds]
        return _joined(causes, signal, n), residual

    def _far(self, factor: Array) -> NDArray[np.bool_]:
        return np.abs(np.log(np.maximum(np.abs(factor), 1e-9))) > math.log(self.tolerance.factor)


def _joined(causes: list[Cause], signal: str, n: int) -> list[Cause]:
    """One scale of the whole signal for as good as the same scale of each of its channels."""
    scales = [cause for cause in causes if cause.kind == "scale"]
    values = np.array([cause.value for cause in scales])
    if len(scales) < max(n, 3) or np.abs(np.log(values / np.median(values))).max() > math.log(1.35):
        return causes
    rest = [cause for cause in causes if cause.kind != "scale"]
    return [*rest, Cause("scale", signal, value=float(np.median(values)))]


def _closed(price: Array, wrong: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Channels that are wrong, and those whose value stands in one of them, though they seem right."""
    members = wrong.copy()
    while True:
        best = price.argmin(0)
        inside = np.where(members[:, None], price, np.inf).min(0)
        missing = members & (price.min(0) + PRICE < inside)
        if not missing.any():
            return np.flatnonzero(members)
        members[best[missing]] = True


def assign(cost: Array) -> NDArray[np.int64]:
    """Column of each row (n,) of a square cost matrix so that the sum is least.

    Shortest augmenting paths with potentials (Kuhn 1955, Munkres 1957), O(n³).
    """
    n = len(cost)
    u, v = np.zeros(n + 1), np.zeros(n + 1)
    row_of = np.zeros(n + 1, np.int64)
    for row in range(1, n + 1):
        row_of[0], column = row, 0
        least, came, done = np.full(n + 1, np.inf), np.zeros(n + 1, np.int64), np.zeros(n + 1, bool)
        while row_of[column]:
            done[column] = True
            i = row_of[column]
            reduced = cost[i - 1] - u[i] - v[1:]
            better = ~done[1:] & (reduced < least[1:])
            least[1:][better], came[1:][better] = reduced[better], column
            following = 1 + int(np.where(done[1:], np.inf, least[1:]).argmin())
            step = least[following]
            u[row_of[done]] += step
            v[done] -= step
            least[~done] -= step
            column = following
        while column:
            row_of[column] = row_of[came[column]]
            column = came[column]
    result = np.empty(n, np.int64)
    result[row_of[1:] - 1] = np.arange(n)
    return result
