"""Inverse kinematics by damped least squares on points of a robot, batched."""

from __future__ import annotations

import torch
from torch import Tensor

from robot_rl.networks.kinematics import TipKinematics

_STEP_RAD = 1e-3


def jacobian(kinematics: TipKinematics, joint_pos: Tensor) -> Tensor:
    """d tips / d joint_pos (n, 3 n_tips, n_joints) m/rad at joint_pos (n, n_joints) rad, by central differences."""
    n, joints = joint_pos.shape
    steps = _STEP_RAD * torch.eye(joints, dtype=torch.float64, device=joint_pos.device)
    shifted = joint_pos.double()[:, None, None] + torch.stack((steps, -steps))  # (n, 2, joints, joints)
    tips = kinematics(shifted.flatten(0, 2)).double().view(n, 2, joints, -1)
    return ((tips[:, 0] - tips[:, 1]) / (2 * _STEP_RAD)).transpose(1, 2).float()


def damped_step(kinematics: TipKinematics, joint_pos: Tensor, goal: Tensor, damping_m: float = 0.01) -> Tensor:
    """The change of joint_pos (n, n_joints) rad that minimises |tips - goal|² + |damping × change|², to first order.

    goal (n, 3 n_tips) m. `damping_m`, m/rad, keeps the step short where the arm can hardly move the tips.
    """
    error = goal - kinematics(joint_pos).flatten(1)
    j = jacobian(kinematics, joint_pos)
    normal = j.transpose(1, 2) @ j + damping_m**2 * torch.eye(j.shape[2], device=j.device)
    return torch.linalg.solve(normal, j.transpose(1, 2) @ error.unsqueeze(-1)).squeeze(-1)


def solve(kinematics: TipKinematics, start: Tensor, goal: Tensor, iterations: int = 12) -> Tensor:
    """Joint positions (n, n_joints) rad, near `start`, whose tips are at `goal` (n, 3 n_tips) m."""
    joint_pos = start
    for _ in range(iterations):
        joint_pos = joint_pos + damped_step(kinematics, joint_pos, goal).clamp(-0.3, 0.3)
    return joint_pos
