"""A contact sheet: many worlds of a task on one picture, each above what the randomisation drew for it."""

from __future__ import annotations

import math
import os
from pathlib import Path

import mujoco
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robot_rl.training.evaluate import Policy
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.markers import command_markers
from robot_rl_sim.video import Frame, FrameRenderer, place

Values = NDArray[np.float64]

_TILE_PX = (320, 240)
_TILE_IN = 2.9
_LINE_IN = 0.165
_GAP_IN = 0.16
_TITLE_IN = 0.62
_INK, _SOFT, _TRACK, _DOT = "#1b1f24", "#5b6570", "#e3e8ee", "#2864c8"

# Label, model field, its column (None: all), unit. Values are multiples of the nominal one.
_FIELDS = (
    ("mass", "body_mass", None),
    ("friction", "geom_friction", 0),
    ("kp", "actuator_gainprm", 0),
    ("kd", "actuator_biasprm", 2),
    ("joint damping", "dof_damping", None),
    ("joint friction", "dof_frictionloss", None),
    ("armature", "dof_armature", None),
)


def sampled_values(env: SimVecEnv) -> dict[str, tuple[Values, str]]:
    """What was drawn for each world: label -> ((n_envs, entries), unit). "x" are multiples of the nominal value; an
    entry is a body, a joint or the world."""
    randomised = {name.removeprefix("model/") for name in env.sim.state_dict() if name.startswith("model/")}
    values: dict[str, tuple[Values, str]] = {}
    for label, field, column in _FIELDS:
        if field not in randomised:
            continue
        live, nominal = env.sim.model_field(field).cpu().double().numpy(), env.sim.nominal(field).cpu().double().numpy()
        if column is not None:
            live, nominal = live[..., column], nominal[..., column]
        ratio = live[:, nominal != 0] / nominal[nominal != 0]
        if ratio.size and np.ptp(ratio) > 1e-9:
            # What is the same for all geoms of a world is one value.
            alike = np.allclose(ratio, ratio[:, :1])
            values[label] = (ratio[:, :1] if alike else ratio, "x")
    if env._latency is not None:
        steps = env._latency.state["delay"].cpu().double().numpy()[:, None] / env.sim.substeps
        values["latency"] = (1e3 * steps * env.policy_io.contract.control_period_s, "ms")
    return values


@torch.no_grad()
def advance(env: SimVecEnv, policy: Policy, seconds: float, seed: int) -> None:
    """From a reset, `seconds` on; less where an episode is shorter, so that no world is shown just after its reset."""
    obs = env.reset(seed)
    steps = min(round(seconds / env.policy_io.contract.control_period_s), env.max_episode_steps - 1)
    for _ in range(steps):
        obs = env.step(policy(obs)).obs


def shoot(env: SimVecEnv) -> list[Frame]:
    """A picture of every world as it is now."""
    model: mujoco.MjModel = env.sim.model  # pyright: ignore[reportAttributeAccessIssue]
    data = mujoco.MjData(model)
    spec = next((t for t in env.policy_io.contract.inputs if t.source == "command"), None)
    commands = env.policy_inputs()[spec.name].cpu().double().numpy() if spec else np.zeros((env.num_envs, 0))
    with FrameRenderer(model, *(2 * size for size in _TILE_PX), shadows=True) as renderer:
        shots = []
        for world in range(env.num_envs):
            place(model, data, env.sim.qpos[world], env.sim.qvel[world])
            shots.append(renderer.frame(data, command_markers(env.mdp, model, data, commands[world])))
    return shots


def write_contact_sheet(path: Path, env: SimVecEnv, policy: Policy, seconds: float, seed: int, title: str) -> None:
    """Write a PNG of all worlds after `seconds`. Raises MissingDependencyError where nothing can be rendered."""
    advance(env, policy, seconds, seed)
    shots, values = shoot(env), sampled_values(env)
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
    spans = {label: (v.min(), v.max()) for label, (v, _) in values.items()}
    for i, shot in enumerate(shots):
        row, column = divmod(i, columns)
        left = _GAP_IN + column * (_TILE_IN + _GAP_IN)
        top = _TITLE_IN + row * (cell_in + _GAP_IN)
        picture = figure.add_axes(_box(left, top, _TILE_IN, picture_in, width, height))
        picture.imshow(shot, interpolation="antialiased")
        picture.set_axis_off()
        if values:
            axes = figure.add_axes(_box(left, top + picture_in + 0.05, _TILE_IN, text_in, width, height))
            _draw_values(axes, {label: (v[i], unit) for label, (v, unit) in values.items()}, spans)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp.png")
    figure.savefig(temporary)
    os.replace(temporary, path)


def _box(left: float, top: float, w: float, h: float, width: float, height: float) -> tuple[float, float, float, float]:
    """Inches from the top left corner as matplotlib's fractions from the bottom left."""
    return left / width, 1 - (top + h) / height, w / width, h / height


def _draw_values(axes: Axes, values: dict[str, tuple[Values, str]], spans: dict[str, tuple[float, float]]) -> None:
    """One line per value: its label, where in the range of all worlds it lies, and its mean."""
    axes.set_xlim(0, 1)
    axes.set_ylim(len(values), 0)
    axes.set_axis_off()
    for line, (label, (entries, unit)) in enumerate(values.items()):
        low, high = spans[label]
        y, at = line + 0.5, 0.36 + 0.4 * (entries - low) / max(high - low, 1e-12)
        mean = f"{entries.mean():.2f} {unit}" if unit == "x" else f"{entries.mean():.0f} {unit}"
        axes.text(0, y, label, size=7, color=_SOFT, va="center")
        axes.plot([0.36, 0.76], [y, y], color=_TRACK, lw=3.2, solid_capstyle="round", zorder=1)
        if entries.size > 1:
            axes.plot(at, np.full_like(at, y), "|", color=_DOT, ms=5, alpha=0.55, zorder=2)
        else:
            axes.plot(at, [y], "o", color=_DOT, ms=4.2, zorder=2)
        axes.text(1, y, mean, size=7, color=_INK, va="center", ha="right")
