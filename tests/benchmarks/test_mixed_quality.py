"""The methods beside ARSQ, on problems whose answers are worked out by hand."""

import math

import pytest
import torch

from robot_rl.algorithms.arsq import ARSQ, ARSQConfig, encode
from robot_rl.benchmarks.mixed_quality import (
    IQL,
    Cloning,
    PairedActions,
    SeparateQ,
    coordination,
    dependence,
    episode_returns,
    pair,
)
from robot_rl.replay.ring_buffer import Batch
from robot_rl.testing.point_mass import PointMassEnv

# Reward of (first dimension's bin, second dimension's): good together, bad apart. The cells' shares of the data are
# such that the best cell's row and column look worst on average.
TABLE = torch.tensor([[1.0, -1.0], [-1.0, 0.1]])
COUNTS = ((1, 3), (3, 9))
CONFIG = ARSQConfig(
    levels=1, bins=2, gamma=0.0, alpha=0.01, hidden=(32,), activation="relu", learning_rate=3e-3, bc_weight=0.0
)


def one_step_batch() -> Batch:
    cells = [(i, j) for i in range(2) for j in range(2) for _ in range(COUNTS[i][j])]
    action = torch.tensor(cells, dtype=torch.float32) - 0.5
    reward = torch.tensor([TABLE[i, j] for i, j in cells])
    one = torch.ones(len(cells))
    return Batch(torch.zeros(len(cells), 1), action, reward, one, 0 * one, torch.zeros(len(cells), 1))


def test_separate_q_learns_averages_over_the_data_and_misses_what_arsq_finds():
    batch = one_step_batch()
    separate, arsq = SeparateQ(CONFIG, 1, 2, seed=0), ARSQ(CONFIG, 1, 2, seed=0)
    for _ in range(500):
        separate.update(batch)
        arsq.update(batch)
    n = torch.tensor(COUNTS, dtype=torch.float32)
    averages = torch.stack([(TABLE * n).sum(1) / n.sum(1), (TABLE * n).sum(0) / n.sum(0)])
    q = separate.q(separate.heads, separate.value, torch.zeros(1, 1), torch.zeros(1, 1, 2, dtype=torch.long))
    torch.testing.assert_close(q[:, 0, 0], averages.expand(2, -1, -1), atol=0.02, rtol=0)
    obs = torch.zeros(1, 1)
    assert encode(separate.act(obs, deterministic=True), 1, 2).flatten().tolist() == [1, 1]  # 0.1
    assert encode(arsq.act(obs, deterministic=True), 1, 2).flatten().tolist() == [0, 0]  # 1.0


def test_separate_q_bootstraps_from_its_own_greedy_choice():
    """One state that leads to itself, reward 1 whatever is done, γ = 0.5: every Q is 2."""
    separate = SeparateQ(ARSQConfig(levels=2, bins=3, gamma=0.5, tau=0.05, hidden=(32,), learning_rate=3e-3), 1, 2, 0)
    generator = torch.Generator().manual_seed(0)
    zero, one, action = torch.zeros(64), torch.ones(64), torch.zeros(64, 2)
    for _ in range(500):
        action.uniform_(-1, 1, generator=generator)
        separate.update(Batch(torch.zeros(64, 1), action, one, zero, zero, torch.zeros(64, 1)))
    choices = encode(action, 2, 3)
    q = separate.q(separate.heads, separate.value, torch.zeros(64, 1), choices)
    torch.testing.assert_close(q, torch.full_like(q, 2.0), atol=0.05, rtol=0)


