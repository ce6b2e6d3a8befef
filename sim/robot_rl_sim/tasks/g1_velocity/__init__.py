"""Walking with the Unitree G1: as commanded, on level or rough ground."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.tasks.g1_velocity.mdp import G1VelocityConfig


def make_env(
    *,
    num_envs: int,
    seed: int,
    randomize: bool = True,
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
    randomize: bool = True,
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
    randomize: bool,
    device: str,
    num_threads: int,
    backend: str,
) -> SimVecEnv:
    from robot_rl_sim.randomization import NOMINAL, RandomizationConfig
    from robot_rl_sim.tasks.assemble import assemble
    from robot_rl_sim.tasks.g1_velocity.mdp import G1Velocity

    randomization = RandomizationConfig() if randomize else NOMINAL
    mdp = G1Velocity(num_envs, config, device)
    return assemble(mdp, num_envs, seed, randomization, device, num_threads, backend)
