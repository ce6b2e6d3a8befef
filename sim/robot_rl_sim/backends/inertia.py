"""What MuJoCo derives from masses when it loads a model, for worlds whose masses differ. Plain tensors, any device."""

from __future__ import annotations

import mujoco
import numpy as np
import torch
from torch import Tensor

SOURCES = ("body_mass", "body_inertia", "body_ipos", "dof_armature")
"""Model fields from which the constants follow."""
DERIVED = ("body_subtreemass", "dof_invweight0", "body_invweight0", "tendon_invweight0")
"""Model fields that are such constants: the inverse weights scale how soft a constraint is."""

CHUNK = 4096
"""Worlds computed at once, which bounds the memory: 50 kB per world for a humanoid."""


class InertiaConstants:
    """The constants of `mj_setConst`, in double precision. They belong to the pose qpos0.

    With the Jacobian J of a constraint direction and the inertia M, its inverse weight is the diagonal of J M⁻¹ Jᵀ.
    """

    def __init__(self, model: mujoco.MjModel, device: torch.device) -> None:
        self._nbody, nv = model.nbody, model.nv
        data = mujoco.MjData(model)
        data.qpos[:] = model.qpos0
        mujoco.mj_fwdPosition(model, data)

        def tensor(x: np.ndarray) -> Tensor:
            return torch.from_numpy(np.array(x, dtype=np.float64)).to(device)

        origin, turning = np.zeros((2, model.nbody, 3, nv))
        for body in range(model.nbody):
            mujoco.mj_jacBody(model, data, origin[body], turning[body], body)
        tendons = np.zeros((model.ntendon, nv))
        if model.ntendon:
            mujoco.mju_sparse2dense(tendons, data.ten_J, model.ten_J_rownnz, model.ten_J_rowadr, model.ten_J_colind)
        self._origin, self._turning = tensor(origin), tensor(turning)
        self._tendons = tensor(tendons)
        self._rotation = tensor(data.xmat.reshape(-1, 3, 3))
        self._principal = tensor(data.ximat.reshape(-1, 3, 3)).mT @ self._turning
        self._within = tensor(_subtrees(model))
        self._moves = tensor(model.body_weldid != 0)
        self._dof_mean = tensor(_dof_mean(model))

        # Tendons with armature add to the inertia; they stay as loaded.
        self._more_inertia = torch.zeros(nv, nv, dtype=torch.float64, device=device)
        whole = np.zeros((nv, nv))
        mujoco.mj_fullM(model, data, whole)
        nominal = (tensor(getattr(model, name)).unsqueeze(0) for name in SOURCES)
        self._more_inertia = tensor(whole) - self._inertia(*nominal)[0][0]

    def __call__(self, mass: Tensor, inertia: Tensor, com: Tensor, armature: Tensor) -> dict[str, Tensor]:
        """DERIVED of k worlds, from SOURCES of them: (k, nbody), (k, nbody, 3), (k, nbody, 3) and (k, nv)."""
        parts = (x.double().split(CHUNK) for x in (mass, inertia, com, armature))
        chunks = [self._derive(*part) for part in zip(*parts, strict=True)]
        return {name: torch.cat([c[name] for c in chunks]) for name in DERIVED}

    def _derive(self, mass: Tensor, inertia: Tensor, com: Tensor, armature: Tensor) -> dict[str, Tensor]:
        k, nv = armature.shape
        whole, com_jacobian = self._inertia(mass, inertia, com, armature)
        # Unlike `cholesky`, does not make the device wait to tell whether it worked.
        factor, _ = torch.linalg.cholesky_ex(whole)
        bodies = torch.cat((com_jacobian, self._turning.expand(k, -1, -1, -1)), dim=2).flatten(1, 2)
        dofs = torch.eye(nv, dtype=factor.dtype, device=factor.device).expand(k, -1, -1)
        rows = torch.cat((dofs, bodies, self._tendons.expand(k, -1, -1)), dim=1)
        half = torch.linalg.solve_triangular(factor, rows.mT, upper=False)
        dof, body, tendon = half.square().sum(1).split((nv, 6 * self._nbody, len(self._tendons)), dim=1)
        body = body.unflatten(1, (self._nbody, 2, 3)).mean(-1) * self._moves.unsqueeze(-1)
        return {
            "body_subtreemass": mass @ self._within,
            "dof_invweight0": dof @ self._dof_mean,
            "body_invweight0": body,
            "tendon_invweight0": tendon,
        }

    def _inertia(self, mass: Tensor, inertia: Tensor, com: Tensor, armature: Tensor) -> tuple[Tensor, Tensor]:
        """Joint-space inertia (k, nv, nv), and Jacobians (k, nbody, 3, nv) of the bodies' centres of mass."""
        lever = self._rotation @ com.unsqueeze(-1)
        jacobian = self._origin + torch.linalg.cross(self._turning.expand(len(mass), -1, -1, -1), lever, dim=2)
        linear = mass.sqrt()[..., None, None] * jacobian
        angular = inertia.sqrt().unsqueeze(-1) * self._principal
        rows = torch.cat((linear, angular), dim=1).flatten(1, 2)
        return rows.mT @ rows + torch.diag_embed(armature) + self._more_inertia, jacobian


def _subtrees(model: mujoco.MjModel) -> np.ndarray:
    """(nbody, nbody): 1 where the first body is the second or hangs from it."""
    within = np.eye(model.nbody)
    for body in range(1, model.nbody):
        within[body] += within[model.body_parentid[body]]
    return within


def _dof_mean(model: mujoco.MjModel) -> np.ndarray:
    """(nv, nv): averages over the three directions of a ball joint, and over each three of a free joint."""
    mean = np.eye(model.nv)
    triples = {int(mujoco.mjtJoint.mjJNT_FREE): (0, 3), int(mujoco.mjtJoint.mjJNT_BALL): (0,)}
    for joint in range(model.njnt):
        for offset in triples.get(int(model.jnt_type[joint]), ()):
            first = int(model.jnt_dofadr[joint]) + offset
            mean[first : first + 3, first : first + 3] = 1 / 3
    return mean
