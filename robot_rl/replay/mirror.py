"""Left-right symmetry of a task, which doubles what a batch teaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.replay.ring_buffer import Batch

Entries = Sequence[tuple[int, int]]
"""Per entry of a mirrored vector: which entry of the vector it is, and its sign there, 1 or -1."""


class Mirror:
    """Mirrored observations and actions. Doing it twice changes nothing, else ConfigError at construction."""

    def __init__(self, obs: Entries, action: Entries, device: torch.device | str = "cpu") -> None:
        self._entries = (obs, action)
        self._obs = _tensors("obs", obs, device)
        self._action = _tensors("action", action, device)

    def to(self, device: torch.device | str) -> Mirror:
        """The same for tensors on another device."""
        return Mirror(*self._entries, device)

    def extended(self, tail: Entries) -> Mirror:
        """The same with further privileged entries behind the observation, whose own image is `tail`."""
        obs, action = self._entries
        return Mirror([*obs, *((len(obs) + entry, sign) for entry, sign in tail)], action, self._obs[0].device)

    def obs(self, obs: Tensor) -> Tensor:
        """(n, obs_dim), with privileged columns behind them where the task has some -> the same."""
        index, sign = self._obs
        return obs.index_select(-1, index) * sign

    def action(self, action: Tensor) -> Tensor:
        """(n, action_dim) -> (n, action_dim)."""
        index, sign = self._action
        return action.index_select(-1, index) * sign

    def double(self, batch: Batch) -> Batch:
        """The batch, followed by its mirror image."""
        images = {"obs": self.obs, "next_obs": self.obs, "action": self.action}
        doubled = {}
        for field in fields(batch):
            value: Tensor | None = getattr(batch, field.name)
            if value is not None:
                doubled[field.name] = torch.cat((value, images[field.name](value) if field.name in images else value))
        return Batch(**doubled)


def _tensors(name: str, entries: Entries, device: torch.device | str) -> tuple[Tensor, Tensor]:
    index = torch.tensor([i for i, _ in entries], device=device)
    sign = torch.tensor([s for _, s in entries], dtype=torch.float32, device=device)
    n = len(entries)
    back = all(0 <= i < n and entries[i][0] == k and entries[i][1] * s == 1 for k, (i, s) in enumerate(entries))
    if not back:
        raise ConfigError(f"mirroring {name} twice must change nothing; got (entry, sign) {list(entries)}")
    return index, sign
