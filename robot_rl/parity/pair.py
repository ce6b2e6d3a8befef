"""Two signals that should be equal, and what is known of how well each row tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """x (n, T, n) or (T, n), which should equal z (T, n). x[j, :, i] is channel i as source j would have it."""

    x: Array
    z_at: Callable[[float], Array]
    """z, a lag in s ago."""
    samples: float
    """How many of the T rows are independent."""
    weight: Array | None = None
    """(T, n) of each row's squared error, at most 1, where that of the tolerance's floor has 1; None: 1 everywhere."""
    free: NDArray[np.bool_] | None = None
    """(T, n) where x is what it seems, and not at its bounds; None: everywhere."""
    low: Array | None = None
    high: Array | None = None
    """As x: where it ends, whatever z is. None: nowhere."""
    moving: NDArray[np.bool_] | None = None
    """(T,) rows in which z changes so fast that a lag shows; None: all."""
    before_x: bool = False
    """A mistake strikes z, and x with its noise and its bounds is what comes of it; else it strikes x as it is read."""

    of: tuple[Pair, ...] = ()
    """Those that it was joined from, one after the other."""

    @property
    def rows(self) -> int:
        return self.x.shape[-2]

    def where_moving(self) -> Pair:
        """Only those rows, for lags: nothing there may depend on bounds."""
        if self.moving is None:
            return self
        rows, z_at = np.flatnonzero(self.moving), self.z_at
        return Pair(
            self.x[..., rows, :],
            lambda lag_s: z_at(lag_s)[rows],
            self.samples * float(self.moving.mean()),
            weight=None if self.weight is None else self.weight[rows],
            free=None if self.free is None else self.free[rows],
            before_x=self.before_x,
        )


def joined(pairs: Sequence[Pair]) -> Pair:
    """The rows of several pairs of the same signals, one after the other."""
    if len(pairs) == 1:
        return pairs[0]

    def rows(name: str, axis: int) -> Any:
        parts = [getattr(pair, name) for pair in pairs]
        return None if parts[0] is None else np.concatenate(parts, axis)

    x = rows("x", -2)
    return Pair(
        x, lambda lag_s: np.concatenate([pair.z_at(lag_s) for pair in pairs]), sum(pair.samples for pair in pairs),
        rows("weight", 0), rows("free", 0), rows("low", -2), rows("high", -2), rows("moving", 0), pairs[0].before_x,
        tuple(pairs),
    )  # fmt: skip
