"""Task + model + backend = environment."""

from __future__ import annotations

import mujoco

from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.mdp import Mdp
from robot_rl_sim.motors import PD, set_motors
from robot_rl_sim.physics import AS_MODELLED, PhysicsConfig
from robot_rl_sim.randomization import RandomizationConfig


def assemble(
    mdp: Mdp,
    num_envs: int,
    seed: int,
    randomization: RandomizationConfig,
    device: str,
    num_threads: int,
    backend: str = "auto",
    physics: PhysicsConfig = AS_MODELLED,
) -> SimVecEnv:
    """The environment of `mdp`, solved as its model says but for `physics`. Raises ConfigError if physics step and
    control period do not fit, for a device that the backend does not run on, or for an unknown backend."""
    spec = mdp.model_spec()
    if randomization.motor != PD:
        set_motors(spec, mdp.robot, randomization.motor)
    model = spec.compile()
    physics.apply(model)
    period = mdp.policy_io.contract.control_period_s
    substeps = mdp.substeps if physics.timestep_s is None else round(period / physics.timestep_s)
    if abs(substeps * model.opt.timestep - period) > 1e-9:
        raise ConfigError(f"{substeps} steps of {model.opt.timestep} s are not the control period of {period} s")
    sim = make_sim(model, mdp.robot, num_envs, substeps, device, num_threads, backend)
    return SimVecEnv(mdp, sim, seed, randomization)


BACKENDS = ("mujoco", "warp", "isaacgym")


def choose_backend(device: str, backend: str) -> str:
    """Name in BACKENDS; auto is mujoco on the CPU and warp elsewhere. Raises ConfigError for what does not fit."""
    if backend == "auto":
        return "mujoco" if device == "cpu" else "warp"
    if backend not in BACKENDS:
        raise ConfigError(f"unknown backend {backend!r}; valid: auto, {', '.join(BACKENDS)}")
    if backend == "mujoco" and device != "cpu":
        raise ConfigError(f"backend 'mujoco' runs on device cpu, not on {device!r}; there, take backend 'warp'")
    if backend == "isaacgym" and device != "cpu":
        raise ConfigError(
            f"backend 'isaacgym' has its tensors on device cpu, not on {device!r}; its GPU is for physics"
        )
    return backend


def make_sim(
    model: mujoco.MjModel,
    robot: RobotSpec,
    num_worlds: int,
    substeps: int,
    device: str,
    num_threads: int,
    backend: str,
) -> BatchSim:
    """The physics of `choose_backend`; only mujoco uses `num_threads`."""
    backend = choose_backend(device, backend)
    if backend == "mujoco":
        return MujocoCpuSim(model, robot, num_worlds, substeps, num_threads)
    if backend == "warp":
        from robot_rl_sim.backends.mujoco_warp import MujocoWarpSim  # an extra, and slow to import

        return MujocoWarpSim(model, robot, num_worlds, substeps, device)
    from robot_rl_sim.backends.isaac_gym import IsaacGymSim

    return IsaacGymSim(model, robot, num_worlds, substeps)
