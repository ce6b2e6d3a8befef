"""Walking with the Unitree G1: as commanded, on level or rough ground."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.randomization import RandomizationConfig
    from robot_rl_sim.tasks.g1_velocity.mdp import G1VelocityConfig


SAC: Mapping[str, Any] = {
    "num_envs": 64,
    "total_env_steps": 4_000_000,
    "warmup_env_steps": 10_000,
    "warmup_policy": "initial",
    "updates_per_env_step": 0.25,
    "batch_size": 128,
    "buffer_size": 1_000_000,
    "n_step": 3,
    "symmetry": True,
    "evaluate_every": 200_000,
    "evaluate_episodes": 64,
    "checkpoint_every": 200_000,
    "log_every": 10_000,
    "learning_rate": 5e-4,
    "lr_decay": True,
    "initial_std": 0.3,
    "initial_alpha": 0.001,
    "normalize_obs": True,
}
"""On a CPU. For a GPU take `--recipe fastsac` on top of it."""


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
    from robot_rl_sim.tasks.g1_velocity.mdp import G1VelocityConfig

    return _make(G1VelocityConfig(), num_envs, seed, randomize, device, num_threads, backend)


def make_rough_env(
    *,
    num_envs: int,
    seed: int,
    randomize: bool | RandomizationConfig = True,
    device: str = "cpu",
    num_threads: int = 0,
    backend: str = "auto",
) -> SimVecEnv:
    """See robot_rl.env.EnvFactory. The ground is the same for every seed, so that runs and evaluations share it."""
    from robot_rl_sim.tasks.g1_velocity.commands import CommandConfig
    from robot_rl_sim.tasks.g1_velocity.mdp import G1VelocityConfig
    from robot_rl_sim.terrain import TerrainConfig

    config = G1VelocityConfig(terrain=TerrainConfig(), commands=CommandConfig(heading_share=0.5))
    return _make(config, num_envs, seed, randomize, device, num_threads, backend)


def _make(
    config: G1VelocityConfig,
    num_envs: int,
    seed: int,
    randomize: bool | RandomizationConfig,
    device: str,
    num_threads: int,
    backend: str,
) -> SimVecEnv:
    from robot_rl_sim.randomization import RandomizationConfig, chosen
    from robot_rl_sim.tasks.assemble import assemble, choose_backend
    from robot_rl_sim.tasks.g1_velocity.mdp import G1Velocity

    choose_backend(device, backend)  # refuses before any tensor is made there
    randomization = chosen(randomize, RandomizationConfig())
    mdp = G1Velocity(num_envs, config, device)
    return assemble(mdp, num_envs, seed, randomization, device, num_threads, backend)
