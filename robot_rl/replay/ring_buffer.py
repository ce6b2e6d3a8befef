"""Replay memory: the newest `capacity` transitions, sampled uniformly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.errors import CheckpointError, ConfigError


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions (obs, action) -> (reward, next_obs). All float32 on one device; flags are 0 or 1.

    With n-step returns a row spans k <= n steps: `reward` is the sum of γ^i r_i over them, next_obs and the flags are
    those of the last of them, and `discount` is γ^k.
    """

    obs: Tensor
    """(batch, obs_dim)."""
    action: Tensor
    """(batch, action_dim) in [-1, 1]."""
    reward: Tensor
    """(batch,)."""
    terminated: Tensor
    """(batch,): the MDP ended."""
    truncated: Tensor
    """(batch,): the clock ended the episode; next_obs is the true last observation."""
    next_obs: Tensor
    """(batch, obs_dim) before any reset."""
    discount: Tensor | None = None
    """(batch,): factor on the value of next_obs; None: the algorithm's own gamma, a single step."""
    weight: Tensor | None = None
    """(batch,): factor on each sample's loss; None: 1."""
    demonstration: Tensor | None = None
    """(batch,): 1 where the row was demonstrated; None: nowhere."""


class RingBuffer:
    """Transitions as rows of one tensor, so that a sample is one gather. Memory: capacity * row_bytes.

    Raises ConfigError at construction when the device has not that much free memory.
    """

    def __init__(
        self, capacity: int, obs_dim: int, action_dim: int, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"buffer_size must be at least 1, got {capacity}")
        self.capacity = capacity
        self.device = torch.device(device)
        self._widths = (obs_dim, action_dim, 1, 1, 1, obs_dim)
        self.row_bytes = 4 * sum(self._widths)
        self._check_memory()
        # zeros, not empty: the system hands out pages as rows are written, so an unfilled buffer costs nothing.
        self._rows = torch.zeros((capacity, sum(self._widths)), device=self.device)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._size = 0
        self._next = 0

    def __len__(self) -> int:
        return self._size

    def add(
        self, obs: Tensor, action: Tensor, reward: Tensor, terminated: Tensor, truncated: Tensor, next_obs: Tensor
    ) -> None:
        """Store n transitions, (n, ...) each, over the oldest ones."""
        flags = (reward, terminated, truncated)
        rows = torch.cat((obs, action, *(f.unsqueeze(-1).float() for f in flags), next_obs), dim=-1)
        rows = rows[-self.capacity :]
        first = min(rows.shape[0], self.capacity - self._next)
        self._rows[self._next : self._next + first] = rows[:first]
        self._rows[: rows.shape[0] - first] = rows[first:]
        self._next = (self._next + rows.shape[0]) % self.capacity
        self._size = min(self._size + rows.shape[0], self.capacity)

    def sample(self, batch_size: int) -> Batch:
        """Uniformly, with replacement."""
        if self._size == 0:
            raise ConfigError("cannot sample from an empty replay buffer")
        index = torch.randint(self._size, (batch_size,), generator=self._generator, device=self.device)
        obs, action, reward, terminated, truncated, next_obs = self._rows.index_select(0, index).split(
            self._widths, dim=-1
        )
        return Batch(obs, action, reward.squeeze(-1), terminated.squeeze(-1), truncated.squeeze(-1), next_obs)

    def state_dict(self) -> dict[str, Tensor]:
        """Filled rows, write position and generator: restores every later sample exactly."""
        return {
            "rows": self._rows[: self._size],
            "next": torch.tensor(self._next),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        rows = state["rows"]
        if rows.shape[0] > self.capacity or rows.shape[1] != self._rows.shape[1]:
            raise CheckpointError(
                f"replay of {tuple(rows.shape)} does not fit a buffer of {tuple(self._rows.shape)}; "
                "buffer_size and the task must be those of the run"
            )
        self._rows[: rows.shape[0]] = rows
        self._size = rows.shape[0]
        self._next = int(state["next"])
        self._generator.set_state(state["generator"].cpu())

    def _check_memory(self) -> None:
        needed, free = self.capacity * self.row_bytes, free_memory(self.device)
        if needed > free:
            raise ConfigError(
                f"a replay buffer of {self.capacity:,} transitions needs {needed / 1e9:.2f} GB ({self.row_bytes} bytes "
                f"each) and {free / 1e9:.2f} GB are free on {self.device}; at most "
                f"{max(0, free // self.row_bytes):,} fit: lower buffer_size"
            )


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on the device, as the system reports them."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            available = next(line for line in file if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
