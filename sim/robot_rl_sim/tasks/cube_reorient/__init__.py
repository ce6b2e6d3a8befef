"""Turning a cube in the hand from one goal orientation to the next, with any hand that has a HandSetup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robot_rl_sim.tasks.cube_reorient.hands import LEAP, SHADOW, HandSetup

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from robot_rl.env import VecEnv
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.randomization import RandomizationConfig

__all__ = ["LEAP", "LEAP_SAC", "SHADOW", "SHADOW_SAC", "make_env", "scripted"]

LEAP_SAC: dict[str, Any] = {
    "num_envs": 128,
    "total_env_steps": 4_000_000,
    "warmup_env_steps": 10_000,
    "updates_per_env_step": 0.0625,
    "batch_size": 256,
    "buffer_size": 1_000_000,
    "n_step": 3,
    "evaluate_every": 250_000,
    "evaluate_episodes": 64,
    "checkpoint_every": 250_000,
    "log_every": 10_000,
    "learning_rate": 1e-3,
    "lr_decay": True,
    "gamma": 0.97,
    "tau": 0.01,
    "initial_alpha": 0.02,
    "target_entropy": -16.0,
    "critic_layer_norm": True,
    "actor_hidden": (256, 256),
    "critic_hidden": (256, 256),
}
# Positions in the forearm's frame are far from zero, hence the normalisation.
SHADOW_SAC: dict[str, Any] = {**LEAP_SAC, "target_entropy": -24.0, "normalize_obs": True}


def make_env(
    hand: HandSetup,
    *,
    num_envs: int,
    seed: int,
    randomize: bool | RandomizationConfig = True,
    device: str = "cpu",
    num_threads: int = 0,
    backend: str = "auto",
) -> SimVecEnv:
    """See robot_rl.env.EnvFactory; the task table binds `hand`."""
    from robot_rl_sim.randomization import RandomizationConfig, chosen
    from robot_rl_sim.tasks.assemble import assemble
    from robot_rl_sim.tasks.cube_reorient.mdp import CubeReorient

    randomization = chosen(randomize, RandomizationConfig())
    return assemble(CubeReorient(hand, num_envs, seed), num_envs, seed, randomization, device, num_threads, backend)


def scripted(env: VecEnv) -> Callable[[Tensor], Tensor]:
    """An open-loop gait of the fingers."""
    from robot_rl_sim.tasks.cube_reorient.gait import gait

    return gait(env)
