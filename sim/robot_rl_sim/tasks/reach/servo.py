"""A scripted policy for reaching: damped least squares on the fingertips, from what a trained policy sees."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from robot_rl.env import VecEnv
from robot_rl.errors import ConfigError
from robot_rl.networks.kinematics import TipKinematics
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.inverse_kinematics import damped_step
from robot_rl_sim.tasks.reach.mdp import Reach

GAIN = 0.3
"""Share of the way that a step's change of target would make good: with a step of latency, more would overshoot."""


def servo(env: VecEnv) -> Callable[[Tensor], Tensor]:
    """Move the targets by what would bring the measured fingertips nearer. Raises ConfigError for another task."""
    if not isinstance(env, SimVecEnv) or not isinstance(env.mdp, Reach):
        raise ConfigError("this scripted policy is for the reach tasks")
    robot, io = env.mdp.robot, env.policy_io
    kinematics = TipKinematics(robot, robot.chains).to(env.device)
    goal_name = next(t.name for t in io.contract.inputs if t.source == "command")

    def act(obs: Tensor) -> Tensor:
        inputs = env.policy_inputs()
        step = damped_step(kinematics, inputs["joint_pos"], inputs[goal_name])
        return (GAIN * step / io.scale).clamp(-1.0, 1.0)

    return act
