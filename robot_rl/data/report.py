"""What is in a dataset: how much, how it ends, what it returns, which states and actions it covers, what is wrong.

Each quantity is defined where it is computed. None of them alone says whether a dataset is good: a learner needs
coverage to know what not to do, and returns to know what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.data.dataset import Dataset

Array = NDArray[np.float64]
Value = float | int | str | bool | None
"""None: cannot be told from this dataset."""

SATURATED = 0.99
"""|action| from which it counts as at its limit."""
OUTLIER_IQR = 8.0
"""Interquartile ranges between the median and an outlier; of a normal distribution, one value in 10²⁶ is as far."""
GRID, GRID_STD = 20, 3.0
"""States are counted in GRID x GRID cells, over ± GRID_STD standard deviations of the first two components."""
MODIFIED = 1e-3
"""Difference between the executed and the proposed action from which a safety filter has changed it."""
LATE = 1.5
"""Median time steps from which there is a gap."""


@dataclass(frozen=True)
class Report:
    """Numbers by name, in the order of a table, and the arrays that a plot needs."""

    values: dict[str, Value]
    details: dict[str, Any]
    """Per-dimension lists and row numbers, for JSON."""
    episode_return: Array
    """(episodes,) undiscounted; NaN where a reward is."""
    episode_length: Array
    """(episodes,) steps."""
    terminated: NDArray[np.bool_]
    """(episodes,) whether the MDP ended it."""
    components: Array
    """(n, 2) states on their first two principal components, in standard deviations of each."""
    variance_share: Array
    """(dims,) share of the variance that each principal component has, descending."""
    episode_of_row: NDArray[np.int64]
    """(n,) index of the episode."""


def make_report(dataset: Dataset) -> Report:
    """Measure a dataset; it may hold values that are not finite."""
    batch, episodes = dataset.transitions, dataset.episodes()
    obs, action = batch.obs.numpy().astype(np.float64), batch.action.numpy().astype(np.float64)
    reward = batch.reward.numpy().astype(np.float64)
    last = np.array([rows.stop - 1 for rows in episodes])
    length = np.array([rows.stop - rows.start for rows in episodes], np.float64)
    episode_of_row = np.repeat(np.arange(len(episodes)), length.astype(int))
    returns = np.array([reward[rows].sum() for rows in episodes])
    terminated, truncated = batch.terminated.numpy()[last] > 0, batch.truncated.numpy()[last] > 0
    parts = [obs, action, batch.next_obs.numpy(), *([reward[:, None]] if dataset.reward_known else [])]
    finite = np.logical_and.reduce(np.isfinite(np.concatenate(parts, axis=1)), axis=1)
    components, shares = principal_components(obs[finite]) if finite.any() else (np.zeros((0, 2)), np.zeros(0))
    placed = np.full((len(obs), 2), np.nan)
    placed[finite] = components
    values: dict[str, Value] = {
        "episodes": len(episodes),
        "steps": len(dataset),
        "observations": obs.shape[1],
        "actions": action.shape[1],
        "end/terminated": int(terminated.sum()),
        "end/truncated": int(truncated.sum()),
        "end/cut without a flag": int((~terminated & ~truncated).sum()),
        **_distribution("length", length),
        **_returns(dataset, returns, last),
    }
    observation, observation_details = _observations(obs[finite], np.flatnonzero(finite))
    actions, action_details = _actions(dataset, action, episode_of_row)
    faults = _faults(dataset, np.asarray(finite), obs, action)
    values |= {**observation, **_coverage(components, shares), **actions, **faults}
    details = {
        **observation_details,
        **action_details,
        "not_finite_rows": np.flatnonzero(~finite)[:20].tolist(),
        "variance_share": shares.tolist(),
        "about": dict(dataset.about),
    }
    return Report(values, details, returns, length, terminated, placed, shares, episode_of_row)


def principal_components(obs: Array) -> tuple[Array, Array]:
    """((n, 2) states on the first two components, each divided by its standard deviation, and (dims,) shares of the
    variance) of observations whose every dimension was brought to mean 0 and variance 1; constant ones are left out."""
    spread = obs.std(0)
    varied = spread > 1e-6 * (1 + np.abs(obs).max(0))
    if not varied.any():
        return np.zeros((len(obs), 2)), np.zeros(0)
    unit = (obs[:, varied] - obs[:, varied].mean(0)) / spread[varied]
    variance, direction = np.linalg.eigh(unit.T @ unit / len(unit))
    variance, direction = np.maximum(variance[::-1], 0), direction[:, ::-1]
    first = unit @ direction[:, :2] / np.sqrt(np.maximum(variance[:2], 1e-12))
    return np.pad(first, ((0, 0), (0, 2 - first.shape[1]))), variance / variance.sum()


def effective_number(shares: Array) -> float:
    """exp of the entropy: n for n equal shares, 1 for a single one. Of variance shares, the effective rank
    (Roy and Vetterli, 2007)."""
    positive = shares[shares > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def _distribution(name: str, values: Array) -> dict[str, Value]:
    quantiles = np.quantile(values, (0, 0.1, 0.5, 0.9, 1)).tolist()
    names = ("min", "10 %", "median", "90 %", "max")
    return {f"{name}/mean": float(values.mean()), **{f"{name}/{n}": q for n, q in zip(names, quantiles, strict=True)}}


def _returns(dataset: Dataset, returns: Array, last: NDArray[np.int64]) -> dict[str, Value]:
    """Undiscounted returns. quality/upside is the deviation above the mean, sqrt(E[max(R - E[R], 0)²]): with little of
    it, no choice among the episodes is better than all of them (RPSV of Hong et al., 2023). quality/best tenth holds:
    of what the returns sum up to above the worst episode, the share of the best tenth of episodes; a tenth where all
    are alike, towards 1 where few hold everything."""
    values: dict[str, Value] = {}
    if dataset.success is not None:
        values["success"] = float(dataset.success.numpy()[last].mean())
    known = np.sort(returns[np.isfinite(returns)])
    if not len(known):
        return {"return/mean": None, **values}
    best = known[-max(1, len(known) // 10) :]
    above = known - known[0]
    values |= _distribution("return", known)
    values["return/std"] = float(known.std())
    values["quality/best tenth returns"] = float(best.mean())
    values["quality/best tenth holds"] = float((best - known[0]).sum() / above.sum()) if above.sum() > 0 else None
    values["quality/upside"] = float(np.sqrt((np.maximum(known - known.mean(), 0) ** 2).mean()))
    low, high = (dataset.about.get(f"ref_{end}_score") for end in ("min", "max"))
    if low is not None and high is not None:
        values["quality/normalised return"] = float((known.mean() - float(low)) / (float(high) - float(low)))
    return values


def _observations(obs: Array, row: NDArray[np.int64]) -> tuple[dict[str, Value], dict[str, Any]]:
    """Constant dimensions, and values so far out that they are more likely a fault than a state. `row`: where each
    observation stands in the file."""
    if not len(obs):
        return {"observation/constant": None, "observation/outliers": None}, {}
    low, high = obs.min(0), obs.max(0)
    lower, median, upper = np.quantile(obs, (0.25, 0.5, 0.75), axis=0)
    reach = OUTLIER_IQR * (upper - lower)
    # Where half of all values are equal, as with contacts, the rest is no outlier.
    outlying = (np.abs(obs - median) > reach) & (reach > 0)
    constant = np.flatnonzero(high == low).tolist()
    details = {
        "observation_min": low.tolist(), "observation_max": high.tolist(), "observation_median": median.tolist(),
        "observation_constant": constant, "observation_outliers": outlying.sum(0).tolist(),
        "observation_outlier_rows": row[outlying.any(1)][:20].tolist(),
    }  # fmt: skip
    return {"observation/constant": len(constant), "observation/outliers": int(outlying.sum())}, details


def _coverage(components: Array, shares: Array) -> dict[str, Value]:
    """coverage/effective rank: in how many independent directions states vary. coverage/cells: the share of the cells
    of the grid that were visited; effective cells: how many equally visited ones would be as spread."""
    cells = np.floor((components / GRID_STD + 1) / 2 * GRID).clip(0, GRID - 1).astype(int)
    count = np.bincount(cells[:, 0] * GRID + cells[:, 1], minlength=GRID * GRID)
    return {
        "coverage/effective rank": effective_number(shares) if len(shares) else 0.0,
        "coverage/first two components": float(shares[:2].sum()),
        "coverage/cells": float((count > 0).mean()),
        "coverage/effective cells": effective_number(count / max(count.sum(), 1)) if count.any() else 0.0,
    }


def _actions(
    dataset: Dataset, action: Array, episode_of_row: NDArray[np.int64]
) -> tuple[dict[str, Value], dict[str, Any]]:
    """action/change: mean |a(t+1) - a(t)| of a component inside an episode; noise that is uniform over [-1, 1] has 2/3.
    action/std: uniform noise has 0.577."""
    inside = np.diff(episode_of_row) == 0
    change = np.abs(np.diff(action, axis=0))[inside]
    at_limit = np.abs(action) > SATURATED
    values: dict[str, Value] = {
        "action/std": float(np.nanmean(np.nanstd(action, axis=0))),
        "action/at limit": float(at_limit.mean()),
        "action/change": float(np.nanmean(change)) if change.size else None,
    }
    if dataset.action_proposed is not None:
        changed = np.abs(action - dataset.action_proposed.numpy()) > MODIFIED
        values["action/changed by filter"] = float(changed.any(1).mean())
    details = {
        "action_mean": np.nanmean(action, 0).tolist(),
        "action_std": np.nanstd(action, 0).tolist(),
        "action_at_limit": at_limit.mean(0).tolist(),
    }
    return values, details


def _faults(dataset: Dataset, finite: NDArray[np.bool_], obs: Array, action: Array) -> dict[str, Value]:
    """Rows that are not finite, rows that are there twice (obs and action equal), and gaps inside episodes."""
    rows = np.ascontiguousarray(np.concatenate((obs, action), axis=1).astype(np.float32) + 0.0)  # -0 is 0
    unique = len(np.unique(rows.view(np.dtype((np.void, rows.strides[0]))).reshape(-1)))
    values: dict[str, Value] = {
        "fault/rows not finite": int((~finite).sum()),
        "fault/repeated rows": len(rows) - unique,
    }
    if dataset.time_s is not None:
        time_s = dataset.time_s.numpy()
        steps = np.concatenate([np.diff(time_s[rows]) for rows in dataset.episodes()])
        median = float(np.median(steps)) if len(steps) else 0.0
        values["time/step"] = median
        values["fault/gaps in time"] = int((steps > LATE * median).sum() + (steps <= 0).sum())
    return values
