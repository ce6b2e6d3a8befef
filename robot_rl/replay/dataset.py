"""Transitions in a file: one array per field of a batch, episode after episode.

    obs         (n, obs_dim)    float32
    action      (n, action_dim) float32, in [-1, 1]
    reward      (n,)            float32
    terminated  (n,)            0 or 1: the MDP ended
    truncated   (n,)            0 or 1: the episode was cut here, by the clock or because recording stopped
    next_obs    (n, obs_dim)    float32, before any reset

Optional, where they were recorded:

    action_proposed (n, action_dim) float32: what the policy asked for, where a safety filter may have changed it
    success         (n,)            0 or 1: the task was solved in this step
    time_s          (n,)            float64, s: when obs was measured

A reward that was never measured, as in a robot's log, is NaN in every row; no learner takes such a file.
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
OPTIONAL = ("action_proposed", "success", "time_s")


def write_transitions(
    path: Path, batch: Batch, about: Mapping[str, str] | None = None, optional: Mapping[str, Tensor] | None = None
) -> None:
    """Write atomically. `about` is kept with the file: task, source, licence, whatever a reader should know; `optional`
    holds arrays named in OPTIONAL."""
    check_transitions(batch, str(path), reward_needed=False)
    found = {**{name: getattr(batch, name) for name in FIELDS}, **(optional or {})}
    # Copies, because a file cannot hold tensors that share memory.
    arrays = {
        name: value.detach()
        .to("cpu", torch.float64 if name == "time_s" else torch.float32)
        .clone(memory_format=torch.contiguous_format)
        for name, value in found.items()
    }
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(arrays, temporary, {**(about or {}), "format": FORMAT})
    os.replace(temporary, path)


def read_transitions(path: Path) -> Batch:
    """Read a .safetensors or .npz file. Raises ConfigError naming what is missing, misshapen or out of range."""
    arrays, _ = read_arrays(path)
    batch = Batch(**{name: arrays[name] for name in FIELDS})
    check_transitions(batch, str(path))
    return batch


def read_arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(all arrays of a file, what is told about it), unchecked. Raises ConfigError naming what is missing."""
    try:
        arrays, about = (_read_npz if path.suffix == ".npz" else _read_safetensors)(path)
    except (OSError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read as a .safetensors or .npz file of transitions: {error}") from error
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(arrays)) or 'nothing'}")
    return {name: value.double() if name == "time_s" else value.float() for name, value in arrays.items()}, about


def check_transitions(batch: Batch, where: str, *, reward_needed: bool = True) -> None:
    """Raise ConfigError naming the first row that no learner can use. Without `reward_needed`, a reward that is NaN in
    every row passes."""
    n = batch.reward.shape[0]
    unknown = n > 0 and bool(batch.reward.isnan().all())
    if unknown and reward_needed:
        raise ConfigError(f"{where}: no row has a reward (all NaN, as in a robot's log); give it one before learning")
    for name in FIELDS:
        value: Tensor = getattr(batch, name)
        dims = 2 if name in ("obs", "action", "next_obs") else 1
        if value.dim() != dims or value.shape[0] != n or n == 0:
            raise ConfigError(f"{where}: {name} has shape {tuple(value.shape)}; all must have one row per transition")
        if not (name == "reward" and unknown):
            _refuse(~value.reshape(n, -1).isfinite().all(-1), value, f"{where}: {name} is not finite")
    if batch.obs.shape != batch.next_obs.shape:
        raise ConfigError(f"{where}: obs has shape {tuple(batch.obs.shape)}, next_obs {tuple(batch.next_obs.shape)}")
    _refuse((batch.action.abs() > 1).any(-1), batch.action, f"{where}: actions must lie in [-1, 1]")
    for name in ("terminated", "truncated"):
        value = getattr(batch, name)
        _refuse((value != 0) & (value != 1), value, f"{where}: {name} must be 0 or 1")
    _refuse((batch.terminated * batch.truncated) > 0, batch.reward, f"{where}: both terminated and truncated")


def goes_on(batch: Batch) -> Tensor:
    """(n - 1,) bool: the row after this one starts where this one ended."""
    return torch.isclose(batch.next_obs[:-1], batch.obs[1:], rtol=1e-4, atol=1e-5, equal_nan=True).all(-1)


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
    """`fill_replay` of a file."""
    return fill_replay(read_transitions(path), str(path), obs_dim, action_dim, seed, device, n_step)


def fill_replay(
    batch: Batch,
    where: str,
    obs_dim: int,
    action_dim: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    n_step: NStep | None = None,
) -> RingBuffer:
    """A replay buffer of exactly these transitions. With `n_step`, which counts one environment, rows must be in the
    order in which they happened. Raises ConfigError, naming `where` they are from, for transitions of another task."""
    found = (batch.obs.shape[1], batch.action.shape[1])
    if found != (obs_dim, action_dim):
        raise ConfigError(
            f"{where} has {found[0]} observations and {found[1]} actions; the task has {obs_dim} and {action_dim}"
        )
    if n_step is not None:
        ended = (batch.terminated + batch.truncated)[:-1] > 0
        jump = ~goes_on(batch) & ~ended
        _refuse(jump, batch.next_obs, f"{where}: n_step needs episodes in order, but the next row does not go on")
    replay = RingBuffer(batch.reward.shape[0], obs_dim, action_dim, seed, device, n_step)
    replay.add(**{name: getattr(batch, name).to(replay.device) for name in FIELDS})
    return replay


def digest(path: Path) -> str:
    """sha256 of a file, or of the names and contents of all files of a folder."""
    sha256 = hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        if part != path:
            sha256.update(f"{part.relative_to(path).as_posix()}\0{part.stat().st_size}\0".encode())
        with part.open("rb") as file:
            while chunk := file.read(1 << 20):
                sha256.update(chunk)
    return sha256.hexdigest()


def _read_npz(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with np.load(path, allow_pickle=False) as file:
        return {n: torch.from_numpy(np.asarray(file[n])) for n in (*FIELDS, *OPTIONAL) if n in file}, {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        names = [name for name in (*FIELDS, *OPTIONAL) if name in file.keys()]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})


def _refuse(bad: Tensor, value: Tensor, message: str) -> None:
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ConfigError(f"{message}: row {row} has {value[row].tolist()}")
