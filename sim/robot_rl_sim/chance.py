"""Chance: the random numbers of an environment's steps and starts, drawn ahead in blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

BLOCK = 1024
"""Rows drawn at once, each for one world. After physics, which drives all else out of the caches, a draw takes longer
to begin than to make."""

Normal = Callable[[Tensor, torch.Generator], None]


class Chance:
    """A row of numbers for each world and step, and one for each episode that starts: uniform in [0, 1), but for those
    that `normal` draws anew in place. All come from one generator.
    """

    def __init__(self, num_worlds: int, step_width: int, start_width: int, normal: Normal, generator: torch.Generator):
        blocks, device = max(BLOCK // num_worlds, 1), generator.device
        self._generator = generator
        self._normal = normal
        self._steps = torch.zeros(blocks, num_worlds, step_width, device=device)
        self._starts = torch.zeros(max(BLOCK // 8, num_worlds), start_width, device=device)
        # Views, made once: making them in every step would cost what drawing ahead saves.
        self._step_rows = self._steps.unbind(0)
        self._next_step, self._next_start = len(self._steps), len(self._starts)

    def seed(self, seed: int) -> None:
        """All that comes next follows from `seed` alone."""
        self._generator.manual_seed(seed)
        self._next_step, self._next_start = len(self._steps), len(self._starts)

    def step(self) -> Tensor:
        """(num_worlds, step_width), valid until the next call."""
        if self._next_step == len(self._steps):
            self._draw(self._steps)
            self._next_step = 0
        self._next_step += 1
        return self._step_rows[self._next_step - 1]

    def start(self, k: int) -> Tensor:
        """(k, start_width) for k worlds, k <= num_worlds; valid until the next call."""
        if self._next_start + k > len(self._starts):
            self._draw(self._starts)
            self._next_start = 0
        self._next_start += k
        return self._starts[self._next_start - k : self._next_start]

    def _draw(self, block: Tensor) -> None:
        block.uniform_(generator=self._generator)
        self._normal(block, self._generator)

    def state_dict(self) -> dict[str, Tensor]:
        """Live tensors, but for the generator's state and for how much of the blocks is used up."""
        used = torch.tensor([self._next_step, self._next_start])
        return {"steps": self._steps, "starts": self._starts, "used": used, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state of the same shapes."""
        self._steps.copy_(state["steps"])
        self._starts.copy_(state["starts"])
        self._next_step, self._next_start = (int(used) for used in state["used"])
        self._generator.set_state(state["generator"])
