"""Any of our environments as a Stable-Baselines3 `VecEnv`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv as Sb3VecEnv

from robot_rl.env import VecEnv
from robot_rl.errors import ConfigError

Indices = int | Iterable[int] | None


class Sb3Env(Sb3VecEnv):
    """An ended environment's info has "terminal_observation", "TimeLimit.truncated", "episode" and "is_success", which
    are what SB3's learners and loggers read. The environments share one object, so attributes are the same for all.
    """

    render_mode = None

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        self._actions = np.zeros((env.num_envs, env.action_dim), np.float32)
        self._start_s = time.monotonic()
        super().__init__(
            env.num_envs,
            gym.spaces.Box(-np.inf, np.inf, (env.obs_dim,), np.float32),
            gym.spaces.Box(-1.0, 1.0, (env.action_dim,), np.float32),
        )

    def reset(self) -> NDArray[np.float32]:
        """Start every environment anew, from the seed given to `seed`, if one was."""
        obs = self.env.reset(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        return obs.cpu().numpy()

    def step_async(self, actions: NDArray[np.float32]) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        step = self.env.step(torch.as_tensor(self._actions, dtype=torch.float32, device=self.env.device))
        ended = (step.terminated | step.truncated).cpu().numpy()
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        elapsed = round(time.monotonic() - self._start_s, 6)
        for i in np.flatnonzero(ended):
            infos[i] = {
                "TimeLimit.truncated": bool(step.truncated[i]),
                "terminal_observation": step.final_obs[i].cpu().numpy(),
                "episode": {
                    "r": float(step.info["episode_return"][i]),
                    "l": int(step.info["episode_length"][i]),
                    "t": elapsed,
                },
            }
            if "success" in step.info:
                infos[i]["is_success"] = bool(step.info["success"][i])
        return step.obs.cpu().numpy(), step.reward.cpu().numpy(), ended, infos

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        owner = self if hasattr(self, attr_name) else self.env
        return [getattr(owner, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ConfigError(f"{attr_name!r} is shared by all environments; it cannot be set for some of them")
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call once, since the environments are one object; the result is repeated for each index."""
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Indices = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]
