"""Plots of one run. Each takes arrays and returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from robot_rl.report.flight_data import Tracking
from robot_rl.report.plots import BLUE, GREY, INK, ORANGE, RED, SOFT, Array, Marker, plt

POINTS = 1500
"""Bins of a curve; each keeps its least and its largest value, so that no spike is lost."""


def thinned(time_s: Array, values: Array) -> tuple[Array, Array]:
    """A curve of at most 2 POINTS points that looks the same."""
    if len(values) <= 2 * POINTS:
        return time_s, values
    edges = np.linspace(0, len(values), POINTS + 1).astype(int)
    kept = set()
    for start, end in pairwise(edges):
        part = values[start:end]
        if np.isfinite(part).any():
            kept |= {start + int(np.nanargmin(part)), start + int(np.nanargmax(part))}
        else:
            kept.add(int(start))
    index = np.array(sorted(kept))
    return time_s[index], values[index]


def margins(time_s: Array, series: Mapping[str, Array], markers: Sequence[Marker]) -> Figure:
    """One panel per measure: 1 far from its threshold, 0 at it; beyond it in red."""
    columns = 2
    rows = -(-len(series) // columns)
    plot, panels = plt.subplots(
        rows, columns, figsize=(9.5, 1.35 * rows + 0.5), sharex=True, sharey=True, squeeze=False
    )
    for axes in panels.flat[len(series) :]:
        axes.set_visible(False)
    for axes, (name, values) in zip(panels.flat, series.items(), strict=False):
        shown = np.clip(values, -0.3, 1.05)
        axes.plot(*thinned(time_s, shown), color=BLUE, linewidth=1.0)
        axes.fill_between(time_s, -0.3, 1.05, where=values < 0, color=RED, alpha=0.25, linewidth=0)
        axes.axhline(0.0, color=RED, linewidth=0.8)
        axes.set_title(f"{name}", loc="left", fontsize=9, color=INK)
        axes.set_ylim(-0.3, 1.08)
        axes.set_yticks([0, 1])
        for marker in markers:
            axes.axvline(marker.time_s, color=SOFT, linewidth=0.8, linestyle="--")
    for axes in panels.flat[len(series) - columns if len(series) > columns else 0 : len(series)]:
        axes.set_xlabel("time (s)")
        axes.tick_params(labelbottom=True)
    plot.tight_layout()
    return plot


def tracking_errors(tracking: Tracking) -> Figure:
    """Root mean square (bar) and largest (dot) difference between sent and measured position, per joint."""
    n = len(tracking.joints)
    plot, axes = plt.subplots(figsize=(9.5, 0.22 * n + 0.9))
    rows = np.arange(n)[::-1]
    axes.barh(rows, np.nan_to_num(tracking.rms), color=BLUE, height=0.6, label="root mean square")
    axes.plot(np.nan_to_num(tracking.largest), rows, "o", color=ORANGE, markersize=4, label="largest")
    axes.set_yticks(rows, tracking.joints, fontsize=8)
    axes.set_ylim(-0.7, n - 0.3)
    axes.set_xlabel("rad")
    axes.grid(axis="y", visible=False)
    axes.legend(fontsize=8, loc="lower right")
    plot.tight_layout()
    return plot


def worst_joints(tracking: Tracking, count: int = 3) -> Figure:
    """Sent and measured position over time, of the joints that follow worst."""
    order = np.argsort(-np.nan_to_num(tracking.rms))[:count]
    plot, panels = plt.subplots(len(order), 1, figsize=(9.5, 1.6 * len(order) + 0.4), sharex=True, squeeze=False)
    for axes, joint in zip(panels[:, 0], order, strict=True):
        # A gap, where no position was commanded, must not be bridged by a line.
        gap = np.diff(tracking.time_s, prepend=tracking.time_s[0]) > 5 * max(np.median(np.diff(tracking.time_s)), 1e-9)
        for values, colour, label in (
            (tracking.wanted[:, joint], ORANGE, "sent"),
            (tracking.measured[:, joint], BLUE, "measured"),
        ):
            axes.plot(
                *thinned(tracking.time_s, np.where(gap, np.nan, values)), color=colour, linewidth=1.0, label=label
            )
        axes.set_title(f"{tracking.joints[joint]} (rad)", loc="left", fontsize=10, color=INK)
    panels[0, 0].legend(fontsize=8, ncols=2, loc="upper right")
    panels[-1, 0].set_xlabel("time (s)")
    plot.tight_layout()
    return plot


def modifications(by_reason: Mapping[str, Array], joints: Sequence[str], ticks: int) -> Figure:
    """Share of ticks in which each reason changed a target, joint by joint."""
    shares = np.array([by_reason[reason] / ticks for reason in by_reason])
    plot, axes = plt.subplots(figsize=(9.5, 0.42 * len(by_reason) + 1.9))
    image = axes.imshow(shares, aspect="auto", cmap="Blues", vmin=0.0, vmax=max(float(shares.max()), 1e-3))
    axes.set_yticks(range(len(by_reason)), [reason.replace("_", " ") for reason in by_reason])
    axes.set_xticks(range(len(joints)), joints, rotation=90, fontsize=7)
    axes.grid(visible=False)
    bar = plot.colorbar(image, ax=axes, pad=0.015, format=lambda value, _: f"{value:.1%}")
    bar.outline.set_edgecolor(GREY)  # type: ignore[operator]
    bar.set_label("of ticks", color=SOFT, fontsize=9)
    plot.tight_layout()
    return plot
