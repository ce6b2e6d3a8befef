"""Turning a cube in the hand, from one goal orientation to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robot_rl_sim.env import SimVecEnv


def make_leap_env(
    *,
    num_envs: int,
    seed: int,
    randomize: bool = True,
    device: str = "cpu",
    num_threads: int = 0,
    backend: str = "auto",
) -> SimVecEnv:
    """The LEAP hand's; see robot_rl.env.EnvFactory."""
    from robot_rl_sim.randomization import NOMINAL, RandomizationConfig
    from robot_rl_sim.tasks.assemble import assemble
    from robot_rl_sim.tasks.cube_reorient.hands import LEAP
    from robot_rl_sim.tasks.cube_reorient.mdp import CubeReorient

    randomization = RandomizationConfig() if randomize else NOMINAL
    return assemble(CubeReorient(LEAP, num_envs, seed), num_envs, seed, randomization, device, num_threads, backend)
