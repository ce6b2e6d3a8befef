"""n-step returns against a loop over lists that knows nothing of rings."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.errors import ConfigError
from robot_rl.replay.n_step import NStep, discounts, n_step_return
from robot_rl.replay.ring_buffer import RingBuffer


def test_returns_by_hand():
    reward = torch.tensor([[1.0, 2.0, 4.0]] * 4)
    ended = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 1]]).bool()
    stored = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0]]).bool()
    powers = discounts(NStep(3, 0.5), torch.device("cpu"))
    assert powers.tolist() == [1.0, 0.5, 0.25, 0.125]
    total, steps = n_step_return(reward, ended, stored, powers)
    assert total.tolist() == [1 + 1 + 1, 1 + 1, 1, 1]
    assert steps.tolist() == [3, 2, 1, 1]


def filled(replay: RingBuffer, num_envs: int, steps: int, seed: int) -> list[dict]:
    """Add random episodes; returns all transitions ever added, in order. obs is the transition's number."""
    g = torch.Generator().manual_seed(seed)
    history = []
    for _ in range(steps):
        numbers = torch.arange(len(history), len(history) + num_envs).float()
        reward = torch.randn(num_envs, generator=g)
        fate = torch.rand(num_envs, generator=g)
        terminated, truncated = fate < 0.15, fate > 0.85
        obs, action, next_obs = numbers.unsqueeze(-1), -numbers.unsqueeze(-1), numbers.unsqueeze(-1) + 0.5
        replay.add(obs, action, reward, terminated, truncated, next_obs)
        history += [
            {"reward": r, "terminated": float(t), "truncated": float(c)}
            for r, t, c in zip(reward.double().tolist(), terminated.tolist(), truncated.tolist(), strict=True)
        ]
    return history


def expected(history: list[dict], number: int, n: int, gamma: float, num_envs: int) -> tuple:
    """(return, discount, number of the last transition in it)."""
    total, factor, last = 0.0, 1.0, number
    for i in range(n):
        row = history[number + i * num_envs]
        total, factor, last = total + factor * row["reward"], factor * gamma, number + i * num_envs
        if row["terminated"] or row["truncated"] or last + num_envs >= len(history):
            break
    return total, factor, last


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 6), num_envs=st.integers(1, 4), steps=st.integers(1, 25), capacity=st.integers(1, 40),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]), seed=st.integers(0, 1000), restored=st.booleans(),
)  # fmt: skip
def test_every_sample_is_the_slow_reference(n, num_envs, steps, capacity, gamma, seed, restored):
    """Whatever the capacity: not filled, wrapped, no multiple of num_envs, or smaller than one step."""
    replay = RingBuffer(capacity, 1, 1, seed, n_step=NStep(n, gamma, num_envs))
    history = filled(replay, num_envs, steps, seed)
    if restored:
        state = replay.state_dict()
        replay = RingBuffer(capacity, 1, 1, n_step=NStep(n, gamma, num_envs))
        replay.load_state_dict(state)
    batch = replay.sample(15 * len(replay))
    seen = set()
    for i, number in enumerate(batch.obs[:, 0].long().tolist()):
        total, factor, last = expected(history, number, n, gamma, num_envs)
        assert batch.action[i, 0] == -number
        assert batch.reward[i].item() == pytest.approx(total, rel=1e-5, abs=1e-6)
        assert batch.discount[i].item() == pytest.approx(factor, rel=1e-6)
        assert batch.next_obs[i, 0] == last + 0.5
        assert batch.terminated[i] == history[last]["terminated"]
        assert batch.truncated[i] == history[last]["truncated"]
        seen.add(number)
    assert seen <= set(range(max(0, len(history) - capacity), len(history)))


def test_the_newest_rows_use_the_shorter_return_and_are_all_drawn():
    replay = RingBuffer(100, 1, 1, n_step=NStep(5, 1.0, num_envs=2))
    for step in range(3):
        numbers = torch.tensor([[2.0 * step], [2.0 * step + 1]])
        flags = torch.zeros(2)
        replay.add(numbers, numbers, torch.ones(2), flags, flags, numbers + 0.5)
    batch = replay.sample(500)
    assert set(zip(batch.obs[:, 0].tolist(), batch.reward.tolist(), strict=True)) == {
        (0.0, 3.0), (1.0, 3.0), (2.0, 2.0), (3.0, 2.0), (4.0, 1.0), (5.0, 1.0),
    }  # fmt: skip


def test_one_step_is_what_a_plain_buffer_draws():
    plain, stepped = RingBuffer(30, 1, 1, seed=3), RingBuffer(30, 1, 1, seed=3, n_step=NStep(1, 0.9, 2))
    for replay in (plain, stepped):
        filled(replay, 2, 20, seed=0)
    one, two = plain.sample(64), stepped.sample(64)
    for name in ("obs", "action", "reward", "terminated", "truncated", "next_obs"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert torch.equal(two.discount, torch.full((64,), 0.9))


@pytest.mark.parametrize("bad", [{"n": 0}, {"gamma": 1.1}, {"num_envs": 0}])
def test_bad_values_are_named(bad):
    with pytest.raises(ConfigError, match="gamma" if "gamma" in bad else "at least 1"):
        NStep(**{"n": 3, "gamma": 0.9, **bad})
