"""Any of our environments as a `gymnasium.vector.VectorEnv`, for Gymnasium's wrappers and learners that speak it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from robot_rl.env import Step, VecEnv
from robot_rl.errors import ConfigError

FINAL_KEYS = ("episode_return", "episode_length", "success")


class GymnasiumVectorEnv(VectorEnv[NDArray[np.float32], NDArray[np.float32], NDArray[Any]]):
    """Autoreset is SAME_STEP: an ended environment returns its first new observation, and its true last one, with the
    episode's scalars, in infos["final_obs"] and infos["final_info"]. Rewards of each term are infos["reward/<term>"].
    """

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (env.obs_dim,), np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (env.action_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.action_space = batch_space(self.single_action_space, env.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start every environment anew. Raises ConfigError for options, of which there are none."""
        if options:
            raise ConfigError(f"reset takes no options, got {sorted(options)}; environments reset themselves")
        super().reset(seed=seed)
        return self.env.reset(seed).cpu().numpy(), {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Actions (n, action_dim) in [-1, 1] -> obs, rewards, terminations, truncations, infos."""
        step = self.env.step(torch.as_tensor(actions, dtype=torch.float32, device=self.env.device))
        obs, reward = step.obs.cpu().numpy(), step.reward.cpu().numpy()
        return obs, reward, step.terminated.cpu().numpy(), step.truncated.cpu().numpy(), _infos(step)

    def close_extras(self, **kwargs: Any) -> None:
        self.env.close()


def _infos(step: Step) -> dict[str, Any]:
    """Gymnasium's form: each value (n,) beside a mask "_<key>" of the environments that have it."""
    everywhere = np.ones(len(step.reward), dtype=bool)
    infos: dict[str, Any] = {}
    for key, value in step.info.items():
        if key not in FINAL_KEYS:
            infos |= {key: value.cpu().numpy(), f"_{key}": everywhere}
    ended = (step.terminated | step.truncated).cpu().numpy()
    if ended.any():
        final_obs = np.full(len(ended), None, dtype=object)
        for i in np.flatnonzero(ended):
            final_obs[i] = step.final_obs[i].cpu().numpy()
        final_info: dict[str, Any] = {}
        for key in FINAL_KEYS:
            if key in step.info:
                value = step.info[key].cpu().numpy()
                final_info |= {key: np.where(ended, value, np.zeros_like(value)), f"_{key}": ended}
        infos |= {"final_obs": final_obs, "_final_obs": ended, "final_info": final_info, "_final_info": ended}
    return infos
