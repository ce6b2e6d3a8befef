"""Plots of a training run: learning curve, success. Each takes arrays and returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from robot_rl.report.plots import BLUE, GREY, INK, ORANGE, SOFT, plt

Array = NDArray[np.float64]


def learning_curve(steps: Array, returns: Array, success: Array, wall_s: Array, target: float) -> Figure:
    """Evaluation success (left) and return (right) against environment steps; the top axis is wall-clock minutes."""
    plot, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
    for axes, values, label, colour in ((left, success, "success rate", BLUE), (right, returns, "return", ORANGE)):
        axes.plot(steps / 1000, values, color=colour, marker="o", markersize=3.5, linewidth=1.8)
        axes.set_xlabel("environment steps (thousands)")
        axes.set_title(label, loc="left", fontsize=11, color=INK)
        if len(steps) > 1:
            minutes = axes.secondary_xaxis(
                "top",
                functions=(
                    lambda x: np.interp(x, steps / 1000, wall_s / 60),
                    lambda m: np.interp(m, wall_s / 60, steps / 1000),
                ),
            )
            # Outside of what was measured the scale is flat, and labels there would lie on top of one another.
            ticks = MaxNLocator(6).tick_values(wall_s[0] / 60, wall_s[-1] / 60)
            minutes.set_xticks([t for t in ticks if wall_s[0] <= 60 * t <= wall_s[-1]])
            minutes.set_xlabel("minutes", fontsize=8, color=SOFT)
            minutes.tick_params(labelsize=8, colors=SOFT)
    left.axhline(target, color=SOFT, linestyle="--", linewidth=1)
    left.annotate(
        f"asked: {target:.0%}",
        xy=(0, target),
        xycoords=("axes fraction", "data"),
        xytext=(3, 3),
        textcoords="offset points",
        fontsize=8,
        color=SOFT,
    )
    left.set_ylim(-0.03, 1.05)
    plot.tight_layout()
    return plot


@dataclass(frozen=True)
class Bar:
    label: str
    success: float
    low: float
    high: float
    """95 % interval."""


def success_bars(bars: Sequence[Bar]) -> Figure:
    """Success rates with their 95 % intervals."""
    plot, axes = plt.subplots(figsize=(7.5, 0.55 * len(bars) + 0.7))
    y = np.arange(len(bars))[::-1]
    values = np.array([b.success for b in bars])
    errors = np.array([[b.success - b.low for b in bars], [b.high - b.success for b in bars]]).clip(min=0)
    colours = [BLUE if b.success > 0.5 else GREY for b in bars]
    axes.barh(y, values, xerr=errors, color=colours, height=0.6, error_kw={"ecolor": INK, "capsize": 3, "lw": 1})
    for row, bar in zip(y, bars, strict=True):
        axes.text(min(bar.high, 1.0) + 0.02, float(row), f"{bar.success:.1%}", va="center", fontsize=10, color=INK)
    axes.set_yticks(y, [b.label for b in bars])
    axes.set_xlim(0, 1.15)
    axes.set_xticks(np.linspace(0, 1, 6), [f"{t:.0%}" for t in np.linspace(0, 1, 6)])
    axes.grid(axis="y", visible=False)
    return plot
