"""Hand poses that the LEAP hand can take, with where its fingertips then are: starts and goals of leap-reach."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from robot_rl.robots import LEAP_HAND
from robot_rl_sim.models import load_model

TOLERANCE_M = 0.015
"""A fingertip this close to its goal has reached it: about the radius of the rubber tip."""

RANGE_USED = (0.2, 0.8)
"""Part of each joint's range that is drawn from. Targets need room beyond a goal, as friction and gravity demand; and
nearer the limits a fingertip position often has a second solution, which ends at a limit just short of the goal."""
ABDUCTION_RAD = 0.35
"""Largest sideways angle of a finger: beyond it, neighbours cross."""


CLEARANCE_M = 0.005
"""Fingers of a drawn pose are at least this far apart: contact within the tolerance would decide, not skill."""


def sample_goals(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n poses free of self-contact: joint_pos (n, 16) rad, and tips (n, 12) m, palm frame, order of the chains."""
    generator = torch.Generator().manual_seed(seed)
    model = load_model("leap_hand")
    model.geom_margin[:] = CLEARANCE_M  # two surfaces closer than this count as a contact
    data = mujoco.MjData(model)
    low, high = _bounds()
    sites = [model.site(chain.name).id for chain in LEAP_HAND.chains]
    palm = model.body(LEAP_HAND.root_body).id
    poses, tips = torch.empty(n, len(low)), torch.empty(n, 3 * len(sites))
    found = 0
    while found < n:
        pose = low + (high - low) * torch.rand(len(low), generator=generator)
        data.qpos[:] = pose
        mujoco.mj_fwdPosition(model, data)
        if data.ncon:
            continue
        world = torch.from_numpy(data.site_xpos[sites] - data.xpos[palm])
        poses[found] = pose
        # Rows times the palm's rotation matrix are the rows in the palm frame.
        tips[found] = (world @ torch.from_numpy(data.xmat[palm].reshape(3, 3))).flatten()
        found += 1
    return poses, tips


def _bounds() -> tuple[Tensor, Tensor]:
    """Lower and upper bound (16,) of the drawn angles."""
    lower = torch.tensor([j.lower_rad for j in LEAP_HAND.joints])
    upper = torch.tensor([j.upper_rad for j in LEAP_HAND.joints])
    low, high = (lower + part * (upper - lower) for part in RANGE_USED)
    sideways = torch.tensor([j.name.endswith("_rot") for j in LEAP_HAND.joints])
    return torch.where(sideways, -ABDUCTION_RAD, low), torch.where(sideways, ABDUCTION_RAD, high)
