"""Task + model + backend = environment."""

from __future__ import annotations

from robot_rl.errors import ConfigError
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.mdp import Mdp
from robot_rl_sim.models import load_model
from robot_rl_sim.randomization import RandomizationConfig


def assemble(
    mdp: Mdp, num_envs: int, seed: int, randomization: RandomizationConfig, device: str, num_threads: int
) -> SimVecEnv:
    """The environment of `mdp`. Raises ConfigError if physics step and control period do not fit, or for a device."""
    if device != "cpu":
        raise ConfigError(f"device {device!r} has no simulation backend; valid: cpu")
    model = load_model(mdp.robot.name)
    period = mdp.policy_io.contract.control_period_s
    if abs(mdp.substeps * model.opt.timestep - period) > 1e-9:
        raise ConfigError(f"{mdp.substeps} steps of {model.opt.timestep} s are not the control period of {period} s")
    sim = MujocoCpuSim(model, mdp.robot, num_envs, mdp.substeps, num_threads)
    return SimVecEnv(mdp, sim, seed, randomization)
