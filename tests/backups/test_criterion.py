"""When a robot counts as recovered, on poses and speeds written by hand."""

import math

import pytest
import torch

from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.backups.criterion import AtRest, Judge, Standing, criterion_of
from robot_rl_sim.models import load_model

REST = AtRest(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 2.0]), max_speed_rad_s=1.0, beyond_limit_rad=0.02)
STANDING = Standing(max_tilt_rad=0.4, min_height_m=0.6)


def window(joint: int, *values: float) -> torch.Tensor:
    """(steps, 1, 2) positions, 0.1 s apart: one joint moves, the other stays in the middle of its range."""
    positions = torch.tensor([[[0.0, 1.0]]]).repeat(len(values), 1, 1)
    positions[:, 0, joint] = torch.tensor(values)
    return positions


@pytest.mark.parametrize(
    ("joint", "positions", "expected"),
    [
        (0, (0.5, 0.5, 0.5), True),
        (0, (0.5, 0.6, 0.69), True),  # 0.19 rad in 0.2 s
        (0, (0.5, 0.6, 0.71), False),
        (1, (0.71, 0.6, 0.5), False),
        (0, (0.5, 0.9, 0.1, 0.9, 0.5), True),  # trembles about one place
        (0, (1.019, 1.019), True),
        (1, (-0.021, -0.021), False),
        (0, (0.95, 1.021, 0.95), False),  # beyond its limit in between
        (0, (0.5, float("nan"), 0.5), False),
    ],
)
def test_a_fixed_base_rests_within_its_limits(joint: int, positions, expected: bool) -> None:
    assert REST.met(window(joint, *positions), 0.1).tolist() == [expected]


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
    assert STANDING.met(turned(angle, axis, height)[None]).tolist() == [expected]


def test_standing_must_last() -> None:
    upright, kneeling = turned(0.0, (1, 0, 0), 0.75), turned(0.0, (1, 0, 0), 0.5)
    assert STANDING.met(torch.stack((upright, upright, upright))).tolist() == [True]
    assert STANDING.met(torch.stack((upright, kneeling, upright))).tolist() == [False]


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


def test_the_last_half_second_is_judged() -> None:
    sim = sim_of(UNITREE_G1)
    judge = Judge(criterion_of(UNITREE_G1, sim), period_s=0.1)
    world, qvel = torch.zeros(1, dtype=torch.int64), torch.zeros(1, sim.model.nv)
    qpos = torch.from_numpy(sim.model.qpos0)[None].clone()
    verdicts = []
    for height in (0.3, *[0.78] * 6):
        qpos[0, 2] = height
        sim.set_state(world, qpos, qvel)
        judge.see(sim)
        verdicts.append(judge.met().item())
    assert verdicts == [False] * 6 + [True]
