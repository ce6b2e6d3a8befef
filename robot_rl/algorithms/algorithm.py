"""What the training loop needs of an algorithm, and the table of algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robot_rl.algorithms.arsq import ARSQ, ARSQConfig
from robot_rl.algorithms.dsact import DSACT, DSACTConfig
from robot_rl.algorithms.sac import SAC, SACConfig
from robot_rl.errors import ConfigError
from robot_rl.replay.ring_buffer import Batch

AlgorithmConfig = SACConfig | DSACTConfig | ARSQConfig
"""Union of the configuration types in ALGORITHMS."""


class Algorithm(Protocol):
    """An off-policy learner. Observations are raw; actions are in [-1, 1]."""

    @property
    def config(self) -> AlgorithmConfig: ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scalars that `update` returns."""
        ...

    @property
    def normalizer(self) -> nn.Module:
        """obs (n, obs_dim) -> what the actor and critics take."""
        ...

    def act(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        """obs (n, obs_dim) -> action (n, action_dim)."""
        ...

    def observe(self, obs: Tensor) -> None:
        """Take the observations of a collection step into the normaliser."""
        ...

    def update(self, batch: Batch, lr_scale: float = 1.0) -> dict[str, Tensor]:
        """One gradient update, its step sizes times `lr_scale`; returns 0-d tensors, left on the device so that nothing
        waits for them."""
        ...

    def actor(self) -> nn.Module:
        """The deterministic policy for export: normalised obs -> action."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that the next update depends on, under dotted names."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class AlgorithmFactory(Protocol):
    def __call__(
        self,
        config: Any,
        obs_dim: int,
        action_dim: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        action_half_range: Tensor | None = None,
        privileged_dim: int = 0,
    ) -> Algorithm:
        """`privileged_dim` columns follow the obs_dim of the actor in a batch's obs and next_obs: for critics only."""
        ...


@dataclass(frozen=True)
class AlgorithmEntry:
    config: type[AlgorithmConfig]
    make: AlgorithmFactory
    summary: str


ALGORITHMS: dict[str, AlgorithmEntry] = {
    "sac": AlgorithmEntry(SACConfig, SAC, "Soft Actor-Critic with automatic temperature (arXiv 1812.05905)"),
    "dsact": AlgorithmEntry(DSACTConfig, DSACT, "DSAC-T: soft actor-critic with Gaussian returns (arXiv 2310.05858)"),
    "arsq": AlgorithmEntry(ARSQConfig, ARSQ, "Auto-regressive soft Q-learning, for mixed data (arXiv 2502.00288)"),
}


def get_algorithm(name: str) -> AlgorithmEntry:
    """Entry by name. Raises ConfigError listing the valid names."""
    if name not in ALGORITHMS:
        raise ConfigError(f"unknown algorithm {name!r}; valid: {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name]
