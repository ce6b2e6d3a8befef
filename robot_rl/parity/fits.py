"""Errors of all hypotheses x_i = a z_j + c at once, from means and second moments over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_rl.parity.causes import Tolerance
from robot_rl.parity.pair import Pair

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fits:
    """Moments of x[j, i] and z[j] over the rows where x is free; arrays are (j, i)."""

    pair: Pair
    rows: tuple[Array, Array]
    """x (n, T, n) and z (T, n), in the contract's unit."""
    bounds: tuple[Array, Array] | None
    x: Array
    z: Array
    xx: Array
    zz: Array
    xz: Array
    samples: Array
    """(i,) independent rows among the free ones."""
    noise: Array
    """(i,) standard deviation of x that is nothing."""
    floor: float
    """The same, where a row's weight is 1."""
    recorded: float
    """By how much x was larger as it was recorded."""

    @classmethod
    def of(cls, pair: Pair, lag_s: float, unit: float, tolerance: Tolerance) -> Fits:
        """If x or, for mistakes before it, z comes in a wrong unit, larger by that factor."""
        z = pair.z_at(lag_s)
        rows, n = z.shape
        before, after = (unit, 1.0) if pair.before_x else (1.0, unit)
        z = z * before
        x = np.broadcast_to((pair.x if pair.x.ndim == 3 else pair.x[None]) / after, (n, rows, n))
        weight = np.ones((rows, n)) if pair.weight is None else pair.weight
        noise = tolerance.floor / np.sqrt(np.maximum(weight.mean(0), 1e-12))
        free = weight if pair.free is None else weight * pair.free
        samples = pair.samples * free.sum(0) ** 2 / np.maximum(rows * (free**2).sum(0), 1e-12)
        free = free / np.maximum(free.sum(0), 1e-12)
        bounds = None if pair.low is None or pair.high is None else (pair.low / after, pair.high / after)
        return cls(
            pair, (x, z), bounds, np.einsum("jti,ti->ji", x, free), z.T @ free, np.einsum("jti,jti,ti->ji", x, x, free),
            (z * z).T @ free, np.einsum("jti,tj,ti->ji", x, z, free), np.maximum(samples, 1.0), noise,
            tolerance.floor, after,
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

    @property
    def slope_error(self) -> Array:
        """Error of the slope: by noise of x, and because noise of a z that is measured as well makes it too small."""
        of_z = 0.0 if self.pair.before_x else self.floor**2 / self.var_z
        return np.sqrt((self.free_error + self.noise**2) / (self.samples * self.var_z) + of_z**2)

    @property
    def mean_error(self) -> Array:
        """Standard error of the mean of x."""
        return np.sqrt((self.free_error + self.noise**2) / self.samples)

    @property
    def excited(self) -> NDArray[np.bool_]:
        """(i,) channels that moved enough for a sign or a scale to be seen."""
        return np.diagonal(self.slope_error) < 0.25

    @property
    def pooled(self) -> float:
        """N log(squared error) of every channel's best source: what is left at this lag, whatever else is wrong."""
        return float((self.samples * np.log(self.free_error.min(0) + self.noise**2)).sum())

    def left_over(self, source: NDArray[np.int64], factor: Array, offset: Array) -> tuple[float, Array]:
        """N log(squared error, in units of what is noise) of all channels, and the rms error (n,) of each, if x_i is
        factor_i z_source_i + offset_i. What is no more than noise costs nothing; joined pairs count one by one, so that
        a long one in which little is to be seen does not drown a short one."""
        x, z = self.rows
        own = np.arange(len(factor))
        predicted = factor * z[:, source] + offset
        if self.bounds is not None:
            predicted = np.clip(predicted, *(bound[source, :, own].T for bound in self.bounds))
        squared = (x[source, :, own].T - predicted) ** 2
        trust = np.ones_like(squared) if self.pair.weight is None else self.pair.weight
        weight = trust if self.bounds is not None or self.pair.free is None else trust * self.pair.free
        cost, first = 0.0, 0
        for pair in self.pair.of or (self.pair,):
            rows = slice(first, first + pair.rows)
            first += pair.rows
            mean = (weight[rows] * squared[rows]).sum(0) / np.maximum(weight[rows].sum(0), 1e-12)
            ratio = mean * self.recorded**2 * trust[rows].mean(0) / self.floor**2
            cost += pair.samples * float(np.log(np.maximum((1 + ratio) / 2, 1.0)).sum())
        return cost, np.sqrt((weight * squared).sum(0) / np.maximum(weight.sum(0), 1e-12))

    def squared_error(self, a: Array | float, c: Array | float) -> Array:
        """Mean squared difference of x_i and a z_j + c, over the free rows, or over all where bounds are known."""
        if self.bounds is None:
            error = self.xx + a**2 * self.zz + c**2 - 2 * a * self.xz - 2 * c * self.x + 2 * a * c * self.z
            return np.maximum(error, 0.0)
        x, z = self.rows
        n = len(x)
        a, c = np.broadcast_to(a, (n, n)), np.broadcast_to(c, (n, n))
        difference = x - np.clip(a[:, None, :] * z.T[:, :, None] + c[:, None, :], *self.bounds)
        if self.pair.weight is None:
            return (difference**2).mean(1)
        return np.einsum("jti,ti->ji", difference**2, self.pair.weight / np.maximum(self.pair.weight.sum(0), 1e-12))
