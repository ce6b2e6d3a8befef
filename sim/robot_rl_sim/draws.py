"""What each episode draws once, as numbers in [-1, 1]: for whoever turns them into physics, and for critics."""

from __future__ import annotations

import torch
from torch import Tensor

from robot_rl.replay.mirror import Entries

Range = tuple[float, float]


class Draws:
    """Columns of numbers, uniform in [-1, 1], of which every world keeps one row for an episode.

    Columns are added at construction; `allocate` follows, and then `draw` at the start of every episode.
    """

    def __init__(self) -> None:
        self.layout: list[tuple[str, int]] = []
        """Name and width of each group of columns, in order."""
        self.mirror: list[tuple[int, int]] = []
        """The mirror image of a row (see robot_rl.replay.mirror)."""
        self.values = torch.zeros(0, 0)
        """(num_worlds, width)."""

    def add(self, name: str, mirror: Entries) -> slice:
        """A group of len(mirror) columns; `mirror` is their image with left and right exchanged, counted from 0."""
        first = len(self.mirror)
        self.layout.append((name, len(mirror)))
        self.mirror += [(first + entry, sign) for entry, sign in mirror]
        return slice(first, len(self.mirror))

    def allocate(self, num_worlds: int, device: torch.device) -> None:
        self.values = torch.zeros(num_worlds, len(self.mirror), device=device)

    def draw(self, worlds: Tensor, generator: torch.Generator) -> None:
        """New rows for the episodes that begin in `worlds` (k,)."""
        self.set(worlds, torch.rand(len(worlds), len(self.mirror), generator=generator, device=self.values.device))

    def set(self, worlds: Tensor, drawn: Tensor) -> None:
        """New rows from `drawn` (k, width) in [0, 1)."""
        self.values.index_copy_(0, worlds, 2 * drawn - 1)


def between(drawn: Tensor, ends: Range) -> Tensor:
    """[-1, 1] -> [low, high]."""
    low, high = ends
    return 0.5 * (low + high) + 0.5 * (high - low) * drawn


def gaussian(drawn: Tensor) -> Tensor:
    """Uniform in [-1, 1] -> standard normal, by the inverse of its distribution; at most 5 in size."""
    return 2**0.5 * torch.special.erfinv(drawn.clamp(-0.9999994, 0.9999994))
