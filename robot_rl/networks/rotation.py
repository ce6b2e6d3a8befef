"""Quaternions, scalar first, batched over the leading dimension."""

from __future__ import annotations

import torch
from torch import Tensor

# Entry [4 i + j, k]: what q_i q_j adds to component k of gravity, for q = (w, x, y, z).
_GRAVITY = torch.zeros(4, 4, 3)
_GRAVITY[0, 2, 0], _GRAVITY[1, 3, 0] = 2.0, -2.0
_GRAVITY[0, 1, 1], _GRAVITY[2, 3, 1] = -2.0, -2.0
_GRAVITY[[0, 1, 2, 3], [0, 1, 2, 3], 2] = torch.tensor([-1.0, 1.0, 1.0, -1.0])
_GRAVITY = _GRAVITY.flatten(0, 1)

# Entry [4 i + j, k]: what q_i q_j adds to entry k of a rotation matrix's first column, then of its second.
_COLUMNS = torch.zeros(4, 4, 6)
_COLUMNS[0, 0, [0, 4]] = 1.0
_COLUMNS[1, 1, 0], _COLUMNS[2, 2, 0], _COLUMNS[3, 3, 0] = 1.0, -1.0, -1.0
_COLUMNS[1, 1, 4], _COLUMNS[2, 2, 4], _COLUMNS[3, 3, 4] = -1.0, 1.0, -1.0
_COLUMNS[1, 2, [1, 3]] = 2.0
_COLUMNS[0, 3, 1], _COLUMNS[0, 3, 3] = 2.0, -2.0
_COLUMNS[1, 3, 2], _COLUMNS[0, 2, 2] = 2.0, -2.0
_COLUMNS[2, 3, 5], _COLUMNS[0, 1, 5] = 2.0, 2.0
_COLUMNS = _COLUMNS.flatten(0, 1)

# Entry [4 i + j, k]: what a_i b_j adds to component k of the product of a and b.
_PRODUCT = torch.zeros(4, 4, 4)
_PRODUCT[0, [0, 1, 2, 3], [0, 1, 2, 3]] = 1.0
_PRODUCT[[1, 2, 3], 0, [1, 2, 3]] = 1.0
_PRODUCT[[1, 2, 3], [1, 2, 3], 0] = -1.0
_PRODUCT[[1, 2, 3], [2, 3, 1], [3, 1, 2]] = 1.0
_PRODUCT[[2, 3, 1], [1, 2, 3], [3, 1, 2]] = -1.0
_PRODUCT = _PRODUCT.flatten(0, 1)
_CONJUGATE = torch.tensor([1.0, -1.0, -1.0, -1.0])


def bilinear(a: Tensor, b: Tensor, form: Tensor) -> Tensor:
    """Sum over i, j of a_i b_j form[i * size of b + j]: (n, p), (n, q), (p q, k) -> (n, k).

    A few operations instead of dozens; and as a sum, which compilers fuse with what is around it, and not as a product
    of matrices: to call a library for a few numbers takes longer than to compute them.
    """
    products = (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(1)
    return (products.unsqueeze(-1) * form).sum(1)


def gravity_in_body(quat_wxyz: Tensor) -> Tensor:
    """Unit gravity direction (n, 3) in the body frame, from the body's orientation (n, 4) in the world.

    Minus the last row of the rotation matrix, written as a quadratic form.
    """
    return bilinear(quat_wxyz, quat_wxyz, _GRAVITY.to(quat_wxyz))


def rotate(vector: Tensor, quat_wxyz: Tensor) -> Tensor:
    """A vector (n, 3) given in a body's frame, in the frame that the body's orientation (n, 4) is given in."""
    w, xyz = quat_wxyz[:, :1], quat_wxyz[:, 1:]
    across = 2 * torch.cross(xyz, vector, dim=-1)
    return vector + w * across + torch.cross(xyz, across, dim=-1)


def in_body(vector: Tensor, quat_wxyz: Tensor) -> Tensor:
    """A world vector (n, 3) in the frame of a body whose orientation in the world is given (n, 4)."""
    return rotate(vector, conjugate(quat_wxyz))


def conjugate(quat_wxyz: Tensor) -> Tensor:
    """The opposite rotation (n, 4) of a unit quaternion (n, 4)."""
    return quat_wxyz * _CONJUGATE.to(quat_wxyz)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product (n, 4): first the rotation b, then a."""
    return bilinear(a, b, _PRODUCT.to(a))


def rotation_columns(quat_wxyz: Tensor) -> Tensor:
    """First two columns (n, 6) of the rotation matrix of a unit quaternion (n, 4).

    What networks are best given of a rotation: continuous everywhere, and the same for q and -q (Zhou et al. 2019,
    "On the Continuity of Rotation Representations in Neural Networks", arXiv 1812.07035).
    """
    return bilinear(quat_wxyz, quat_wxyz, _COLUMNS.to(quat_wxyz))


def rotation_angle(quat_wxyz: Tensor) -> Tensor:
    """Angle (n,) in [0, π] of the rotation of a unit quaternion (n, 4), the same for q and -q."""
    # atan2 and not acos of w: exact near zero, too.
    return 2 * torch.atan2(torch.linalg.vector_norm(quat_wxyz[:, 1:], dim=-1), quat_wxyz[:, 0].abs())
