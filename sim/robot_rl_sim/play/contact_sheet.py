"""A contact sheet: many worlds of a task on one picture, each above what the randomisation drew for it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robot_rl.training.evaluate import Policy
from robot_rl_sim.camera import WorldCamera
from robot_rl_sim.draws import between
from robot_rl_sim.env import SimVecEnv

Values = NDArray[np.float64]

_TILE_PX = (320, 240)
_TILE_IN = 2.9
_LINE_IN = 0.165
_GAP_IN = 0.16
_TITLE_IN = 0.62
_INK, _SOFT, _TRACK, _DOT = "#1b1f24", "#5b6570", "#e3e8ee", "#2864c8"

# Ending of a term's name: unit, and what one in the configuration's own unit is in it.
_UNITS = {"_scale": ("x", 1.0), "_kg": ("kg", 1.0), "_m_s2": ("m/s²", 1.0), "_m": ("mm", 1e3), "_share": ("%", 100.0)}


@dataclass(frozen=True)
class Sampled:
    """What every world drew for one term of the randomisation."""

    label: str
    unit: str
    range: tuple[float, float]
    values: Values
    """(n_envs, entries); an entry is a body, a joint, an axis or the world."""


def sampled_values(env: SimVecEnv) -> list[Sampled]:
    """Dynamics and latency; what is wrong with each sensor is left out."""
    drawn, first, found = env.draws.values.cpu(), 0, []
    for name, width in env.draws.layout:
        ends = getattr(env.randomization, name, None)
        if isinstance(ends, tuple):
            label, unit, factor = _unit(name, env.policy_io.contract.control_period_s)
            values = factor * between(drawn[:, first : first + width], ends).double().numpy()
            found.append(Sampled(label, unit, (factor * ends[0], factor * ends[1]), values))
        first += width
    return found


def _unit(name: str, period_s: float) -> tuple[str, str, float]:
    """Label, unit and factor of a term."""
    units = {**_UNITS, "_steps": ("ms", 1e3 * period_s)}
    ending = next((end for end in sorted(units, key=len, reverse=True) if name.endswith(end)), "")
    return name.removesuffix(ending).replace("_", " "), *units.get(ending, ("", 1.0))


@torch.no_grad()
def advance(env: SimVecEnv, policy: Policy, seconds: float, seed: int) -> None:
    """From a reset, `seconds` on; less where an episode is shorter, so that no world is shown just after its reset."""
    obs = env.reset(seed)
    steps = min(round(seconds / env.policy_io.contract.control_period_s), env.max_episode_steps - 1)
    for _ in range(steps):
        obs = env.step(policy(obs)).obs


def write_contact_sheet(path: Path, env: SimVecEnv, policy: Policy, seconds: float, seed: int, title: str) -> None:
    """Write a PNG of all worlds after `seconds`. Raises MissingDependencyError where nothing can be rendered."""
    advance(env, policy, seconds, seed)
    camera = WorldCamera(env, (2 * _TILE_PX[0], 2 * _TILE_PX[1]), shadows=True)
    try:
        shots = [camera.frame(world) for world in range(env.num_envs)]
    finally:
        camera.close()
    values = sampled_values(env)
    n = len(shots)
    columns = min(n, max(1, round(math.sqrt(n * 1.4))))
    rows = math.ceil(n / columns)
    picture_in = _TILE_IN * _TILE_PX[1] / _TILE_PX[0]
    text_in = _LINE_IN * len(values)
    cell_in = picture_in + text_in + _GAP_IN
    width = columns * _TILE_IN + (columns + 1) * _GAP_IN
    height = _TITLE_IN + rows * (cell_in + _GAP_IN)
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    drawn = "as modelled" if not values else "each with its own dynamics"
    figure.text(_GAP_IN / width, 1 - 0.24 / height, title, size=15, weight="bold", color=_INK, va="center")
    subtitle = f"{n} worlds after {seconds:g} s, {drawn} (seed {seed}); a mark per body or joint, the mean at the right"
    figure.text(_GAP_IN / width, 1 - 0.5 / height, subtitle, size=8.5, color=_SOFT, va="center")
    for i, shot in enumerate(shots):
        row, column = divmod(i, columns)
        left = _GAP_IN + column * (_TILE_IN + _GAP_IN)
        top = _TITLE_IN + row * (cell_in + _GAP_IN)
        picture = figure.add_axes(_box(left, top, _TILE_IN, picture_in, width, height))
        picture.imshow(shot, interpolation="antialiased")
        picture.set_axis_off()
        if values:
            axes = figure.add_axes(_box(left, top + picture_in + 0.05, _TILE_IN, text_in, width, height))
            _draw_values(axes, values, i)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp.png")
    figure.savefig(temporary)
    os.replace(temporary, path)


def _box(left: float, top: float, w: float, h: float, width: float, height: float) -> tuple[float, float, float, float]:
    """Inches from the top left corner as matplotlib's fractions from the bottom left."""
    return left / width, 1 - (top + h) / height, w / width, h / height


def _draw_values(axes: Axes, sampled: list[Sampled], world: int) -> None:
    """One line per term: its label, where in the range each entry lies, and their mean."""
    axes.set_xlim(0, 1)
    axes.set_ylim(len(sampled), 0)
    axes.set_axis_off()
    for line, term in enumerate(sampled):
        entries, (low, high) = term.values[world], term.range
        y, at = line + 0.5, 0.36 + 0.4 * (entries - low) / max(high - low, 1e-12)
        mean = f"{entries.mean():.{0 if high - low > 10 else 2}f} {term.unit}"
        axes.text(0, y, term.label, size=7, color=_SOFT, va="center")
        axes.plot([0.36, 0.76], [y, y], color=_TRACK, lw=3.2, solid_capstyle="round", zorder=1)
        if entries.size > 1:
            axes.plot(at, np.full_like(at, y), "|", color=_DOT, ms=5, alpha=0.55, zorder=2)
        else:
            axes.plot(at, [y], "o", color=_DOT, ms=4.2, zorder=2)
        axes.text(1, y, mean, size=7, color=_INK, va="center", ha="right")
