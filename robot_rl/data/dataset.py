"""Offline data in memory: episodes of transitions, and what is known about them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.replay.dataset import check_transitions, goes_on
from robot_rl.replay.ring_buffer import Batch

_TOLERANCE = 1e-4
"""How far outside the range an action may lie, as a share of half the range: float32 and a controller's rounding."""


class ActionRange:
    """The recorded units of actions: `low` and `high` (action_dim,) are what -1 and 1 stand for.

    Raises ConfigError unless every low is finite and below its high.
    """

    def __init__(self, low: Sequence[float] | NDArray[Any], high: Sequence[float] | NDArray[Any]) -> None:
        self.low, self.high = (np.array(bound, np.float64).reshape(-1) for bound in (low, high))
        if self.low.shape != self.high.shape or not np.isfinite([self.low, self.high]).all():
            raise ConfigError(f"action range: low and high must be finite and as many, got {low} and {high}")
        if not (self.low < self.high).all():
            raise ConfigError(f"action range: every low must be below its high, got {low} and {high}")
        # Centre and half-width, not (a - low) / width, so that the range [-1, 1] changes no bit.
        self._centre, self._half = (self.high + self.low) / 2, (self.high - self.low) / 2

    def for_actions(self, action_dim: int) -> ActionRange:
        """The range of that many actions, where one pair of numbers may stand for all."""
        if len(self.low) == 1:
            return ActionRange(np.repeat(self.low, action_dim), np.repeat(self.high, action_dim))
        return self

    def to_unit(self, native: NDArray[Any], where: str) -> Tensor:
        """(n, action_dim) in recorded units -> float32 in [-1, 1]; NaN stays. Raises ConfigError, naming the first
        such row, for another size and for actions outside the range."""
        if native.shape[1:] != self.low.shape:
            raise ConfigError(f"{where}: {native.shape[1]} actions, and an action range of {len(self.low)}")
        unit = (native - self._centre) / self._half
        outside = (np.abs(unit) > 1 + _TOLERANCE).any(-1)
        if outside.any():
            row = int(outside.argmax())
            raise ConfigError(
                f"{where}: row {row} has action {native[row].tolist()}, outside of {self.low.tolist()} to "
                f"{self.high.tolist()}; recorded are {np.nanmin(native, 0).tolist()} to "
                f"{np.nanmax(native, 0).tolist()}. Give the range with --action-low and --action-high"
            )
        return torch.from_numpy(np.clip(unit, -1, 1).astype(np.float32))

    def to_native(self, unit: Tensor) -> NDArray[np.float32]:
        """The inverse of `to_unit`, to float32's precision."""
        return (self._centre + self._half * unit.numpy().astype(np.float64)).astype(np.float32)


def unit_range(action_dim: int) -> ActionRange:
    """Actions that were recorded in [-1, 1]."""
    return ActionRange([-1.0] * action_dim, [1.0] * action_dim)


@dataclass(frozen=True)
class Dataset:
    """Transitions, one episode after the other, on the CPU. Nothing is checked here, so that a report can describe bad
    data; `check` says what cannot be stored."""

    transitions: Batch
    """`action` is what was executed, in [-1, 1]; the last row of an episode is terminated or truncated. Reward is NaN
    in every row where none was recorded."""
    action_proposed: Tensor | None = None
    """(n, action_dim) in [-1, 1]: what the policy asked for, before the safety filter."""
    success: Tensor | None = None
    """(n,) 0 or 1: the task was solved in this step."""
    time_s: Tensor | None = None
    """(n,) float64, s: when `obs` was measured, on the recorder's clock."""
    action_range: ActionRange | None = None
    """Units in which the actions were recorded; None: [-1, 1]."""
    about: Mapping[str, str] = field(default_factory=dict)
    """task, robot, fps, source, licence: whatever a reader should know."""
    notes: tuple[str, ...] = ()
    """What the reader left out or had to assume."""

    def __len__(self) -> int:
        return self.transitions.reward.shape[0]

    @property
    def reward_known(self) -> bool:
        return not bool(self.transitions.reward.isnan().all())

    @property
    def native_actions(self) -> ActionRange:
        return self.action_range or unit_range(self.transitions.action.shape[1])

    def check(self, where: str) -> None:
        """Raise ConfigError naming the first row with values that are not finite (but for a reward that is unknown
        throughout), out of range or misshapen."""
        check_transitions(self.transitions, where, reward_needed=False)
        for name, shape in (
            ("action_proposed", self.transitions.action.shape),
            ("success", (len(self),)),
            ("time_s", (len(self),)),
        ):
            value: Tensor | None = getattr(self, name)
            if value is not None and (value.shape != shape or not value.isfinite().all()):
                raise ConfigError(f"{where}: {name} must be {tuple(shape)} finite numbers, got {tuple(value.shape)}")

    def episodes(self) -> list[slice]:
        """Rows of each episode: it ends where a flag says so, or where the next row does not go on."""
        batch = self.transitions
        ended = (batch.terminated + batch.truncated) > 0
        ended[:-1] |= ~goes_on(batch)
        ended[-1] = True
        ends = (ended.nonzero().flatten() + 1).tolist()
        return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def closed(terminated: NDArray[Any], truncated: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Flags (T,) of one episode as ours: never both, and the last row has one, because recording stopped there."""
    terminated = terminated.astype(bool)
    truncated = truncated.astype(bool) & ~terminated
    truncated[-1] = not terminated[-1]
    return terminated, truncated


def as_batch(
    obs: NDArray[Any],
    action: Tensor,
    reward: NDArray[Any],
    terminated: NDArray[Any],
    truncated: NDArray[Any],
    next_obs: NDArray[Any],
) -> Batch:
    """Arrays of any type as float32 tensors."""
    o, r, end, cut, o2 = (
        torch.tensor(np.asarray(a, np.float32)) for a in (obs, reward, terminated, truncated, next_obs)
    )
    return Batch(o, action, r, end, cut, o2)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `path` when all of it is there. Raises ConfigError if `path` exists."""
    if path.exists():
        raise ConfigError(f"{path} exists; choose another name or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a writer that was killed
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
