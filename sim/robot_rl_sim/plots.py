"""Plots of a run: learning curve, success, latency, modes. Each takes arrays and returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")  # no display is needed, and none is opened

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Array = NDArray[np.float64]

INK, SOFT, GRID = "#1b1f24", "#5b6570", "#e4e8ec"
BLUE, ORANGE, GREY, RED = "#2864c7", "#d9822b", "#9aa4af", "#c4314b"
MODE_COLOURS = {
    "INIT": "#d9dee4",
    "IDLE": "#c2cad3",
    "DAMP": "#c4314b",
    "STAND": "#e0a939",
    "RUN": "#2f9e5b",
    "HOLD": "#d9822b",
    "FAULT": "#7a1f33",
}

plt.rcParams.update(
    {
        "font.size": 10,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "svg.fonttype": "none",
        "legend.frameon": False,
    }
)


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


def histogram_ms(series: Sequence[tuple[str, Array]]) -> Figure:
    """One panel per latency, in milliseconds, with median and 99th percentile marked. Values are in seconds."""
    plot, panels = plt.subplots(1, len(series), figsize=(9.5, 2.9), squeeze=False)
    for axes, (label, seconds) in zip(panels[0], series, strict=True):
        values = 1000 * np.asarray(seconds)
        p50, p99 = np.percentile(values, [50, 99])
        axes.hist(values, bins=40, range=(0.0, max(float(np.percentile(values, 99.5)), 1e-3)), color=BLUE, alpha=0.85)
        for value, name, colour in ((p50, "p50", INK), (p99, "p99", RED)):
            axes.axvline(value, color=colour, linewidth=1.2, label=f"{name} {value:.2f} ms")
        axes.set_title(label, loc="left", fontsize=11, color=INK)
        axes.set_xlabel("ms")
        axes.set_yticks([])
        axes.legend(fontsize=8)
    plot.tight_layout()
    return plot


@dataclass(frozen=True)
class Marker:
    time_s: float
    label: str


def timeline(
    time_s: Array, modes: Sequence[str], curves: Sequence[tuple[str, Array, Array]], markers: Sequence[Marker]
) -> Figure:
    """Modes as a coloured band over time, curves (label, time s, value) below, events as vertical lines."""
    plot, (band, *panels) = plt.subplots(
        1 + len(curves),
        1,
        figsize=(9.5, 0.9 + 1.7 * len(curves)),
        sharex=True,
        squeeze=True,
        gridspec_kw={"height_ratios": [0.35] + [1.0] * len(curves)},
    )
    starts = [0] + [i for i in range(1, len(modes)) if modes[i] != modes[i - 1]]
    ends = [*starts[1:], len(modes) - 1]
    for start, end in zip(starts, ends, strict=True):
        left, right = float(time_s[start]), float(time_s[end])
        band.axvspan(left, right, color=MODE_COLOURS.get(modes[start], GREY), lw=0)
        if right - left > 0.04 * float(time_s[-1] - time_s[0]):
            band.text((left + right) / 2, 0.5, modes[start], ha="center", va="center", fontsize=9, color="white")
    band.set_yticks([])
    band.grid(visible=False)
    band.set_title("mode", loc="left", fontsize=11, color=INK)
    for axes, (label, t, values) in zip(panels, curves, strict=True):
        axes.plot(t, values, color=BLUE, linewidth=1.0)
        axes.set_title(label, loc="left", fontsize=11, color=INK)
    for axes in (band, *panels):
        for marker in markers:
            axes.axvline(marker.time_s, color=RED, linewidth=1.2, linestyle="--")
    for marker in markers:
        band.annotate(marker.label, (marker.time_s, 1.0), (0, 4), textcoords="offset points", fontsize=8, color=RED)
    (panels[-1] if panels else band).set_xlabel("time (s)")
    plot.tight_layout()
    return plot
