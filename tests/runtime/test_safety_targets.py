"""What becomes of a target on its way to the robot: each stage by hand."""

import math

import numpy as np
import pytest

from robot_rl.runtime.checks import Target
from robot_rl.runtime.safety import MODIFICATIONS
from robot_rl.testing.filter_bench import DT, LEAP, Bench


def test_rate_limit_by_hand() -> None:
    bench = Bench(LEAP)
    target = LEAP.default_pos.copy()
    target[0] += 1.0
    step = 103 * 2 * np.pi / 60 / 2 * DT
    for k in range(1, 5):
        bench.tick(target=Target(target, "policy"))
        assert bench.command.position[0] == pytest.approx(0.6 + min(1.0, k * step))
        assert bench.verdict.modified[MODIFICATIONS.index("rate_limit")].tolist() == [True] + [False] * 15
    assert bench.memory.modifications[MODIFICATIONS.index("rate_limit"), 0] == 4


def test_action_bound_and_soft_limit() -> None:
    bench = Bench(LEAP)
    for _ in range(60):
        bench.tick(target=Target(np.full(16, 10.0), "policy"))
    # The tiny policy's action bound is 6 % inside, the soft limit 5 %.
    np.testing.assert_allclose(bench.command.position, LEAP.action_high)
    for _ in range(60):
        bench.tick(target=Target(np.full(16, -10.0), "stand"))
    np.testing.assert_allclose(bench.command.position, LEAP.soft_lower)


def test_float32_rounding_at_a_limit_is_no_modification() -> None:
    bench = Bench(LEAP)
    for _ in range(60):
        bench.tick(target=Target(LEAP.action_high.astype(np.float32), "policy"))
    assert not bench.verdict.modified.any()
    assert (bench.command.position <= LEAP.action_high).all()


def test_soft_start_blends() -> None:
    bench = Bench(LEAP)
    start = LEAP.default_pos
    bench.tick(target=Target(start + 0.04, "policy", blend=0.25, blend_from=start))
    np.testing.assert_allclose(bench.command.position, start + 0.01)


@pytest.mark.parametrize(("stiffness", "share"), [(0.3, 0.3), (-1.0, 0.0), (7.0, 1.0), (math.nan, 0.0)])
def test_stiffness_is_a_share(stiffness: float, share: float) -> None:
    bench = Bench(LEAP)
    bench.tick(target=Target(LEAP.default_pos, "stand", stiffness=stiffness))
    np.testing.assert_allclose(bench.command.kp, share * LEAP.kp)


def test_a_policy_command_expires_with_the_state_it_rests_on() -> None:
    bench = Bench(LEAP)
    bench.tick(age_s=0.03)
    assert bench.command.expires_s == pytest.approx(bench.t - 0.03 + 0.1)
    bench.tick(target=None, age_s=0.03)
    assert bench.command.expires_s == pytest.approx(bench.t + 0.1)


def test_the_first_position_after_damping_starts_from_where_the_robot_is() -> None:
    bench = Bench(LEAP)
    elsewhere = LEAP.default_pos + 0.4
    bench.tick(target=None, joint_pos=elsewhere[None])
    bench.tick(target=Target(LEAP.default_pos, "stand"), joint_pos=elsewhere[None])
    assert (np.abs(bench.command.position - elsewhere) <= LEAP.max_step + 1e-12).all()
