"""Forward kinematics of a robot's chains as one tensor module, so that it can live inside an exported graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from robot_rl.errors import ConfigError
from robot_rl.robots import Chain, Link, RobotSpec


def rotation_from_quat_wxyz(quat: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4), scalar first."""
    w, x, y, z = quat.unbind(-1)
    rows = (
        torch.stack((1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)), -1),
        torch.stack((2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)), -1),
        torch.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), -1),
    )
    return torch.stack(rows, -2)


class TipKinematics(nn.Module):
    """Tip positions of chains in the frame of the robot's root body.

    Each link's rotation is R0 (I + sin q K + (1 - cos q) K²), Rodrigues' formula about its axis, with R0 the link's
    fixed rotation: A + sin q B + cos q C, with A = R0 (I + K²), B = R0 K and C = -R0 K² constant.

    Computed in float64 and rounded at the end: every runtime then yields the same float32, where float32 arithmetic in
    another order is off by a few ulp, which an observation scale and a trained network amplify a hundredfold.
    """

    def __init__(self, robot: RobotSpec, chains: tuple[Chain, ...]) -> None:
        super().__init__()
        if not chains:
            raise ConfigError(f"robot {robot.name!r} has no chains")
        self.n_links = max(len(c.links) for c in chains)
        self.n_tips = len(chains)
        # A shorter chain begins with links that do not move: a turn about no axis is the identity.
        still = Link(robot.joint_names[0], (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), axis=(0.0, 0.0, 0.0))
        padded = [(still,) * (self.n_links - len(c.links)) + c.links for c in chains]
        # All constants are (n_links, n_tips, ...): link by link from the root, each for all chains.
        links = [list(row) for row in zip(*padded, strict=True)]
        quat = torch.tensor([[link.quat_wxyz for link in row] for row in links], dtype=torch.float64)
        axis = torch.tensor([[link.axis for link in row] for row in links], dtype=torch.float64)
        origin = torch.tensor([[link.pos_m for link in row] for row in links], dtype=torch.float64).unsqueeze(-1)
        tip = torch.tensor([c.tip_pos_m for c in chains], dtype=torch.float64).unsqueeze(-1)
        fixed = rotation_from_quat_wxyz(quat / quat.norm(dim=-1, keepdim=True))
        cross = _cross_matrix(normalize(axis, dim=-1))
        squared = cross @ cross
        abc = torch.stack((fixed + fixed @ squared, fixed @ cross, -fixed @ squared), dim=-2)
        self.joint_index: Tensor
        self.origin: Tensor
        self.abc: Tensor
        self.abc_tip: Tensor
        index = torch.tensor([[robot.joint_names.index(link.joint) for link in row] for row in links])
        self.register_buffer("joint_index", index.flatten(), persistent=False)
        self.register_buffer("origin", origin, persistent=False)
        self.register_buffer("abc", abc.flatten(-2), persistent=False)
        self.register_buffer("abc_tip", (abc[-1] @ tip.unsqueeze(1)).squeeze(-1), persistent=False)

    def forward(self, joint_pos: Tensor) -> Tensor:
        """Joint positions (n, n_joints) rad -> tip positions (n, n_tips, 3) m, root body frame."""
        # The batch comes last inside, so that every operation runs along it: memory order is most of the cost here.
        angle = joint_pos.double().T[self.joint_index].view(self.n_links, self.n_tips, -1)
        weights = torch.stack((torch.ones_like(angle), angle.sin(), angle.cos()), 2).unbind(0)  # (n_tips, 3, n) each
        abc, origin = self.abc.unbind(0), self.origin.unbind(0)
        # From the tip inwards: rotating and shifting a point costs less than composing rotations.
        point = _affine(origin[-1], self.abc_tip, weights[-1])  # (n_tips, 3, n)
        for link in range(self.n_links - 2, -1, -1):
            weighted = (weights[link].unsqueeze(2) * point.unsqueeze(1)).flatten(1, 2)  # p, sin q p, cos q p
            point = _affine(origin[link], abc[link], weighted)
        return point.permute(2, 0, 1).float()


def _affine(offset: Tensor, matrix: Tensor, x: Tensor) -> Tensor:
    """offset (b, m, 1) + matrix (b, m, k) @ x (b, k, n)."""
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        # Fused with what is around it, where calls of a library for so few numbers would take longer than all else.
        return offset + (matrix.unsqueeze(-1) * x.unsqueeze(1)).sum(2)
    return torch.baddbmm(offset, matrix, x)


def _cross_matrix(axis: Tensor) -> Tensor:
    """Matrices (..., 3, 3) with K v = axis × v."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    rows = (torch.stack((zero, -z, y), -1), torch.stack((z, zero, -x), -1), torch.stack((-y, x, zero), -1))
    return torch.stack(rows, -2)