def test_cloning_is_the_mean_action_and_iql_leans_to_the_better_one():
    """Actions ±0.5 equally often, rewards ±0.1 at the end of the episode: weights are as exp(3 · 0.2) = 1.82 to 1."""
    action = torch.tensor([[0.5], [-0.5]]).repeat(32, 1)
    one, obs = torch.ones(64), torch.zeros(64, 1)
    batch = Batch(obs, action, 0.2 * action[:, 0], one, 0 * one, obs)
    config = ARSQConfig(hidden=(32,), learning_rate=3e-3, tau=0.05)
    cloning, iql = Cloning(config, 1, 1, seed=0), IQL(config, 1, 1, seed=0, reward_scale=1.0)
    for _ in range(600):
        cloning.update(batch)
        iql.update(batch)
    assert cloning.act(obs[:1]).item() == pytest.approx(0.0, abs=0.01)
    odds = math.exp(3 * 0.2)
    assert iql.act(obs[:1], deterministic=True).item() == pytest.approx(0.5 * (odds - 1) / (odds + 1), abs=0.02)
    # The 0.7 expectile of ±0.1: 0.7 (0.1 - v) = 0.3 (v + 0.1).
    assert iql.value(obs[:1]).item() == pytest.approx(0.04, abs=0.01)


def test_arsq_and_its_baseline_are_one_where_there_is_one_dimension():
    """Nothing differs between the two but what a choice knows of other dimensions."""
    config = ARSQConfig(levels=2, bins=5, hidden=(16,))
    generator = torch.Generator().manual_seed(0)
    learners = [ARSQ(ARSQConfig(**{**vars(config), "conditioning": c}), 3, 1, seed=0) for c in ("prefix", "level")]
    for _ in range(5):
        obs, one = torch.randn(32, 3, generator=generator), torch.ones(32)
        action = 2 * torch.rand(32, 1, generator=generator) - 1
        for learner in learners:
            learner.update(Batch(obs, action, obs[:, 0], 0 * one, 0 * one, obs + 1, demonstration=one))
    first, second = (learner.state_dict() for learner in learners)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("together", "expected"), [(True, math.log(2)), (False, 0.0)])
def test_coordination_is_the_total_correlation_in_nats(together, expected):
    """Two signs that are equal tell one bit of each other, two tosses nothing."""
    generator = torch.Generator().manual_seed(0)
    sign = torch.randint(2, (4000, 2), generator=generator).float() - 0.5
    action = sign[:, :1].expand(-1, 2) if together else sign
    zero = torch.zeros(4000)
    recorded = Batch(torch.randn(4000, 2, generator=generator), action, zero, zero, zero, torch.zeros(4000, 2))
    config = ARSQConfig(levels=1, bins=2, hidden=(32,), batch_size=128)
    assert coordination(recorded, config, updates=600) == pytest.approx(expected, abs=0.03)


def test_dependence_sees_whether_choices_hang_on_those_before():
    batch = one_step_batch()
    found = {}
    for conditioning in ("prefix", "level"):
        arsq = ARSQ(ARSQConfig(**{**vars(CONFIG), "conditioning": conditioning}), 1, 2, seed=0)
        for _ in range(500):
            arsq.update(batch)
        found[conditioning] = dependence(arsq, batch)
    assert found["level"]["changed"] == 0
    assert found["prefix"]["changed"] == 1  # the better second bin is the first one's number
    # Given the first choice, the two cells differ by 2 or by 1.1; half of the pairs that differ start from either.
    assert found["prefix"]["regret"] == pytest.approx((2 + 1.1) / 2, abs=0.15)


def test_returns_of_episodes():
    """The first ends by termination, the second by truncation."""
    reward, column = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.zeros(4, 1)
    terminated, truncated = torch.tensor([0.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert episode_returns(Batch(column, column, reward, terminated, truncated, column)) == [3.0, 7.0]


def test_pairs_act_as_their_product_and_neither_of_a_pair_tells_it():
    action = 2 * torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)) - 1
    pairs = pair(action, torch.Generator().manual_seed(1))
    torch.testing.assert_close(pairs[:, ::2] * pairs[:, 1::2], action)
    assert torch.corrcoef(torch.cat((action, pairs), -1).T)[:2, 2:].abs().max() < 4 / math.sqrt(4000)
    paired, plain = PairedActions(PointMassEnv(4000, n_axes=2)), PointMassEnv(4000, n_axes=2)
    assert (paired.obs_dim, paired.action_dim) == (4, 4)
    assert torch.equal(paired.reset(seed=3), plain.reset(seed=3))
    torch.testing.assert_close(paired.step(pairs).obs, plain.step(action).obs)
