"""Poses that a hand can take, with where its fingertips then are: starts and goals of reaching."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from robot_rl_sim.models import load_model
from robot_rl_sim.tasks.reach.hands import ReachHand

TOLERANCE_M = 0.015
"""A fingertip this close to its goal has reached it: about the radius of the rubber tip."""

RANGE_USED = (0.2, 0.8)
"""Part of each joint's range that is drawn from. Targets need room beyond a goal, as friction and gravity demand; and
nearer the limits a fingertip position often has a second solution, which ends at a limit just short of the goal."""


def sample_goals(hand: ReachHand, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n poses free of self-contact: joint_pos (n, n_joints) rad, and tips (n, 3 n_tips) m, root body frame, order of
    the chains."""
    generator = torch.Generator().manual_seed(seed)
    robot = hand.robot
    model = load_model(robot.name)
    model.geom_margin[:] = hand.clearance_m  # two surfaces closer than this count as a contact
    data = mujoco.MjData(model)
    low, high = _bounds(hand)
    sites = [model.site(chain.name).id for chain in robot.chains]
    root = model.body(robot.root_body).id
    poses, tips = torch.empty(n, len(low)), torch.empty(n, 3 * len(sites))
    found = 0
    while found < n:
        pose = low + (high - low) * torch.rand(len(low), generator=generator)
        data.qpos[:] = pose
        mujoco.mj_fwdPosition(model, data)
        if data.ncon:
            continue
        world = torch.from_numpy(data.site_xpos[sites] - data.xpos[root])
        poses[found] = pose
        # Rows times the root's rotation matrix are the rows in the root's frame.
        tips[found] = (world @ torch.from_numpy(data.xmat[root].reshape(3, 3))).flatten()
        found += 1
    return poses, tips


def _bounds(hand: ReachHand) -> tuple[Tensor, Tensor]:
    """Lower and upper bound (n_joints,) of the drawn angles."""
    lower = torch.tensor([j.lower_rad for j in hand.robot.joints])
    upper = torch.tensor([j.upper_rad for j in hand.robot.joints])
    low, high = (lower + part * (upper - lower) for part in RANGE_USED)
    sideways = torch.tensor([j.name in hand.sideways_joints for j in hand.robot.joints])
    return torch.where(sideways, -hand.sideways_rad, low), torch.where(sideways, hand.sideways_rad, high)
