"""Replay memory: the newest `capacity` transitions, sampled uniformly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.replay.n_step import NStep, discounts, n_step_return
from robot_rl.replay.storage import in_file, in_memory


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

    Every transition ever added has a number, from 0; number i lies in row i % capacity until number i + capacity
    replaces it. With `n_step`, `add` takes one step of all its environments at a time, always in the same order.

    Rows lie in the memory of `device`, or in a `file` that is mapped into memory and deleted with the buffer; batches
    come on `device` either way. Raises ConfigError at construction when memory or disk has not that much room.
    """

    def __init__(
        self,
        capacity: int,
        obs_dim: int,
        action_dim: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        n_step: NStep | None = None,
        file: Path | None = None,
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"buffer_size must be at least 1, got {capacity}")
        self.capacity = capacity
        self.device = torch.device(device)
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self.n_step = n_step
        self.total = 0
        """Transitions ever added: the number of the next one."""
        self._widths = [obs_dim, action_dim, 1, 1, 1, obs_dim]
        self._reward = obs_dim + action_dim  # the column; the flags and next_obs follow
        width = sum(self._widths)
        self.row_bytes = 4 * width
        self._rows = in_memory(capacity, width, self.device) if file is None else in_file(capacity, width, file)
        self.generator = torch.Generator(self._rows.device).manual_seed(seed)
        """Decides what is drawn."""
        if n_step is not None:
            self._ahead = torch.arange(n_step.n, device=self._rows.device) * n_step.num_envs
            self._powers = discounts(n_step, self._rows.device)

    def __len__(self) -> int:
        return min(self.total, self.capacity)

    def add(
        self, obs: Tensor, action: Tensor, reward: Tensor, terminated: Tensor, truncated: Tensor, next_obs: Tensor
    ) -> None:
        """Store n transitions, (n, ...) each, over the oldest ones."""
        flags = (reward, terminated, truncated)
        self.add_rows(torch.cat((obs, action, *(f.unsqueeze(-1).float() for f in flags), next_obs), dim=-1))

    def sample(self, batch_size: int) -> Batch:
        """Uniformly, with replacement."""
        return self.batch(self.draw(batch_size))

    def draw(self, batch_size: int) -> Tensor:
        """A sample as rows, for `batch` to take apart."""
        if self.total == 0:
            raise ConfigError("cannot sample from an empty replay buffer")
        index = torch.randint(len(self), (batch_size,), generator=self.generator, device=self._rows.device)
        rows = self._rows.index_select(0, index) if self.n_step is None else self._n_step_rows(index)
        return rows.to(self.device)

    def batch(self, rows: Tensor) -> Batch:
        """Rows as `draw` or `rows` returns them, as a batch of views."""
        widths = self._widths if rows.shape[-1] == sum(self._widths) else [*self._widths, 1]
        obs, action, reward, terminated, truncated, next_obs, *discount = rows.split(widths, dim=-1)
        return Batch(
            obs, action, reward.squeeze(-1), terminated.squeeze(-1), truncated.squeeze(-1), next_obs,
            discount[0].squeeze(-1) if discount else None,
        )  # fmt: skip

    def rows(self, first: int, end: int) -> Tensor:
        """Copies of the transitions numbered first to end - 1, as rows. They must still be stored."""
        if not self.total - len(self) <= first <= end <= self.total:
            raise IndexError(f"rows {first} to {end} of {self.total - len(self)} to {self.total}")
        index = torch.arange(first, end, device=self._rows.device) % self.capacity
        return self._rows.index_select(0, index)

    def add_rows(self, rows: Tensor) -> None:
        """Store rows as `rows` returns them."""
        self.total += max(0, rows.shape[0] - self.capacity)  # these would be overwritten at once
        rows = rows[-self.capacity :]
        at = self.total % self.capacity
        first = min(rows.shape[0], self.capacity - at)
        self._rows[at : at + first] = rows[:first]
        self._rows[: rows.shape[0] - first] = rows[first:]
        self.total += rows.shape[0]

    def largest_reward(self) -> float:
        """The largest |reward| stored; 0 when empty."""
        return self._rows[: len(self), self._reward].abs().max().item() if self.total else 0.0

    def state_dict(self) -> dict[str, Tensor]:
        """Rows from the oldest on, how many were ever added, and the generator: restores every later sample exactly."""
        rows = {"rows": self.rows(self.total - len(self), self.total), "total": torch.tensor(self.total)}
        return {**rows, "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises CheckpointError for rows that do not fit."""
        rows, total = state["rows"], int(state["total"])
        if rows.shape[1] != self._rows.shape[1] or rows.shape[0] < min(total, self.capacity):
            raise CheckpointError(
                f"a replay of {tuple(rows.shape)} does not fit a buffer of {tuple(self._rows.shape)}; "
                "buffer_size and the task must be those of the run"
            )
        self.clear(total - rows.shape[0])
        self.add_rows(rows)
        self.generator.set_state(state["generator"].cpu())

    def clear(self, total: int = 0) -> None:
        """Hold nothing, the next transition being number `total`. Rows up to the capacity, or all before `total`, must
        be added before anything is drawn."""
        self.total = total

    def _n_step_rows(self, index: Tensor) -> Tensor:
        """Rows from `index` on: with the return in place of the reward, with flags and next_obs of the last step that
        is in it, and the discount behind."""
        age = (index - self.total) % len(self)  # 0: the oldest
        slots = (index.unsqueeze(-1) + self._ahead) % self.capacity
        outcome = self._rows[:, self._reward : self._reward + 3].index_select(0, slots.view(-1))
        reward, terminated, truncated = outcome.view(*slots.shape, 3).unbind(-1)
        stored = age.unsqueeze(-1) + self._ahead < len(self)
        reward, steps = n_step_return(reward, (terminated + truncated) > 0, stored, self._powers)
        last = slots.gather(1, steps.unsqueeze(-1) - 1).squeeze(-1)
        start, end = self._rows[:, : self._reward], self._rows[:, self._reward + 1 :]
        returns, discount = reward.unsqueeze(-1), self._powers[steps].unsqueeze(-1)
        return torch.cat((start.index_select(0, index), returns, end.index_select(0, last), discount), dim=-1)
