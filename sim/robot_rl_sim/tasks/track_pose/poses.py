"""Poses that a robot can take: starts and goals of track-pose."""

from __future__ import annotations

import copy

import mujoco
import numpy as np
import torch
from torch import Tensor

from robot_rl.robots import RobotSpec
from robot_rl_sim.coupling import find_followers, follow
from robot_rl_sim.models import default_qpos

RANGE_USED = (0.15, 0.85)
"""Part of each joint's range that goals are drawn from: targets need room beyond, as gravity and friction demand."""
_SHRINK = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
"""A pose in which the robot would touch something is drawn in towards the home pose until it does not."""
_CLEARANCE_M = 0.005
_SETTLE_S = 0.5


def sample_poses(model: mujoco.MjModel, robot: RobotSpec, n: int, seed: int) -> Tensor:
    """n poses as qpos (n, nq), float64, free of contacts that the home pose does not have.

    `model` has the robot's base fixed. Where constraints couple bodies or tendons, the poses are those that the servos
    reach against them.
    """
    model = _with_margin(model)
    rng = np.random.default_rng(seed)
    data = mujoco.MjData(model)
    lower, upper = (np.array([getattr(j, f) for j in robot.joints]) for f in ("lower_rad", "upper_rad"))
    low, high = (lower + part * (upper - lower) for part in RANGE_USED)
    joints = [model.joint(name).id for name in robot.joint_names]
    followers = find_followers(model, set(joints))
    addresses = model.jnt_qposadr[joints]
    home = default_qpos(model, robot)
    data.qpos[:] = home
    mujoco.mj_fwdPosition(model, data)
    usual = _touching(data)
    settles = any(int(k) != int(mujoco.mjtEq.mjEQ_JOINT) for k in model.eq_type)
    poses = np.empty((n, model.nq))
    for i in range(n):
        drawn = rng.uniform(low, high)
        for part in _SHRINK:
            data.qpos[:] = home
            data.qpos[addresses] = home[addresses] + part * (drawn - home[addresses])
            follow(model, data.qpos, followers)
            mujoco.mj_fwdPosition(model, data)
            if _touching(data) <= usual:
                break
        poses[i] = _settled(model, data, addresses) if settles else data.qpos
    return torch.from_numpy(poses)


def _touching(data: mujoco.MjData) -> set[tuple[int, int]]:
    return {tuple(pair) for pair in data.contact.geom.tolist()}  # type: ignore[misc]


def _settled(model: mujoco.MjModel, data: mujoco.MjData, addresses: np.ndarray) -> np.ndarray:
    """Where the servos hold the robot half a second after it was put into the pose in `data`."""
    qpos, ctrl = data.qpos.copy(), data.qpos[addresses].copy()
    mujoco.mj_resetData(model, data)
    data.qpos[:], data.ctrl[:] = qpos, ctrl
    mujoco.mj_step(model, data, round(_SETTLE_S / model.opt.timestep))
    return data.qpos.copy()


def _with_margin(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy in which two surfaces closer than the clearance count as a contact, though they do not push yet."""
    model = copy.deepcopy(model)
    model.geom_margin[:] += _CLEARANCE_M
    model.geom_gap[:] += _CLEARANCE_M
    return model
