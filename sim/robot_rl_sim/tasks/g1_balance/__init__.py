"""Standing under pushes with the Unitree G1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from robot_rl.env import VecEnv
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.randomization import RandomizationConfig

SAC: Mapping[str, Any] = {
    "num_envs": 64,
    "total_env_steps": 1_200_000,
    "warmup_env_steps": 10_000,
    "warmup_policy": "initial",
    "updates_per_env_step": 0.25,
    "batch_size": 128,
    "buffer_size": 1_000_000,
    "n_step": 3,
    "symmetry": True,
    "evaluate_every": 100_000,
    "evaluate_episodes": 64,
    "checkpoint_every": 100_000,
    "log_every": 10_000,
    "learning_rate": 5e-4,
    "lr_decay": True,
    "initial_std": 0.3,
    "initial_alpha": 0.01,
    "normalize_obs": True,
}
"""An hour on one core with `--compile --precision bfloat16`. A fall takes a second to become one, so the discount is
that of a second or two (the default, 0.99): with 0.97 it was not learned to stand. Most time goes into updates, which
is why batches are small, and their mirror images in them."""


def make_env(
    *,
    num_envs: int,
    seed: int,
    randomize: bool | RandomizationConfig = True,
    device: str = "cpu",
    num_threads: int = 0,
    backend: str = "auto",
) -> SimVecEnv:
    """See robot_rl.env.EnvFactory."""
    from robot_rl_sim.randomization import chosen
    from robot_rl_sim.tasks.assemble import assemble
    from robot_rl_sim.tasks.g1_balance.mdp import G1Balance

    randomization = chosen(randomize, randomized())
    return assemble(G1Balance(), num_envs, seed, randomization, device, num_threads, backend)


def randomized() -> RandomizationConfig:
    """The usual ranges; besides, all motors are weak or strong together, as with a battery's voltage."""
    from robot_rl_sim.randomization import RandomizationConfig

    return RandomizationConfig(all_motors_scale=(0.9, 1.1))


def scripted(env: VecEnv) -> Callable[[Tensor], Tensor]:
    """See robot_rl.env.Task.scripted: a linear-quadratic regulator."""
    from robot_rl_sim.tasks.g1_balance.regulator import regulator

    return regulator(env)
