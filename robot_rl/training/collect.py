"""Collection: one step of all environments, checked and stored."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robot_rl.env import PrivilegedVecEnv, Step, VecEnv
from robot_rl.errors import EnvError
from robot_rl.replay.ring_buffer import RingBuffer


def collect(env: VecEnv, replay: RingBuffer, obs: Tensor, action: Tensor) -> Step:
    """Step all environments from obs (n_envs, obs_dim) and store the transitions, with the true last observations, each
    observation with the privileged one behind it where there is one.

    Raises EnvError, naming the quantity and the first such env, for a reward or observation that is not finite.
    """
    privileged = env.privileged() if privileged_dim(env) and isinstance(env, PrivilegedVecEnv) else None
    step = env.step(action)
    for name, value in (("reward", step.reward), ("observation", step.final_obs), ("observation", step.obs)):
        check_finite(name, value)
    final_obs = step.final_obs
    if privileged is not None and step.final_privileged is not None:
        check_finite("privileged observation", step.final_privileged)
        obs, final_obs = torch.cat((obs, privileged), -1), torch.cat((final_obs, step.final_privileged), -1)
    replay.add(obs, action, step.reward, step.terminated, step.truncated, final_obs)
    return step


def privileged_dim(env: VecEnv) -> int:
    """How many columns follow the observation in what `collect` stores."""
    return getattr(env, "privileged_dim", 0)


def check_finite(name: str, value: Tensor) -> None:
    """Raise EnvError naming the first row of value (n_envs, ...) that holds NaN or infinity."""
    # The sum of finite float32 numbers of any sane size is finite, and one reduction is cheap. If not, look closer.
    if math.isfinite(value.sum().item()):
        return
    bad = ~torch.isfinite(value.reshape(value.shape[0], -1)).all(-1)
    if bad.any():
        env = int(bad.nonzero()[0])
        raise EnvError(f"{name} of env {env} is not finite: {value[env].tolist()}")


def updates_due(learning_env_steps: int, updates_per_env_step: float, updates_done: int) -> int:
    """Updates to make now, so that after every step `updates_done` = floor(learning_env_steps * updates_per_env_step).

    Counting from the totals carries fractions without drift: rounding absorbs only the last float digits.
    """
    return max(0, math.floor(round(learning_env_steps * updates_per_env_step, 6)) - updates_done)
