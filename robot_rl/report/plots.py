"""Style of all plots, and those that many pages share: latency, modes over time. Each returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")  # no display is needed, and none is opened

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
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
    "HOME": "#8a6fc4",
    "RECOVER": "#2864c7",
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
        # Names of joints and causes are shown as they are, also with a dollar sign.
        "text.parse_math": False,
    }
)


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
