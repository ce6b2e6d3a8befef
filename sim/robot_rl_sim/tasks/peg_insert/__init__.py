"""Peg insertion with the Franka Panda."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from robot_rl.env import VecEnv
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.randomization import RandomizationConfig
    from robot_rl_sim.tasks.peg_insert.expert import Expert

SAC: dict[str, Any] = {
    "num_envs": 16,
    "total_env_steps": 400_000,
    "warmup_env_steps": 5_000,
    "updates_per_env_step": 0.5,
    "batch_size": 256,
    "buffer_size": 400_000,
    "n_step": 3,
    "evaluate_every": 25_000,
    "evaluate_episodes": 64,
    "checkpoint_every": 50_000,
    "log_every": 4_000,
    "learning_rate": 5e-4,
    "gamma": 0.98,
    "tau": 0.01,
    "initial_alpha": 0.01,
    "target_entropy": -7.0,
    "critic_layer_norm": True,
}
"""Training settings; with the sparse reward they need demonstrations (`--demos`)."""


def make_env(
    *,
    num_envs: int,
    seed: int,
    randomize: bool | RandomizationConfig = True,
    device: str = "cpu",
    num_threads: int = 0,
    backend: str = "auto",
    reward: Literal["sparse", "dense"] = "sparse",
) -> SimVecEnv:
    """See robot_rl.env.EnvFactory; `reward` as in PegInsertConfig."""
    from robot_rl_sim.randomization import chosen
    from robot_rl_sim.tasks.assemble import assemble
    from robot_rl_sim.tasks.peg_insert.mdp import PegInsert, PegInsertConfig

    randomization = chosen(randomize, randomized())
    mdp = PegInsert(num_envs, seed, PegInsertConfig(reward=reward))
    return assemble(mdp, num_envs, seed, randomization, device, num_threads, backend)


def randomized() -> RandomizationConfig:
    """The usual ranges, with sensors and motors of an industrial arm: encoders and calibration put the tip within 1 mm,
    and torque ripples by half a percent."""
    from robot_rl_sim.randomization import RandomizationConfig
    from robot_rl_sim.sensor_config import SensorConfig, SensorsConfig

    encoder, speed = SensorConfig(noise=0.0001, bias=0.0005), SensorConfig(noise=0.02)
    sensors = SensorsConfig(joint_pos=encoder, joint_vel=speed)
    return RandomizationConfig(sensors=sensors, torque_noise_share=0.005)


def scripted(env: VecEnv) -> Expert:
    """The expert at its best."""
    from robot_rl_sim.tasks.peg_insert.expert import Expert

    return Expert(env)
