"""Batches with fixed shares from several replay buffers, such as half of it demonstrations (RLPD: Ball et al. 2023,
"Efficient Online Reinforcement Learning with Offline Data", arXiv 2302.02948, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.replay.ring_buffer import Batch, RingBuffer


@dataclass(frozen=True)
class Source:
    """One buffer of a mixture."""

    replay: RingBuffer
    share: float
    """Of every batch, in (0, 1]."""
    demonstration: bool = False
    """Whether its rows are marked as demonstrations."""


class Mixture:
    """Draws from each source its share of every batch, and sets `demonstration` in the batch.

    Raises ConfigError for shares that do not add up to 1, or for sources whose rows do not go together.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        shares = {name: source.share for name, source in sources.items()}
        if not all(share > 0 for share in shares.values()) or not math.isclose(sum(shares.values()), 1.0):
            raise ConfigError(f"the shares of a mixture must be positive and add up to 1, got {shares}")
        kinds = {name: _kind(source.replay) for name, source in sources.items()}
        if len(set(kinds.values())) > 1:
            raise ConfigError(f"the sources of a mixture must have equal rows and n-step returns, got {kinds}")
        self.sources = dict(sources)
        self._demonstration: Tensor | None = None

    def counts(self, batch_size: int) -> dict[str, int]:
        """Rows of each source in a batch: they add up to batch_size, none is more than one row off its share."""
        ends = [round(batch_size * share) for share in accumulate(s.share for s in self.sources.values())]
        counts = dict(zip(self.sources, (end - start for start, end in pairwise([0, *ends])), strict=True))
        if 0 in counts.values():
            raise ConfigError(f"batch_size {batch_size} is too small for its shares: {counts}")
        return counts

    def sample(self, batch_size: int) -> Batch:
        """Uniformly within each source, with replacement. Rows of one source are neighbours, in the sources' order."""
        counts = self.counts(batch_size)
        rows = torch.cat([self.sources[name].replay.draw(n) for name, n in counts.items()])
        if self._demonstration is None or self._demonstration.shape[0] != batch_size:
            flags = [rows.new_full((n,), float(self.sources[name].demonstration)) for name, n in counts.items()]
            self._demonstration = torch.cat(flags)
        first = next(iter(self.sources.values())).replay
        return replace(first.batch(rows), demonstration=self._demonstration)

    def state_dict(self) -> dict[str, Tensor]:
        """That of every source, under its name: restores every later sample exactly."""
        return {f"{n}.{k}": v for n, s in self.sources.items() for k, v in s.replay.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, source in self.sources.items():
            own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
            source.replay.load_state_dict(own)


def _kind(replay: RingBuffer) -> tuple[int, int, int, float]:
    """What must be equal for rows to go together: obs_dim, action_dim, steps per return, its discount."""
    spec = replay.n_step
    return (replay.obs_dim, replay.action_dim, spec.n if spec else 1, spec.gamma if spec else 1.0)
