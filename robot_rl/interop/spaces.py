"""Gymnasium spaces as our environments see them: flat observations, actions in [-1, 1]."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_rl.errors import ConfigError


def box(space: gym.Space[Any], what: str) -> gym.spaces.Box:
    """The space, if it is a box. Raises ConfigError, naming `what` and the space, if it is not."""
    if not isinstance(space, gym.spaces.Box):
        raise ConfigError(f"{what} are {space}; only Box spaces are supported")
    return space


class ActionBox:
    """The map from [-1, 1] to a box of actions. Raises ConfigError for other spaces and for an unbounded box."""

    def __init__(self, space: gym.Space[Any], what: str) -> None:
        action = box(space, what)
        if not action.is_bounded():
            raise ConfigError(f"{what} are unbounded ({action}); only bounded ones map to [-1, 1]")
        self._low, self._high = action.low.astype(np.float64), action.high.astype(np.float64)
        self._shape, self._dtype = action.shape, action.dtype
        self.dim = int(np.prod(action.shape))
        self.half_range = torch.from_numpy((self._high - self._low).reshape(-1) / 2).float()
        """(dim,): the environment's unit of each action."""

    def native(self, action: Tensor) -> NDArray[Any]:
        """Actions (n, dim), clipped to [-1, 1] -> (n, *shape) in the box."""
        unit = (np.clip(action.detach().cpu().numpy().astype(np.float64), -1, 1) + 1) / 2
        return (self._low + unit.reshape(-1, *self._shape) * (self._high - self._low)).astype(self._dtype)
