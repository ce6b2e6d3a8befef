"""The fault table at a glance: when each fault was noticed, and what the safety filter kept from the motors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_INK, _SOFT, _TRACK, _ON, _OFF = "#1b1f24", "#5b6570", "#e3e8ee", "#2864c8", "#d9822b"
_LINE_IN, _WIDTH_IN, _HEAD_IN = 0.17, 9.5, 1.1
_TORQUE_FLOOR = 0.1
"""Shares of the effort limit below this are drawn at it: the axis is logarithmic."""


def write_plot(path: Path, title: str, faults: Mapping[str, Mapping[str, Any]], loop_period_s: float) -> None:
    """Write a PNG; `faults` are the figures of each fault that was to be noticed (`page.figures`)."""
    shown = {name: f for name, f in faults.items() if f["latency_s"] is not None}
    height = _HEAD_IN + _LINE_IN * max(len(shown), 1)
    figure = Figure(figsize=(_WIDTH_IN, height), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.02, 1 - 0.25 / height, title, size=12, weight="bold", color=_INK, va="center")
    bottom, tall = 0.5 / height, (height - _HEAD_IN) / height
    latency = figure.add_axes((0.23, bottom, 0.4, tall))
    torque = figure.add_axes((0.67, bottom, 0.31, tall))
    for axes in (latency, torque):
        axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
        axes.tick_params(labelsize=7, colors=_SOFT, length=2)
        axes.spines[["top", "right", "left"]].set_visible(False)
    latency.set_yticks(range(len(shown)), list(shown), size=7, color=_INK)
    torque.set_yticks([])
    _draw_latency(latency, shown, loop_period_s)
    _draw_torque(torque, shown)
    temporary = path.with_name(f".{path.stem}.tmp.png")
    figure.savefig(temporary)
    os.replace(temporary, path)


def _draw_latency(axes: Axes, faults: Mapping[str, Mapping[str, Any]], loop_period_s: float) -> None:
    allowed = [1e3 * (f["threshold_s"] + loop_period_s) for f in faults.values()]
    axes.barh(range(len(faults)), allowed, color=_TRACK, height=0.8)
    axes.plot([1e3 * f["latency_s"] for f in faults.values()], range(len(faults)), "o", color=_ON, ms=3.5)
    axes.set_xlabel("latency (ms): worst of all seeds; bar: threshold and one tick", size=7, color=_SOFT)


def _draw_torque(axes: Axes, faults: Mapping[str, Mapping[str, Any]]) -> None:
    for key, color, label in (("filter_off", _OFF, "without"), ("filter_on", _ON, "with the safety filter")):
        values = [f[f"torque_share/{key}"] for f in faults.values()]
        drawn = [(max(v, _TORQUE_FLOOR), y) for y, v in enumerate(values) if v is not None]
        axes.plot(*zip(*drawn, strict=True) if drawn else ([], []), "o", color=color, ms=3.5, alpha=0.85, label=label)
    axes.set_xscale("log")
    axes.grid(axis="x", color=_TRACK, lw=0.7)
    axes.set_xlabel("torque asked beyond the effort limit, as a share of it", size=7, color=_SOFT)
    axes.legend(fontsize=7, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.1)
