"""Which channel takes which source: no two the same one, and all together as cheaply as possible."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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


def cycles(source: NDArray[np.int64]) -> list[list[int]]:
    """Channels of each cycle of a permutation, sorted; those that stay where they are in none."""
    found: list[list[int]] = []
    left = set(np.flatnonzero(source != np.arange(len(source))).tolist())
    while left:
        cycle = [min(left)]
        while (following := int(source[cycle[-1]])) != cycle[0]:
            cycle.append(following)
        left -= set(cycle)
        found.append(sorted(cycle))
    return found
