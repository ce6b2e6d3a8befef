"""Left-right symmetry of a robot, found in where its joints are and how they turn."""

from __future__ import annotations

import mujoco
import numpy as np

_ANCHOR_M = 0.01
_AXIS = 0.99
"""Least cosine between a joint's axis and the mirror image of its partner's."""
_RANGE = 0.05
"""Largest difference of limits, as a share of the range."""


def find_mirror(model: mujoco.MjModel, root: str, joints: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """For each joint the one that takes its place when left and right (y of the body `root`) change sides, and the sign
    of its angle there; empty if any joint has no partner or several."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    ids = [model.joint(name).id for name in joints]
    frame = data.body(root).xmat.reshape(3, 3)
    anchors = (data.xanchor[ids] - data.body(root).xpos) @ frame
    axes = data.xaxis[ids] @ frame
    slides = np.array([int(model.jnt_type[j]) == int(mujoco.mjtJoint.mjJNT_SLIDE) for j in ids])
    # A direction changes the sign of y; a rotation keeps that about y and turns the other way about x and z.
    images = axes * np.where(slides[:, None], (1, -1, 1), (-1, 1, -1))
    near = np.linalg.norm((anchors * (1, -1, 1))[:, None] - anchors[None], axis=-1) < _ANCHOR_M
    cosine = images @ axes.T
    alike = near & (np.abs(cosine) > _AXIS) & (slides[:, None] == slides[None])
    if (alike.sum(axis=1) != 1).any():
        return ()
    partners = alike.argmax(axis=1)
    signs = np.sign(cosine[np.arange(len(ids)), partners]).astype(int)
    ranges = model.jnt_range[ids]
    there = np.where(signs[:, None] > 0, ranges[partners], -ranges[partners][:, ::-1])
    if (np.abs(there - ranges) > _RANGE * np.ptp(ranges, axis=1, keepdims=True)).any():
        return ()
    return tuple((joints[k], int(sign)) for k, sign in zip(partners, signs, strict=True))
