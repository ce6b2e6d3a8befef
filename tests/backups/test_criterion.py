"""When a robot counts as recovered, on poses and speeds written by hand."""

import math

import pytest
import torch

from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.backups.criterion import AtRest, Standing, criterion_of, met
from robot_rl_sim.models import load_model

REST = AtRest(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 2.0]), max_speed_rad_s=1.0, beyond_limit_rad=0.02)
STANDING = Standing(max_tilt_rad=0.4, min_height_m=0.6)


@pytest.mark.parametrize(
    ("joint_pos", "joint_vel", "expected"),
    [
        ([0.0, 1.0], [0.0, 0.0], True),
        ([0.0, 1.0], [0.99, -0.99], True),
        ([0.0, 1.0], [0.0, -1.01], False),
        ([1.019, -0.019], [0.0, 0.0], True),
        ([1.021, 1.0], [0.0, 0.0], False),
        ([0.0, -0.021], [0.0, 0.0], False),
        ([float("nan"), 1.0], [0.0, 0.0], False),
        ([0.0, 1.0], [float("nan"), 0.0], False),
    ],
)
def test_a_fixed_base_rests_within_its_limits(joint_pos, joint_vel, expected: bool) -> None:
    assert REST.met(torch.tensor([joint_pos]), torch.tensor([joint_vel])).tolist() == [expected]


def turned(angle: float, axis: tuple[float, float, float], height: float) -> torch.Tensor:
    half = math.sin(angle / 2)
    return torch.tensor([[0.3, -2.0, height, math.cos(angle / 2), *(half * a for a in axis)]])


@pytest.mark.parametrize(
    ("angle", "axis", "height", "expected"),
    [
        (0.0, (1, 0, 0), 0.75, True),
        (0.39, (1, 0, 0), 0.75, True),
        (0.39, (0, -1, 0), 0.61, True),
        (0.41, (0.6, 0.8, 0), 0.75, False),
        (3.1, (0, 0, 1), 0.75, True),  # which way it looks does not matter
        (math.pi, (1, 0, 0), 0.75, False),  # on its head
        (0.0, (1, 0, 0), 0.59, False),  # on its knees
        (0.0, (1, 0, 0), float("nan"), False),
    ],
)
def test_a_floating_base_stands_upright_and_high(angle, axis, height, expected: bool) -> None:
    assert STANDING.met(turned(angle, axis, height)).tolist() == [expected]


def sim_of(robot) -> MujocoCpuSim:
    return MujocoCpuSim(load_model(robot.name), robot, 1, 1, 1)


def test_each_robots_own_thresholds() -> None:
    hand = criterion_of(LEAP_HAND, sim_of(LEAP_HAND))
    assert isinstance(hand, AtRest)
    assert hand.upper[0] == pytest.approx(2.23)
    assert hand.beyond_limit_rad == 0.02
    # The vendor's pelvis stands at 0.79 m with straight legs; crouched a little, and four fifths of that.
    g1 = criterion_of(UNITREE_G1, sim_of(UNITREE_G1))
    assert isinstance(g1, Standing)
    assert 0.8 * 0.72 < g1.min_height_m < 0.8 * 0.79


def test_the_state_of_a_simulation_is_judged() -> None:
    sim = sim_of(UNITREE_G1)
    judge = criterion_of(UNITREE_G1, sim)
    world, qvel = torch.zeros(1, dtype=torch.int64), torch.zeros(1, sim.model.nv)
    qpos = torch.from_numpy(sim.model.qpos0)[None].clone()
    for height, expected in ((0.78, True), (0.3, False)):
        qpos[0, 2] = height
        sim.set_state(world, qpos, qvel)
        assert met(judge, sim).tolist() == [expected]
