"""What each joint has to move and to hold: the inertia at it and the torque of gravity, over many poses."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl_sim.coupling import find_followers, follow, reduction

POSES = 64
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Loads:
    """Arrays (n_joints,), in kg m² and N m (kg and N of a slide), followers included."""

    inertia: Array
    """Largest over the poses, all other joints locked: motor rotor plus everything beyond the joint."""
    lightest: Array
    """Smallest over the poses, all other joints free: what physics accelerates at first."""
    gravity: Array
    """Largest torque that holds the joint against gravity, the base as in the file."""


def find_loads(model: mujoco.MjModel, joints: list[str], lower: Array, upper: Array, home: Array) -> Loads:
    """Loads of `joints` over their home pose (n_joints,) and random ones within their limits."""
    data = mujoco.MjData(model)
    ids = [model.joint(name).id for name in joints]
    qpos, dofs = model.jnt_qposadr[ids], model.jnt_dofadr[ids]
    followers = find_followers(model, set(ids))
    along = reduction(model, followers)
    # A follower has no column of its own left; its own row and column would make the reduced matrix singular.
    kept = [d for d in range(model.nv) if d not in {int(model.jnt_dofadr[f]) for f in followers}]
    columns, along = np.array([kept.index(d) for d in dofs]), along[:, kept]
    rng = np.random.default_rng(0)
    inertia, lightest, gravity = np.zeros(len(ids)), np.full(len(ids), np.inf), np.zeros(len(ids))
    full = np.zeros((model.nv, model.nv))
    for pose in range(POSES):
        mujoco.mj_resetData(model, data)
        data.qpos[qpos] = rng.uniform(lower, upper) if pose else home
        follow(model, data.qpos, followers)
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_fwdVelocity(model, data)
        mujoco.mj_fullM(model, data, full)
        reduced = along.T @ full @ along
        inertia = np.maximum(inertia, np.diag(reduced)[columns])
        lightest = np.minimum(lightest, 1 / np.diag(np.linalg.inv(reduced))[columns])
        gravity = np.maximum(gravity, np.abs(along.T @ (data.qfrc_bias - data.qfrc_passive))[columns])
    return Loads(inertia, lightest, gravity)
