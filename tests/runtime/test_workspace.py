"""Tips in numpy against the kinematics that policies are trained with, and the box by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError, ContractError
from robot_rl.networks.kinematics import TipKinematics
from robot_rl.robots import FRANKA_PANDA, LEAP_HAND, SHADOW_HAND, UNITREE_G1, RobotSpec
from robot_rl.runtime.workspace import Workspace

BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("robot", [LEAP_HAND, SHADOW_HAND, FRANKA_PANDA])
def test_tips_are_those_of_training(robot: RobotSpec) -> None:
    lower, upper = np.array([(j.lower_rad, j.upper_rad) for j in robot.joints]).T
    poses = np.random.default_rng(0).uniform(lower, upper, (20, len(lower)))
    kinematics = TipKinematics(robot, robot.chains)
    expected = kinematics(torch.from_numpy(poses).float()).reshape(20, -1, 3).numpy()
    workspace = Workspace(robot, *BOX)
    np.testing.assert_allclose([workspace.tips(pose) for pose in poses], expected, atol=2e-6)


def test_margin_is_the_least_distance_in_half_widths() -> None:
    q = np.array([j.default_pos_rad for j in LEAP_HAND.joints])
    x, y, z = Workspace(LEAP_HAND, *BOX).tips(q).T
    low = (x.min() - 1.0, y.min() - 1.0, z.min() - 0.02)
    high = (x.max() + 1.0, y.max() + 1.0, z.max() + 1.0)
    half = (high[2] - low[2]) / 2
    assert Workspace(LEAP_HAND, low, high).margin(q) == pytest.approx(0.02 / half)
    below = Workspace(LEAP_HAND, (low[0], low[1], z.min() + 0.03), high)
    assert below.margin(q) == pytest.approx(-0.03 / ((high[2] - z.min() - 0.03) / 2))


def test_what_cannot_be_a_workspace() -> None:
    with pytest.raises(ConfigError, match="'unitree_g1' has no chains"):
        Workspace(UNITREE_G1, *BOX)
    with pytest.raises(ContractError, match="workspace_low_m"):
        dataclasses.replace(LEAP_HAND.safety, workspace_low_m=(0.0, 0.0, 0.0))
