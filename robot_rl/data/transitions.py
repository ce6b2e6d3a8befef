"""Our own file of transitions (robot_rl/replay/dataset.py) as a Dataset, with the recorded units of its actions."""

from __future__ import annotations

import json
from pathlib import Path

from robot_rl.data.dataset import ActionRange, Dataset
from robot_rl.errors import ConfigError
from robot_rl.replay.dataset import FIELDS, FORMAT, OPTIONAL, read_arrays, write_transitions
from robot_rl.replay.ring_buffer import Batch

_LOW, _HIGH = "action_low", "action_high"


def read(path: Path) -> Dataset:
    """Read a .safetensors or .npz file. Raises ConfigError for one that cannot be read or lacks an array."""
    arrays, about = read_arrays(path)
    sizes = {name: tuple(value.shape) for name, value in arrays.items()}
    if len({shape[:1] for shape in sizes.values()}) != 1 or 0 in sizes["reward"]:
        raise ConfigError(f"{path}: all arrays must have one row per transition, got {sizes}")
    about.pop("format", None)
    low, high = about.pop(_LOW, None), about.pop(_HIGH, None)
    return Dataset(
        Batch(**{name: arrays[name] for name in FIELDS}),
        action_proposed=arrays.get("action_proposed"),
        success=arrays.get("success"),
        time_s=arrays.get("time_s"),
        action_range=None if low is None or high is None else ActionRange(json.loads(low), json.loads(high)),
        about=about,
    )


def write(dataset: Dataset, path: Path) -> None:
    """Write a .safetensors file. Raises ConfigError for another suffix, and for rows that cannot be stored."""
    if path.suffix != ".safetensors":
        raise ConfigError(f"transitions are written as .safetensors, got {path}")
    about = dict(dataset.about)
    if dataset.action_range is not None:
        about[_LOW] = json.dumps(dataset.action_range.low.tolist())
        about[_HIGH] = json.dumps(dataset.action_range.high.tolist())
    optional = {name: value for name in OPTIONAL if (value := getattr(dataset, name)) is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_transitions(path, dataset.transitions, {**about, "format": FORMAT}, optional)
