"""Rotations against matrices made column by column, and against rotations composed as matrices."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from robot_rl.contract import ActionSpec, TensorSpec
from robot_rl.errors import ConfigError
from robot_rl.networks.kinematics import rotation_from_quat_wxyz
from robot_rl.networks.policy_io import ObservationTerm, PolicyIO
from robot_rl.networks.rotation import conjugate, multiply, rotate, rotation_angle, rotation_columns
from robot_rl.robots import LEAP_HAND


def about(axis: tuple[float, float, float], degrees: float) -> torch.Tensor:
    half = math.radians(degrees) / 2
    return torch.tensor([[math.cos(half), *(math.sin(half) * a for a in axis)]])


def random_quats(n: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)), dim=-1)


def reorient_io(command_dim: int = 4) -> PolicyIO:
    low, high = (tuple(getattr(j, f"{end}_rad") for j in LEAP_HAND.joints) for end in ("lower", "upper"))
    return PolicyIO(
        LEAP_HAND,
        (ObservationTerm("object_pos"), ObservationTerm("object_rotation"), ObservationTerm("goal_rotation", 2.0)),
        ActionSpec("position_delta", (0.1,) * 16, (0.0,) * 16, low, high),
        0.05,
        TensorSpec("goal_quat_wxyz", (command_dim,), "1", "command"),
    )


def test_columns_of_known_turns() -> None:
    root = math.sqrt(0.5)
    for quat, first, second in (
        (about((0, 0, 1), 0), (1, 0, 0), (0, 1, 0)),
        (about((0, 0, 1), 90), (0, 1, 0), (-1, 0, 0)),
        (about((1, 0, 0), 90), (1, 0, 0), (0, 0, 1)),
        (about((0, 1, 0), 90), (0, 0, -1), (0, 1, 0)),
        (about((0, 0, 1), 180), (-1, 0, 0), (0, -1, 0)),
        (about((0, 0, 1), 45), (root, root, 0), (-root, root, 0)),
    ):
        torch.testing.assert_close(rotation_columns(quat)[0], torch.tensor([*first, *second]).float())


def test_columns_are_where_the_axes_go_and_the_same_for_both_signs() -> None:
    quat = random_quats(100, 0)
    x, y = torch.eye(3)[:2]
    expected = torch.cat((rotate(x.expand(100, 3), quat), rotate(y.expand(100, 3), quat)), -1)
    torch.testing.assert_close(rotation_columns(quat), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(rotation_columns(-quat), rotation_columns(quat))


def test_angle_of_known_turns_and_the_same_for_both_signs() -> None:
    for degrees in (0.0, 0.01, 30.0, 179.0, 180.0):
        quat = about((0.6, 0.0, 0.8), degrees)
        assert float(rotation_angle(quat)) == pytest.approx(math.radians(degrees), abs=1e-6)
        assert float(rotation_angle(-quat)) == pytest.approx(math.radians(degrees), abs=1e-6)
    # Beyond half a turn, the other way round is shorter.
    assert float(rotation_angle(about((0, 0, 1), 270.0))) == pytest.approx(math.pi / 2, abs=1e-6)


def test_angle_is_the_one_of_the_matrix() -> None:
    """Its trace is 1 + 2 cos."""
    quat = random_quats(100, 1)
    trace = rotation_from_quat_wxyz(quat.double()).diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(rotation_angle(quat).double(), torch.arccos((trace - 1) / 2), atol=1e-5, rtol=0)


def test_products_compose_as_matrices_do() -> None:
    a, b = random_quats(50, 2), random_quats(50, 3)
    matrix = rotation_from_quat_wxyz
    torch.testing.assert_close(matrix(multiply(a, b)), matrix(a) @ matrix(b), atol=1e-6, rtol=0)
    torch.testing.assert_close(matrix(conjugate(a)), matrix(a).transpose(1, 2), atol=1e-6, rtol=0)


def test_goal_rotation_is_the_turn_that_is_left_to_make() -> None:
    """Matrices: R(goal) R(object)^T, whose first two columns are observed, whatever the signs of the quaternions."""
    goal, now = random_quats(20, 4), random_quats(20, 5)
    left = rotation_from_quat_wxyz(goal) @ rotation_from_quat_wxyz(now).transpose(1, 2)
    expected = 2.0 * torch.cat((left[:, :, 0], left[:, :, 1]), -1)
    io = reorient_io()
    for sign_goal, sign_now in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        inputs = {
            "joint_pos": torch.zeros(20, 16),
            "object_pos": torch.full((20, 3), 0.25),
            "object_quat_wxyz": sign_now * now,
            "command": sign_goal * goal,
        }
        obs = io.encode(inputs)
        torch.testing.assert_close(obs[:, :3], inputs["object_pos"])
        torch.testing.assert_close(obs[:, 3:9], rotation_columns(now))
        torch.testing.assert_close(obs[:, 9:], expected, atol=2e-6, rtol=0)


def test_a_goal_that_is_no_quaternion_is_refused() -> None:
    with pytest.raises(ConfigError, match="goal_rotation needs a command of 4 numbers, got 3"):
        reorient_io(command_dim=3)
