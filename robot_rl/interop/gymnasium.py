"""Any Gymnasium environment with box observations and actions as a task: `--task gym:HalfCheetah-v5`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from torch import Tensor

from robot_rl.env import Step, Task, refuse_backend
from robot_rl.errors import ConfigError, MissingDependencyError
from robot_rl.interop.gymnasium_state import load_env_state, save_env_state
from robot_rl.interop.spaces import ActionBox, box

DEFAULT_TIME_LIMIT = 1_000
"""Steps after which an environment that has no time limit of its own is cut off."""


class GymnasiumVecEnv:
    """A VecEnv (see robot_rl.env) that steps `num_envs` Gymnasium environments in a loop.

    A loop, because on few cores it is as fast as SyncVectorEnv and several times faster than processes, and because it
    makes the reset explicit: the true last observation is in `final_obs`. Actions in [-1, 1] are mapped to the box of
    the environment, whose half-width is `action_half_range`; observations are flattened to float32.

    Raises ConfigError for spaces other than boxes and for an unbounded action box.
    """

    def __init__(self, env_id: str, num_envs: int, seed: int = 0, device: str = "cpu") -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs must be at least 1, got {num_envs}")
        self.env_id = env_id
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.max_episode_steps = find_spec(env_id).max_episode_steps or DEFAULT_TIME_LIMIT
        self._envs = [_make(env_id, self.max_episode_steps) for _ in range(num_envs)]
        self._action = ActionBox(self._envs[0].action_space, f"the actions of {env_id}")
        observation = box(self._envs[0].observation_space, f"the observations of {env_id}")
        self.obs_dim, self.action_dim = int(np.prod(observation.shape)), self._action.dim
        self.action_half_range = self._action.half_range.to(self.device)
        self._obs = np.zeros((num_envs, self.obs_dim), np.float32)
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs, np.int64)
        self.reset(seed)

    def reset(self, seed: int | None = None) -> Tensor:
        for i, env in enumerate(self._envs):
            # Later resets go on with the generator that this one seeds.
            self._start(i, env, None if seed is None else seed + i)
        return self._tensor(self._obs)

    def step(self, action: Tensor) -> Step:
        native = self._action.native(action)
        reward = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        final_obs = np.empty_like(self._obs)
        for i, env in enumerate(self._envs):
            obs, r, terminated[i], cut, _ = env.step(native[i])
            truncated[i] = cut and not terminated[i]
            reward[i] = r
            final_obs[i] = np.asarray(obs).reshape(-1)
        self._obs = final_obs.copy()
        self._return += reward
        self._length += 1
        info = {"episode_return": self._tensor(self._return), "episode_length": self._tensor(self._length)}
        for i in np.flatnonzero(terminated | truncated).tolist():
            self._start(i, self._envs[i], None)
        return Step(
            self._tensor(self._obs), self._tensor(reward), self._tensor(terminated), self._tensor(truncated),
            self._tensor(final_obs), info,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        """Exact for MuJoCo and classic-control environments. Of others only the obs and the episode's return and length
        can be told, and `load_state_dict` says so."""
        state = {
            "obs": self._tensor(self._obs),
            "return": self._tensor(self._return),
            "length": self._tensor(self._length),
        }
        for i, env in enumerate(self._envs):
            state |= {f"env{i}.{name}": value for name, value in save_env_state(env).items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`; an environment that cannot be restored starts a new episode, with a warning."""
        self._obs, self._return, self._length = (state[n].cpu().numpy().copy() for n in ("obs", "return", "length"))
        for i, env in enumerate(self._envs):
            prefix = f"env{i}."
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            if not load_env_state(env, own):
                self._start(i, env, None)

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _start(self, i: int, env: gym.Env, seed: int | None) -> None:
        obs, _ = env.reset(seed=seed)
        self._obs[i] = np.asarray(obs).reshape(-1)
        self._return[i], self._length[i] = 0.0, 0

    def _tensor(self, array: np.ndarray) -> Tensor:
        """A copy, so that what was handed out never changes."""
        return torch.tensor(array, device=self.device)


def gymnasium_task(env_id: str) -> Task:
    """The task gym:<env_id>. Raises ConfigError, with Gymnasium's suggestion, for an id that is not registered."""
    find_spec(env_id)
    return Task(
        name=f"gym:{env_id}", summary=f"Gymnasium's {env_id}", robot=None, make_env=partial(_make_vec, env_id=env_id)
    )


def find_spec(env_id: str) -> EnvSpec:
    """Gymnasium's registration of the id."""
    try:
        return gym.spec(env_id)
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise ConfigError(f"no Gymnasium environment {env_id!r}: {error}") from error


def _make_vec(
    *,
    env_id: str,
    num_envs: int,
    seed: int,
    randomize: bool = True,
    device: str = "cpu",
    num_threads: int = 0,
    backend: str = "auto",
) -> GymnasiumVecEnv:
    """See robot_rl.env.EnvFactory. There is no randomisation to switch off, and one thread."""
    refuse_backend(backend)
    return GymnasiumVecEnv(env_id, num_envs, seed, device)


def _make(env_id: str, max_episode_steps: int) -> gym.Env:
    try:
        return gym.make(env_id, max_episode_steps=max_episode_steps, disable_env_checker=True)
    except gym.error.DependencyNotInstalled as error:
        raise MissingDependencyError(f"{env_id} needs a package that is not installed: {error}") from error
    except gym.error.Error as error:
        raise ConfigError(f"cannot make {env_id!r}: {error}") from error
