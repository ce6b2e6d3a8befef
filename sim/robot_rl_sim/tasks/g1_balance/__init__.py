"""Standing under pushes with the Unitree G1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from robot_rl.env import VecEnv
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.randomization import RandomizationConfig


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
    from robot_rl_sim.randomization import RandomizationConfig, chosen
    from robot_rl_sim.tasks.assemble import assemble
    from robot_rl_sim.tasks.g1_balance.mdp import G1Balance

    randomization = chosen(randomize, RandomizationConfig())
    return assemble(G1Balance(), num_envs, seed, randomization, device, num_threads, backend)


def scripted(env: VecEnv) -> Callable[[Tensor], Tensor]:
    """See robot_rl.env.Task.scripted: a linear-quadratic regulator."""
    from robot_rl_sim.tasks.g1_balance.regulator import regulator

    return regulator(env)
