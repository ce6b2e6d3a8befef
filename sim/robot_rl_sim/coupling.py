"""Joints that follow others: mimic joints of URDF, joint equalities of MJCF."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

_SINGLE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


@dataclass(frozen=True)
class Follower:
    """A joint whose position is `offset + slope *` its leader's, which is exact for what mimic joints are."""

    joint: int
    leader: int
    offset: float
    slope: float


def is_single(model: mujoco.MjModel, joint: int) -> bool:
    """Whether the joint is a hinge or slide: one number, one torque."""
    return int(model.jnt_type[joint]) in _SINGLE


def find_followers(model: mujoco.MjModel, driven: set[int]) -> dict[int, Follower]:
    """Follower by joint id, leaders first. Of two coupled joints the one in `driven` leads, else the equality's second;
    where both are driven, neither follows."""
    pairs: dict[int, Follower] = {}
    for eq in range(model.neq):
        follower, leader = int(model.eq_obj1id[eq]), int(model.eq_obj2id[eq])
        is_joint = int(model.eq_type[eq]) == int(mujoco.mjtEq.mjEQ_JOINT)
        if not is_joint or not model.eq_active0[eq] or leader < 0 or {follower, leader} <= driven:
            continue
        # The polynomial is in the leader's distance from its reference position, and gives the follower's.
        offset, slope = (float(c) for c in model.eq_data[eq, :2])
        if slope == 0:
            continue
        offset += _reference(model, follower) - slope * _reference(model, leader)
        if follower in driven or follower in pairs:
            follower, leader, offset, slope = leader, follower, 0.0 - offset / slope, 1 / slope
        pairs[follower] = Follower(follower, leader, offset, slope)
    ordered: dict[int, Follower] = {}
    while pairs:
        free = [j for j, f in pairs.items() if f.leader not in pairs]
        if not free:  # each follows the other: take one of them for the leader
            pairs.popitem()
        ordered |= {j: pairs.pop(j) for j in free}
    return ordered


def follow(model: mujoco.MjModel, qpos: NDArray[np.float64], followers: dict[int, Follower]) -> None:
    """Put the followers where their leaders in qpos (nq,) want them."""
    for f in followers.values():
        qpos[model.jnt_qposadr[f.joint]] = f.offset + f.slope * qpos[model.jnt_qposadr[f.leader]]


def reduction(model: mujoco.MjModel, followers: dict[int, Follower]) -> NDArray[np.float64]:
    """Matrix (nv, nv): column d is all that moves when dof d moves by one and takes its followers along."""
    matrix = np.eye(model.nv)
    for f in followers.values():
        leader, follower = model.jnt_dofadr[f.leader], model.jnt_dofadr[f.joint]
        matrix[follower] = f.slope * matrix[leader]
    return matrix


def _reference(model: mujoco.MjModel, joint: int) -> float:
    return float(model.qpos0[model.jnt_qposadr[joint]])
