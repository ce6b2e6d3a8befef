"""One picture of a report: returns, lengths, returns in order, states, dimensions, actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display is needed, and none is opened

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from robot_rl.data.dataset import Dataset
from robot_rl.data.report import Report, effective_number

INK, SOFT, GRID, BLUE, ORANGE = "#1b1f24", "#5b6570", "#e4e8ec", "#2864c7", "#d9822b"
_STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.edgecolor": SOFT, "axes.labelcolor": INK, "axes.grid": True,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.axisbelow": True, "grid.color": GRID, "xtick.color": SOFT, "ytick.color": SOFT,
    "legend.frameon": False, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.titlepad": 20,
}  # fmt: skip
_POINTS = 6_000
"""States that are drawn, evenly spread over the rows."""
_DIMENSIONS = 6
"""Actions that are drawn as lines; more become an image."""


def plot_report(dataset: Dataset, report: Report, title: str, path: Path) -> None:
    """Write the picture; the suffix of `path` decides its format."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(2, 3, figsize=(13.5, 7.4), layout="constrained")
        try:
            figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12)
            _returns(axes[0, 0], report)
            _lengths(axes[0, 1], report)
            _order(axes[0, 2], report)
            _states(axes[1, 0], report)
            _variance(axes[1, 1], report)
            _actions(axes[1, 2], dataset.transitions.action.numpy())
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=130)
        finally:
            plt.close(figure)


def _returns(axes: Axes, report: Report) -> None:
    returns = report.episode_return[np.isfinite(report.episode_return)]
    axes.set_title("episode return")
    _whole_numbers(axes)
    if not len(returns):
        _unknown(axes)
        return
    axes.hist(returns, bins=_bins(returns), color=BLUE, alpha=0.85)
    for value, label, style in ((returns.mean(), "mean", "-"), (np.quantile(returns, 0.9), "best tenth from", "--")):
        axes.axvline(value, color=ORANGE, linestyle=style, linewidth=1.5, label=f"{label} {value:.4g}")
    axes.set_ylabel("episodes")
    _legend_above(axes)


def _lengths(axes: Axes, report: Report) -> None:
    length, terminated = report.episode_length, report.terminated
    parts = [(length[terminated], "terminated", ORANGE), (length[~terminated], "truncated or cut", BLUE)]
    shown = [part for part in parts if len(part[0])]
    axes.hist(
        [values for values, _, _ in shown], bins=_bins(length), stacked=True, alpha=0.85,
        color=[colour for _, _, colour in shown], label=[f"{name}: {len(values)}" for values, name, _ in shown],
    )  # fmt: skip
    axes.set(title="episode length", xlabel="steps", ylabel="episodes")
    _whole_numbers(axes)
    _legend_above(axes)


def _order(axes: Axes, report: Report) -> None:
    """A replay of a learner shows its progress here, files that were put together their seams."""
    axes.set(title="return in the order of the file", xlabel="episode")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if not np.isfinite(report.episode_return).any():
        _unknown(axes)
        return
    n = len(report.episode_return)
    axes.plot(report.episode_return, ".", color=BLUE, markersize=4 if n < 500 else 2, alpha=0.6, label="each episode")
    if n >= 20:
        window = max(5, n // 20)
        smooth = np.convolve(report.episode_return, np.ones(window) / window, "valid")
        at = np.arange(len(smooth)) + (window - 1) / 2
        axes.plot(at, smooth, color=ORANGE, linewidth=1.8, label=f"mean of {window}")
        _legend_above(axes)


def _states(axes: Axes, report: Report) -> None:
    shown = np.linspace(0, len(report.components) - 1, min(_POINTS, len(report.components))).astype(int)
    first, second = report.components[shown].T
    share = [f"{100 * s:.0f} %" for s in np.pad(report.variance_share, (0, 2))[:2]]
    colour = report.episode_return[report.episode_of_row[shown]]
    if np.isfinite(colour).any():
        # A few extreme episodes must not leave the others all one colour.
        low, high = np.nanquantile(colour, (0.02, 0.98))
        points = axes.scatter(first, second, c=colour, s=4, cmap="viridis", vmin=low, vmax=high, linewidths=0)
        bar = axes.figure.colorbar(points, ax=axes, extend="both", label="return of the episode")
        bar.outline.set_visible(False)  # type: ignore[operator]
    else:
        axes.scatter(first, second, color=BLUE, s=4, alpha=0.4, linewidths=0)
    axes.set(
        title="states on their first two components", xlabel=f"1st: {share[0]} of the variance",
        ylabel=f"2nd: {share[1]}",
    )  # fmt: skip


def _variance(axes: Axes, report: Report) -> None:
    shares = report.variance_share
    axes.set(title="directions in which states vary", xlabel="principal components", ylabel="share of the variance")
    if not len(shares):
        axes.text(0.5, 0.5, "all states are equal", ha="center", va="center", transform=axes.transAxes, color=SOFT)
        return
    count = np.arange(1, len(shares) + 1)
    axes.bar(count, shares, color=BLUE, alpha=0.85, label="each")
    axes.plot(count, shares.cumsum(), color=ORANGE, marker="o", markersize=3, linewidth=1.5, label="together")
    axes.axvline(effective_number(shares), color=SOFT, linestyle="--", linewidth=1,
                 label=f"effective rank {effective_number(shares):.3g}")  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.05)
    _legend_above(axes)


def _actions(axes: Axes, action: NDArray[np.float32]) -> None:
    """How often each action has each value. Beyond a few dimensions, as an image: one row each."""
    edges = np.linspace(-1, 1, 42)
    density = np.stack([np.histogram(a[np.isfinite(a)], edges, density=True)[0] for a in action.T])
    axes.set(title="actions", xlabel="action, -1 to 1")
    if len(density) <= _DIMENSIONS:
        # Outlines, because filled ones hide one another.
        for i, row in enumerate(density):
            axes.stairs(row, edges, linewidth=1.6, color=plt.get_cmap("tab10")(i), label=f"action {i}")
        axes.set_ylabel("density")
        _legend_above(axes)
        return
    axes.grid(False)
    # The bins at the limits may hold many times what others do; the others must still differ in colour.
    top = max(float(np.quantile(density, 0.98)), 1e-6)
    image = axes.imshow(
        density,
        aspect="auto",
        origin="lower",
        extent=(-1, 1, -0.5, len(density) - 0.5),
        cmap="viridis",
        vmin=0,
        vmax=top,
    )
    axes.set_ylabel("dimension")
    bar = axes.figure.colorbar(image, ax=axes, extend="max", label="density")
    bar.outline.set_visible(False)  # type: ignore[operator]


def _bins(values: NDArray[np.float64]) -> list[float]:
    """At most 40; where all values are equal, one that leaves room beside it."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9 * max(1.0, abs(low)):
        room = 0.1 * max(1.0, abs(low))
        return np.linspace(low - room, high + room, 12).tolist()
    return np.linspace(low, high, min(40, max(8, int(np.sqrt(len(values)) * 2))) + 1).tolist()


def _whole_numbers(axes: Axes) -> None:
    """Episodes are counted."""
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))


def _legend_above(axes: Axes) -> None:
    """Outside of the data, in one row between it and the title."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=3, fontsize=8, handlelength=1.2, columnspacing=1.0
    )


def _unknown(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[], xlabel="")
    axes.text(0.5, 0.5, "reward not recorded", ha="center", va="center", transform=axes.transAxes, color=SOFT)
