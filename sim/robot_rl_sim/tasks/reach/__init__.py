"""Fingertip reaching, with any hand that has a ReachHand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robot_rl_sim.tasks.reach.hands import LEAP, SHADOW, ReachHand

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from robot_rl.env import VecEnv
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.randomization import RandomizationConfig

__all__ = ["LEAP", "LEAP_SAC", "SHADOW", "SHADOW_SAC", "make_env", "scripted"]

LEAP_SAC: dict[str, Any] = {
    "num_envs": 256,
    "total_env_steps": 300_000,
    "warmup_env_steps": 3_000,
    "updates_per_env_step": 0.03125,
    "batch_size": 512,
    "buffer_size": 300_000,
    "evaluate_every": 25_000,
    "evaluate_episodes": 128,
    "checkpoint_every": 100_000,
    "log_every": 5_000,
    "torch_threads": 2,
    "learning_rate": 2e-3,
    "lr_decay": True,
    "gamma": 0.9,
    "tau": 0.02,
    "initial_alpha": 0.02,
    "target_entropy": -16.0,
    "actor_hidden": (256, 256),
    "critic_hidden": (256, 256),
}
SHADOW_SAC: dict[str, Any] = {
    **LEAP_SAC,
    "total_env_steps": 400_000,
    "buffer_size": 400_000,
    "target_entropy": -24.0,
}


def make_env(
    hand: ReachHand,
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
    from robot_rl_sim.tasks.reach.mdp import Reach

    randomization = chosen(randomize, RandomizationConfig())
    return assemble(Reach(hand, seed), num_envs, seed, randomization, device, num_threads, backend)


def scripted(env: VecEnv) -> Callable[[Tensor], Tensor]:
    """Damped least squares on the fingertips."""
    from robot_rl_sim.tasks.reach.servo import servo

    return servo(env)
