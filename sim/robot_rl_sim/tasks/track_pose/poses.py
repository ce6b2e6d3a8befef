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
_SHRINK = (1.0, 0.8, 0.6, 0.4, 0.2)
"""A pose in which the robot would touch something is drawn in towards the home pose until it does not, or is that."""
_CLEARANCE_M = 0.005
_SETTLE_S = 0.5


def sample_poses(model: mujoco.MjModel, robot: RobotSpec, n: int, seed: int) -> Tensor:
    """n poses as qpos (n, nq), float64, free of contacts that the home pose does not have.

    `model` has the robot's base fixed. Where constraints couple bodies or tendons, the poses are those that the servos
    reach against them.
    """
    near = copy.deepcopy(model)
    near.geom_margin[:] += _CLEARANCE_M  # two surfaces closer than this are told, on this copy
    around = mujoco.MjData(near)
    rng = np.random.default_rng(seed)
    data = mujoco.MjData(model)
    lower, upper = (np.array([getattr(j, f) for j in robot.joints]) for f in ("lower_rad", "upper_rad"))
    low, high = (lower + part * (upper - lower) for part in RANGE_USED)
    joints = [model.joint(name).id for name in robot.joint_names]
    followers = find_followers(model, set(joints))
    addresses = model.jnt_qposadr[joints]
    home = default_qpos(model, robot)
    usual = _touching(near, around, home)
    settles = any(int(k) != int(mujoco.mjtEq.mjEQ_JOINT) for k in model.eq_type)
    poses = np.empty((n, model.nq))
    for i in range(n):
        drawn, poses[i] = rng.uniform(low, high), home
        for part in _SHRINK:
            pose = home.copy()
            pose[addresses] += part * (drawn - home[addresses])
            follow(model, pose, followers)
            if _touching(near, around, pose) <= usual:
                poses[i] = pose
                break
        if settles:
            poses[i] = _settled(model, data, poses[i], addresses)
    return torch.from_numpy(poses)


def _touching(model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of geoms that are closer than the clearance in the pose `qpos` (nq,)."""
    data.qpos[:] = qpos
    mujoco.mj_fwdPosition(model, data)
    return {
        (int(a), int(b)) for (a, b), gap in zip(data.contact.geom, data.contact.dist, strict=True) if gap < _CLEARANCE_M
    }


def _settled(model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray, addresses: np.ndarray) -> np.ndarray:
    """Where the servos hold the robot half a second after it was put into the pose `qpos` (nq,)."""
    mujoco.mj_resetData(model, data)
    data.qpos[:], data.ctrl[:] = qpos, qpos[addresses]
    mujoco.mj_step(model, data, round(_SETTLE_S / model.opt.timestep))
    return data.qpos.copy()
