"""Transitions in a file: one array per field of a batch, episode after episode.

    obs         (n, obs_dim)    float32
    action      (n, action_dim) float32, in [-1, 1]
    reward      (n,)            float32
    terminated  (n,)            0 or 1: the MDP ended
    truncated   (n,)            0 or 1: the episode was cut here, by the clock or because recording stopped
    next_obs    (n, obs_dim)    float32, before any reset

Written as safetensors; .npz files with these arrays can be read too. Neither holds code.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.replay.n_step import NStep
from robot_rl.replay.ring_buffer import Batch, RingBuffer

FORMAT = "robot-rl transitions 1"
FIELDS = ("obs", "action", "reward", "terminated", "truncated", "next_obs")


def write_transitions(path: Path, batch: Batch, about: Mapping[str, str] | None = None) -> None:
    """Write atomically. `about` is kept with the file: task, source, licence, whatever a reader should know."""
    check_transitions(batch, str(path))
    # Copies, because a file cannot hold tensors that share memory.
    contiguous = torch.contiguous_format
    arrays = {n: getattr(batch, n).detach().float().cpu().clone(memory_format=contiguous) for n in FIELDS}
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(arrays, temporary, {**(about or {}), "format": FORMAT})
    os.replace(temporary, path)


def read_transitions(path: Path) -> Batch:
    """Read a .safetensors or .npz file. Raises ConfigError naming what is missing, misshapen or out of range."""
    try:
        arrays = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    except (OSError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read as a .safetensors or .npz file of transitions: {error}") from error
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(arrays)) or 'nothing'}")
    batch = Batch(**{name: arrays[name].float() for name in FIELDS})
    check_transitions(batch, str(path))
    return batch


def check_transitions(batch: Batch, where: str) -> None:
    """Raise ConfigError naming the first row that no learner can use."""
    n = batch.reward.shape[0]
    for name in FIELDS:
        value: Tensor = getattr(batch, name)
        dims = 2 if name in ("obs", "action", "next_obs") else 1
        if value.dim() != dims or value.shape[0] != n or n == 0:
            raise ConfigError(f"{where}: {name} has shape {tuple(value.shape)}; all must have one row per transition")
        _refuse(~value.reshape(n, -1).isfinite().all(-1), value, f"{where}: {name} is not finite")
    if batch.obs.shape != batch.next_obs.shape:
        raise ConfigError(f"{where}: obs has shape {tuple(batch.obs.shape)}, next_obs {tuple(batch.next_obs.shape)}")
    _refuse((batch.action.abs() > 1).any(-1), batch.action, f"{where}: actions must lie in [-1, 1]")
    for name in ("terminated", "truncated"):
        value = getattr(batch, name)
        _refuse((value != 0) & (value != 1), value, f"{where}: {name} must be 0 or 1")
    _refuse((batch.terminated * batch.truncated) > 0, batch.reward, f"{where}: both terminated and truncated")


def by_episode(batch: Batch, num_envs: int) -> Batch:
    """Steps of `num_envs` environments, (steps * num_envs, ...) in the order of `RingBuffer.add`, as one environment
    after the other. What was going on at the last step counts as truncated there."""
    n = batch.reward.shape[0]
    order = torch.arange(n, device=batch.reward.device)
    # The oldest rows may be of an incomplete step, so environments are told apart from the newest row backwards.
    env = num_envs - 1 - (n - 1 - order) % num_envs
    order = torch.argsort(env, stable=True)
    fields = {name: getattr(batch, name)[order] for name in FIELDS}
    cut = torch.zeros_like(fields["truncated"], dtype=torch.bool)
    last = torch.cat((env[order].diff() != 0, torch.ones(1, dtype=torch.bool, device=cut.device)))
    cut[last] = True
    fields["truncated"] = torch.where(cut, 1 - fields["terminated"], fields["truncated"])
    return Batch(**fields)


def load_replay(
    path: Path,
    obs_dim: int,
    action_dim: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    n_step: NStep | None = None,
) -> RingBuffer:
    """A replay buffer of exactly the transitions of a file. With `n_step`, which counts one environment, its rows must
    be in the order in which they happened. Raises ConfigError for a file of another task."""
    batch = read_transitions(path)
    found = (batch.obs.shape[1], batch.action.shape[1])
    if found != (obs_dim, action_dim):
        raise ConfigError(
            f"{path} has {found[0]} observations and {found[1]} actions; the task has {obs_dim} and {action_dim}"
        )
    if n_step is not None:
        ended = (batch.terminated + batch.truncated)[:-1] > 0
        jump = ~torch.isclose(batch.next_obs[:-1], batch.obs[1:], rtol=1e-4, atol=1e-5).all(-1)
        _refuse(
            jump & ~ended, batch.next_obs, f"{path}: n_step needs episodes in order, but the next row does not go on"
        )
    replay = RingBuffer(batch.reward.shape[0], obs_dim, action_dim, seed, device, n_step)
    replay.add(**{name: getattr(batch, name).to(replay.device) for name in FIELDS})
    return replay


def digest(path: Path) -> str:
    """sha256 of a file."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in FIELDS if name in file}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in FIELDS if name in file.keys()}  # noqa: SIM118


def _refuse(bad: Tensor, value: Tensor, message: str) -> None:
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ConfigError(f"{message}: row {row} has {value[row].tolist()}")
