"""A scripted policy for cube reorientation: an open-loop gait of the fingers, of which only the direction is chosen.

The fingers press on the cube while they swing sideways, let go, and swing back, once a second: they drag its side
along. What it is worth is in the task's card; it is there as a floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robot_rl.env import VecEnv
from robot_rl.errors import ConfigError
from robot_rl.networks.rotation import conjugate, multiply
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.tasks.cube_reorient.mdp import CubeReorient

PERIOD_STEPS = 20
PRESS_RAD = 0.3


def gait(env: VecEnv) -> Callable[[Tensor], Tensor]:
    """Swing towards the goal. Raises ConfigError for an environment of another task."""
    if not isinstance(env, SimVecEnv) or not isinstance(env.mdp, CubeReorient):
        raise ConfigError("this scripted policy is for the cube tasks")
    hand, io = env.mdp.hand, env.policy_io
    grasp, normal, swing, press = (
        torch.tensor(x, device=env.device)
        for x in (
            hand.grasp_rad,
            hand.palm_normal,
            [hand.swing_rad.get(name, 0.0) for name in hand.robot.joint_names],
            [PRESS_RAD * (name in hand.press_joints) for name in hand.robot.joint_names],
        )
    )
    step = 0

    def act(obs: Tensor) -> Tensor:
        nonlocal step
        inputs = env.policy_inputs()
        left = multiply(inputs["goal_quat_wxyz"], conjugate(inputs["object_quat_wxyz"]))
        direction = torch.sign(left[:, 1:] @ normal * left[:, 0]).unsqueeze(-1)
        phase = math.tau * step / PERIOD_STEPS
        step += 1
        target = grasp + direction * swing * math.sin(phase) + press * math.cos(phase)
        return ((target - inputs["last_target"]) / io.scale).clamp(-1.0, 1.0)

    return act
