"""Checkpoints: a folder per checkpoint, which either is complete or is not there.

    checkpoints/step_000050000/model.safetensors    networks, optimisers, normaliser, environments, generators
                               replay_*.safetensors the replay buffer (see segments.py)
                               state.json           counters, dimensions, and the size of each file

Everything is written to a hidden folder, flushed to the disk, and renamed: whenever a crash comes, the newest folder
under such a name is good. A failed write (disk full) leaves the older checkpoints as they were.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from robot_rl.algorithms.algorithm import get_algorithm
from robot_rl.errors import CheckpointError
from robot_rl.replay.dataset import by_episode
from robot_rl.replay.ring_buffer import Batch, RingBuffer
from robot_rl.training.config import TrainConfig, config_from_json
from robot_rl.training.files import sync, write_tensors, write_text
from robot_rl.training.segments import read_segments, write_segments

FOLDER, STATE = "checkpoints", "state.json"
KEEP = 2

Groups = Mapping[str, Mapping[str, Tensor]]
"""File stem -> tensors by dotted name."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    state: dict[str, Any]

    def load(self, stem: str) -> dict[str, Tensor]:
        """Tensors of <stem>.safetensors. Raises CheckpointError if it is missing or damaged."""
        path = self.path / f"{stem}.safetensors"
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error


def save_checkpoint(
    run_dir: Path, step: int, groups: Groups, replay: RingBuffer, state: Mapping[str, Any], previous: Path | None = None
) -> Path:
    """Write checkpoints/step_<step>, then delete all but the newest KEEP. Of the replay, only what is not in `previous`
    is written: the folder of the checkpoint that this run wrote or was restored from last.

    Raises CheckpointError, naming the file and the bytes needed and free, when that fails, such as on a full disk; the
    earlier checkpoints are then untouched.
    """
    final = run_dir / FOLDER / f"step_{step:09d}"
    temporary = final.with_name(f".{final.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for stem, tensors in groups.items():
            write_tensors(temporary / f"{stem}.safetensors", tensors)
        write_segments(temporary, replay, previous)
        files = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
        write_text(temporary / STATE, json.dumps({**state, "step": step, "files": files}, indent=1) + "\n")
        sync(temporary / STATE)
        sync(temporary)
        shutil.rmtree(final, ignore_errors=True)  # it is damaged, or this run would have gone on from it
        os.rename(temporary, final)
        sync(final.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        needed = sum(t.nbytes for tensors in groups.values() for t in tensors.values()) + len(replay) * replay.row_bytes
        free = shutil.disk_usage(run_dir).free
        raise CheckpointError(
            f"cannot write {final}: {error}; the checkpoint needs up to {needed:,} bytes and {free:,} are free"
        ) from error
    unfinished = (run_dir / FOLDER).glob(".step_*.tmp")  # of a process that was killed while writing
    for old in (*_folders(run_dir)[:-KEEP], *unfinished):
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest_checkpoint(run_dir: Path) -> Checkpoint:
    """The newest complete checkpoint. Raises CheckpointError when there is none, saying what was found instead."""
    damaged = []
    for path in reversed(_folders(run_dir)):
        try:
            state = json.loads((path / STATE).read_text())
            if all((path / name).stat().st_size == size for name, size in state["files"].items()):
                return Checkpoint(path, state)
            damaged.append(f"{path.name} has files of another size than it was written with")
        except (OSError, ValueError, KeyError) as error:
            damaged.append(f"{path.name}: {error!r}")
    found = "; ".join(damaged) or "it has none yet"
    raise CheckpointError(f"no complete checkpoint in {run_dir}: {found}")


@contextmanager
def only_trainer(run_dir: Path) -> Iterator[None]:
    """No other process trains this run meanwhile, which would overwrite what this one writes. Raises CheckpointError if
    one does already. Ends with the process, however that ends; file systems without locks are trusted."""
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"{run_dir} is being trained by another process; wait for it, or stop it") from None
        except OSError:
            pass
        yield
    finally:
        os.close(folder)


def load_config(run_dir: Path) -> TrainConfig:
    """The resolved configuration of a run."""
    path = run_dir / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{run_dir} is no run folder: {path} does not exist")
    return config_from_json(path.read_text())


def load_policy(run_dir: Path | str) -> tuple[nn.Module, nn.Module, TrainConfig]:
    """(normalizer, actor, config) of the newest checkpoint, on the CPU. The policy is actor(normalizer(obs))."""
    run_dir = Path(run_dir)
    config = load_config(run_dir)
    checkpoint = newest_checkpoint(run_dir)
    entry = get_algorithm(config.algo)
    half_range = torch.ones(checkpoint.state["action_dim"])
    dims = (checkpoint.state["obs_dim"], checkpoint.state["action_dim"])
    privileged_dim = checkpoint.state.get("privileged_dim", 0)
    algorithm = entry.make(config.algorithm, *dims, action_half_range=half_range, privileged_dim=privileged_dim)
    algorithm.load_state_dict(split(checkpoint.load("model"), "algorithm"))
    return algorithm.normalizer.eval(), algorithm.actor().eval(), config


def load_transitions(run_dir: Path | str) -> Batch:
    """What the replay of the newest checkpoint holds, episode after episode: for `write_transitions`."""
    run_dir = Path(run_dir)
    config, checkpoint = load_config(run_dir), newest_checkpoint(run_dir)
    obs_dim = checkpoint.state["obs_dim"] + checkpoint.state.get("privileged_dim", 0)
    replay = RingBuffer(config.buffer_size, obs_dim, checkpoint.state["action_dim"])
    read_segments(checkpoint.path, replay)
    return by_episode(replay.batch(replay.rows(replay.total - len(replay), replay.total)), config.num_envs)


def join(groups: Groups) -> dict[str, Tensor]:
    """One flat mapping, names prefixed by "<group>/". Tensors are copied, so that none share memory."""
    return {f"{group}/{name}": t.detach().clone() for group, tensors in groups.items() for name, t in tensors.items()}


def split(tensors: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    """One group of what `join` made."""
    return {n.removeprefix(f"{group}/"): t for n, t in tensors.items() if n.startswith(f"{group}/")}


def _folders(run_dir: Path) -> list[Path]:
    return sorted((run_dir / FOLDER).glob("step_*"))
