"""Any Stable-Baselines3 `VecEnv` as one of our environments, so that our algorithms train on it.

Usage:

    task = sb3_task("my-env", lambda num_envs, seed: make_vec_env(MyEnv, num_envs, seed))
    train(make_config(task, "sac", num_envs=8), task=task)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gymnasium as gym
import numpy as np
import torch
from gymnasium.wrappers import (
    ClipAction,
    FlattenObservation,
    OrderEnforcing,
    PassiveEnvChecker,
    RescaleAction,
    TimeLimit,
)
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
    unwrap_vec_normalize,
)
from stable_baselines3.common.vec_env import VecEnv as Sb3VecEnv
from torch import Tensor

from robot_rl.env import Step, Task, refuse_backend
from robot_rl.errors import CheckpointError, ConfigError, EnvError
from robot_rl.interop.gymnasium import DEFAULT_TIME_LIMIT
from robot_rl.interop.gymnasium_state import load_env_state, save_env_state
from robot_rl.interop.sb3 import Sb3Env
from robot_rl.interop.spaces import ActionBox, box

# Wrappers on which no later step depends, TimeLimit apart, whose clock is saved with the environment.
_MEMORYLESS = frozenset(
    {ClipAction, FlattenObservation, Monitor, OrderEnforcing, PassiveEnvChecker, RescaleAction, TimeLimit}
)
_MEMORYLESS_VECTOR = frozenset({VecCheckNan, VecMonitor, VecNormalize})


class VecEnvFromSb3:
    """A VecEnv (see robot_rl.env) on top of an SB3 one.

    Actions in [-1, 1] are mapped to the environments' box, whose half-width is `action_half_range`; observations are
    flattened to float32. The true last observation is the info's "terminal_observation"; an end is a truncation where
    the info says "TimeLimit.truncated", which is SB3's own rule.

    `restart_episodes` decides what a resumed run does with environments that cannot restore their state: begin new
    episodes, or (default) refuse. Raises ConfigError for spaces other than boxes, an unbounded action box, and a
    VecNormalize that still learns: it would change the meaning of what the replay buffer already holds.
    """

    def __init__(
        self, env: Sb3VecEnv, seed: int | None = None, device: str = "cpu", restart_episodes: bool = False
    ) -> None:
        normalize = unwrap_vec_normalize(env)
        if normalize is not None and normalize.training:
            raise ConfigError(
                "a VecNormalize that is training gives stored observations another meaning with every step; leave it "
                "out and set normalize_obs=True on the algorithm, or freeze it with training=False"
            )
        self.env = env
        self.num_envs = env.num_envs
        self.device = torch.device(device)
        self.max_episode_steps = _max_episode_steps(env)
        self._restart_episodes = restart_episodes
        self._action = ActionBox(env.action_space, "the actions of the SB3 environments")
        observation = box(env.observation_space, "the observations of the SB3 environments")
        self.obs_dim, self.action_dim = int(np.prod(observation.shape)), self._action.dim
        self.action_half_range = self._action.half_range.to(self.device)
        self._return = np.zeros(self.num_envs)
        self._length = np.zeros(self.num_envs, np.int64)
        self.reset(seed)

    def reset(self, seed: int | None = None) -> Tensor:
        if seed is not None:
            self.env.seed(seed)
        self._return[:], self._length[:] = 0.0, 0
        return self._tensor(self._flat(self.env.reset()))

    def step(self, action: Tensor) -> Step:
        obs, reward, ended, infos = self.env.step(self._action.native(action))
        obs = self._flat(obs)
        self._return += reward
        self._length += 1
        info = {"episode_return": self._tensor(self._return), "episode_length": self._tensor(self._length)}
        final_obs, truncated = obs.copy(), np.zeros(self.num_envs, bool)
        for i in np.flatnonzero(ended).tolist():
            if "terminal_observation" not in infos[i]:
                raise EnvError(f"env {i} ended and its info has no 'terminal_observation', which SB3 requires")
            final_obs[i] = np.asarray(infos[i]["terminal_observation"]).reshape(-1)
            truncated[i] = infos[i].get("TimeLimit.truncated", False)
        if any("is_success" in infos[i] for i in np.flatnonzero(ended)):
            info["success"] = self._tensor(np.array([bool(i.get("is_success", False)) for i in infos]))
        self._return[ended], self._length[ended] = 0.0, 0
        return Step(
            self._tensor(obs), self._tensor(reward.astype(np.float32)), self._tensor(ended & ~truncated),
            self._tensor(truncated), self._tensor(final_obs), info,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        """Exact for our own environments and for a DummyVecEnv of Gymnasium's MuJoCo and classic-control ones without
        wrappers that remember. Others hold what cannot be read from outside; `load_state_dict` then says so."""
        return {"return": self._tensor(self._return), "length": self._tensor(self._length)} | _save(self.env)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises CheckpointError where the environments cannot be restored, unless `restart_episodes` is set."""
        if _load(self.env, {name: value for name, value in state.items() if "/" in name}):
            self._return, self._length = (state[name].cpu().numpy().copy() for name in ("return", "length"))
            return
        if not self._restart_episodes:
            raise CheckpointError(
                f"{_inner(self.env)} cannot restore its state, so the run cannot go on exactly from where it was; with "
                "restart_episodes=True it goes on with new episodes"
            )
        self.reset()

    def close(self) -> None:
        self.env.close()

    def _flat(self, obs: object) -> NDArray[np.float32]:
        """(num_envs, obs_dim); a copy, since an SB3 environment may write into what it returned."""
        return np.array(obs, np.float32).reshape(self.num_envs, -1)

    def _tensor(self, array: NDArray) -> Tensor:
        """A copy, so that what was handed out never changes."""
        return torch.tensor(array, device=self.device)


