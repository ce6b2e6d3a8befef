"""What classical control makes of g1-balance: a linear-quadratic regulator about standing, its feet where they are.

It is told the true state, and cannot step: pushes beyond what ankles and hips catch make it fall.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_rl.env import VecEnv
from robot_rl.robots import UNITREE_G1
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.models import default_qpos, load_model

Matrix = NDArray[np.float64]

_FEET = ("left_ankle_roll_link", "right_ankle_roll_link")


def regulator(env: VecEnv) -> Callable[[Tensor], Tensor]:
    """Policy (obs -> action) of environments of g1-balance; it reads their physics, not the observation."""
    assert isinstance(env, SimVecEnv)
    io, sim = env.policy_io, env.sim
    model = load_model(UNITREE_G1.name)
    qpos, target = standing(model)
    feedback = gain(*linearized(model, qpos, target, env.mdp.substeps, io.scale.numpy()), cost(model, qpos))
    rest = torch.from_numpy(qpos).to(sim.qpos)
    gain_t = torch.from_numpy(feedback).float().to(env.device)
    middle = ((torch.from_numpy(target) - io.offset.double()) / io.scale).float().to(env.device)

    def act(obs: Tensor) -> Tensor:
        rotation = 2 * sim.qpos[:, 4:7] * sim.qpos[:, 3:4].sign()  # small angles, rad
        off = torch.cat((sim.qpos[:, :3] - rest[:3], rotation, sim.qpos[:, 7:] - rest[7:], sim.qvel), -1)
        return (middle - off.float() @ gain_t.T).clamp(-1.0, 1.0)

    return act


def standing(model: mujoco.MjModel) -> tuple[Matrix, Matrix]:
    """qpos (nq,) of the default pose, its soles level and pressed into the ground until they bear the weight, and the
    joint targets (n_joints,) whose servos hold it."""
    data = mujoco.MjData(model)
    qpos = default_qpos(model, UNITREE_G1)
    for side in ("left", "right"):
        hip, knee, ankle = (
            model.joint(f"{side}_{name}_joint").qposadr[0] for name in ("hip_pitch", "knee", "ankle_pitch")
        )
        qpos[ankle] = -(qpos[hip] + qpos[knee])
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    soles = [g for g in range(model.ngeom) if model.geom(g).bodyid[0] in [model.body(foot).id for foot in _FEET]]
    qpos[2] -= min(data.geom_xpos[g][2] - model.geom_size[g][0] for g in soles if model.geom_conaffinity[g])

    def forces(depth_m: float) -> Matrix:
        """Generalised forces (nv,) that are missing for rest at this depth."""
        data.qpos[:] = qpos
        data.qpos[2] -= depth_m
        data.qvel[:], data.qacc[:] = 0.0, 0.0
        mujoco.mj_inverse(model, data)
        return data.qfrc_inverse.copy()

    depth = min(np.linspace(0.0, 2e-3, 201), key=lambda d: abs(forces(d)[2]))
    target = qpos[7:] + forces(depth)[6:] / [j.kp_nm_rad for j in UNITREE_G1.joints]
    qpos[2] -= depth
    return qpos, target


def linearized(
    model: mujoco.MjModel, qpos: Matrix, target: Matrix, substeps: int, scale: Matrix
) -> tuple[Matrix, Matrix]:
    """A (2 nv, 2 nv) and B (2 nv, n_joints) of one control period about rest, for actions in [-1, 1]."""
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = qpos, target
    frictionloss = model.dof_frictionloss.copy()
    model.dof_frictionloss[:] = 0.0  # dry friction sticks at rest, and would hide all motion
    a, b = np.zeros((2 * model.nv, 2 * model.nv)), np.zeros((2 * model.nv, model.nu))
    mujoco.mj_forward(model, data)
    mujoco.mjd_transitionFD(model, data, 1e-6, True, a, b, None, None)
    model.dof_frictionloss[:] = frictionloss
    powers = [np.linalg.matrix_power(a, k) for k in range(substeps + 1)]
    return powers[-1], sum(powers[:-1]) @ b * scale


def cost(model: mujoco.MjModel, qpos: Matrix) -> Matrix:
    """Q (2 nv, 2 nv): above all, the centre of mass shall stay over the feet, and not move."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    mass, left, right = np.zeros((3, 3, model.nv))
    mujoco.mj_jacSubtreeCom(model, data, mass, model.body(UNITREE_G1.root_body).id)
    for jacobian, foot in zip((left, right), _FEET, strict=True):
        mujoco.mj_jacBody(model, data, jacobian, None, model.body(foot).id)
    over_feet, moving = (mass - (left + right) / 2)[:2], mass[:2]
    q = 0.1 * np.eye(2 * model.nv)
    q[3:6, 3:6] += np.eye(3)
    q[: model.nv, : model.nv] += 1000 * over_feet.T @ over_feet
    q[model.nv :, model.nv :] += 100 * moving.T @ moving
    return q


def gain(a: Matrix, b: Matrix, q: Matrix) -> Matrix:
    """K (n_joints, 2 nv) that minimises the sum of x'Qx + u'u with u = -K x, by structured doubling (Chu, Fan, Lin and
    Wang 2004, "Structure-preserving algorithms for periodic discrete-time algebraic Riccati equations")."""
    eye = np.eye(len(a))
    step, g, p = a, b @ b.T, q
    for _ in range(14):
        inverse = np.linalg.inv(eye + g @ p)
        step, g, p = (
            step @ inverse @ step,
            g + step @ inverse @ g @ step.T,
            p + step.T @ p @ inverse @ step,
        )
    return np.linalg.solve(np.eye(b.shape[1]) + b.T @ p @ b, b.T @ p @ a)
