"""The scripted policy of g1-balance: its gains against analytic ones, its rest, and that it stands where zero falls."""

import mujoco
import numpy as np
import pytest
import torch

from robot_rl_sim.disturbances import PushConfig
from robot_rl_sim.models import load_model
from robot_rl_sim.randomization import NOMINAL
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.g1_balance.mdp import G1Balance, G1BalanceConfig
from robot_rl_sim.tasks.g1_balance.regulator import gain, regulator, standing


def test_gain_of_a_scalar_system_is_the_golden_one() -> None:
    """a = b = q = r = 1: P is the golden ratio, and K = P / (1 + P)."""
    one = np.ones((1, 1))
    assert gain(one, one, one)[0, 0] == pytest.approx((np.sqrt(5) - 1) / 2, abs=1e-12)


def test_gain_is_what_dynamic_programming_ends_in() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 5)), rng.normal(size=(5, 2))
    p = q = np.diag([1.0, 2.0, 0.5, 1.0, 3.0])
    for _ in range(300):
        k = np.linalg.solve(np.eye(2) + b.T @ p @ b, b.T @ p @ a)
        p = q + a.T @ p @ (a - b @ k)
    np.testing.assert_allclose(gain(a, b, q), k, rtol=1e-8)
    assert abs(np.linalg.eigvals(a - b @ k)).max() < 1 < abs(np.linalg.eigvals(a)).max()


def test_rest_is_at_rest() -> None:
    """The pelvis accelerates by less than a hundredth of gravity, and turns by less than 1 rad/s²."""
    model = load_model("unitree_g1")
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = standing(model)
    mujoco.mj_forward(model, data)
    assert np.abs(data.qacc[:3]).max() < 0.1
    assert np.abs(data.qacc[3:6]).max() < 1.0
    assert data.ncon == 8


def test_it_stands_where_doing_nothing_falls() -> None:
    calm = G1BalanceConfig(pushes=PushConfig((0.0, 0.0), (10_000, 10_000)))
    env = assemble(G1Balance(calm), 2, 0, NOMINAL, "cpu", 1)
    for policy, falls in ((regulator(env), False), (lambda obs: torch.zeros(2, 29), True)):
        obs, fallen = env.reset(0), torch.zeros(2, dtype=torch.bool)
        for _ in range(200):
            step = env.step(policy(obs))
            obs, fallen = step.obs, fallen | step.terminated
        assert fallen.tolist() == 2 * [falls]