def sb3_task(name: str, make: Callable[[int, int], Sb3VecEnv], *, restart_episodes: bool = False) -> Task:
    """A task of SB3 environments, for `train(config, task=task)`; `make(num_envs, seed)` builds them.

    What `make` returns is seeded here, so `make` may ignore its second argument. Building raises ConfigError where it
    gives another number of environments than it was asked for.
    """

    def make_env(
        *,
        num_envs: int,
        seed: int,
        randomize: bool = True,
        device: str = "cpu",
        num_threads: int = 0,
        backend: str = "auto",
    ) -> VecEnvFromSb3:
        refuse_backend(backend)
        env = make(num_envs, seed)
        if env.num_envs != num_envs:
            raise ConfigError(f"task {name!r} was asked for {num_envs} environments and made {env.num_envs}")
        return VecEnvFromSb3(env, seed, device, restart_episodes)

    return Task(name=name, summary="Stable-Baselines3 environments", robot=None, make_env=make_env)


def _max_episode_steps(env: Sb3VecEnv) -> int:
    """As the environments themselves say; they also cut the episodes."""
    if env.has_attr("max_episode_steps"):
        return int(env.get_attr("max_episode_steps", 0)[0])
    spec = env.get_attr("spec", 0)[0] if env.has_attr("spec") else None
    return getattr(spec, "max_episode_steps", None) or DEFAULT_TIME_LIMIT


def _inner(env: Sb3VecEnv) -> Sb3VecEnv:
    """What lies below the wrappers that remember nothing."""
    while isinstance(env, VecEnvWrapper) and type(env) in _MEMORYLESS_VECTOR:
        env = env.venv
    return env


def _save(env: Sb3VecEnv) -> dict[str, Tensor]:
    inner = _inner(env)
    if isinstance(inner, Sb3Env):
        return {f"inner/{name}": value for name, value in inner.env.state_dict().items()}
    if not isinstance(inner, DummyVecEnv) or not all(map(_is_known, inner.envs)):
        return {}
    return {f"env{i}/{name}": v for i, single in enumerate(inner.envs) for name, v in save_env_state(single).items()}


def _load(env: Sb3VecEnv, state: Mapping[str, Tensor]) -> bool:
    """Undo `_save`; False where it saved nothing."""
    inner = _inner(env)
    if not state:
        return False
    if isinstance(inner, Sb3Env):
        inner.env.load_state_dict({name.removeprefix("inner/"): value for name, value in state.items()})
        return True
    assert isinstance(inner, DummyVecEnv)  # nothing else saves anything
    for i, single in enumerate(inner.envs):
        prefix = f"env{i}/"
        load_env_state(single, {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
    return True


def _is_known(env: gym.Env) -> bool:
    """Whether all that this environment remembers is in what `save_env_state` reads."""
    while isinstance(env, gym.Wrapper):
        if type(env) not in _MEMORYLESS:
            return False
        env = env.env
    return type(env).__module__.startswith(("gymnasium.envs.mujoco.", "gymnasium.envs.classic_control."))
