"""Forward kinematics of a robot's chains as one tensor module, so that it can live inside an exported graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robot_rl.errors import ConfigError
from robot_rl.robots import Chain, RobotSpec


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
    """Tip positions of chains with equally many links, in the frame of the robot's root body.

    Each link's rotation is R0 (I + sin q K + (1 - cos q) K²), Rodrigues' formula about its axis, with R0 the link's
    fixed rotation: A + sin q B + cos q C, with A = R0 (I + K²), B = R0 K and C = -R0 K² constant.
    """

    def __init__(self, robot: RobotSpec, chains: tuple[Chain, ...]) -> None:
        super().__init__()
        lengths = {len(c.links) for c in chains}
        if len(lengths) != 1:
            raise ConfigError(f"robot {robot.name!r}: chains must have equally many links, got {sorted(lengths)}")
        self.n_links = lengths.pop()
        self.n_tips = len(chains)
        order = robot.joint_names
        index = [[order.index(link.joint) for link in c.links] for c in chains]
        quat = torch.tensor([[link.quat_wxyz for link in c.links] for c in chains], dtype=torch.float64)
        axis = torch.tensor([[link.axis for link in c.links] for c in chains], dtype=torch.float64)
        fixed = rotation_from_quat_wxyz(quat / quat.norm(dim=-1, keepdim=True))
        cross = _cross_matrix(axis / axis.norm(dim=-1, keepdim=True))
        position = torch.tensor([[link.pos_m for link in c.links] for c in chains], dtype=torch.float64)
        tip = torch.tensor([c.tip_pos_m for c in chains], dtype=torch.float64)
        squared = cross @ cross
        constants = {
            "constant": fixed + fixed @ squared,
            "by_sine": fixed @ cross,
            "by_cosine": -fixed @ squared,
            "position": position,
        }
        self.joint_index: Tensor
        self.constant: Tensor
        self.by_sine: Tensor
        self.by_cosine: Tensor
        self.position: Tensor
        self.tip: Tensor
        self.register_buffer("joint_index", torch.tensor(index).T.flatten(), persistent=False)
        for name, value in constants.items():  # (n_tips, n_links, 3, ...) -> (n_links, n_tips, 3, ..., 1)
            self.register_buffer(name, value.transpose(0, 1).unsqueeze(-1).float().contiguous(), persistent=False)
        self.register_buffer("tip", tip.unsqueeze(-1).float(), persistent=False)

    def forward(self, joint_pos: Tensor) -> Tensor:
        """Joint positions (n, n_joints) rad -> tip positions (n, n_tips, 3) m, root body frame."""
        # The batch comes last inside, so that every operation runs along it: memory order is most of the cost here.
        angle = joint_pos.T[self.joint_index].view(self.n_links, self.n_tips, 1, 1, -1)
        rotation = torch.addcmul(self.constant, angle.sin(), self.by_sine)
        rotation = torch.addcmul(rotation, angle.cos(), self.by_cosine)  # (n_links, n_tips, 3, 3, n)
        # From the tip inwards: rotating and shifting a point costs less than composing rotations.
        point = self.tip
        for link in range(self.n_links - 1, -1, -1):
            point = (rotation[link] * point.unsqueeze(1)).sum(2) + self.position[link]  # (n_tips, 3, n)
        return point.permute(2, 0, 1)


def _cross_matrix(axis: Tensor) -> Tensor:
    """Matrices (..., 3, 3) with K v = axis × v."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    rows = (torch.stack((zero, -z, y), -1), torch.stack((z, zero, -x), -1), torch.stack((-y, x, zero), -1))
    return torch.stack(rows, -2)
