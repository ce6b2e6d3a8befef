import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.errors import ConfigError
from robot_rl.replay.mixture import Mixture, Source
from robot_rl.replay.n_step import NStep
from robot_rl.replay.ring_buffer import RingBuffer


def buffer(first: int, count: int, seed: int = 0, n_step: NStep | None = None) -> RingBuffer:
    """Transitions whose obs is a number from `first` on."""
    replay = RingBuffer(50, 1, 1, seed, n_step=n_step)
    x = torch.arange(first, first + count).float().unsqueeze(-1)
    replay.add(x, x / 1000, x.squeeze(-1), torch.zeros(count), torch.zeros(count), x + 1)
    return replay


def mixture(n_step: NStep | None = None, seed: int = 0) -> Mixture:
    online, demos = buffer(0, 20, seed, n_step), buffer(100, 30, seed + 1, n_step)
    return Mixture({"online": Source(online, 0.75), "demos": Source(demos, 0.25, demonstration=True)})


def test_shares_flags_and_contents():
    batch = mixture().sample(80)
    assert torch.equal(batch.demonstration, torch.tensor([0.0] * 60 + [1.0] * 20))
    assert torch.equal(batch.obs[:, 0] >= 100, batch.demonstration == 1)
    torch.testing.assert_close(batch.next_obs, batch.obs + 1)
    torch.testing.assert_close(batch.action, batch.obs / 1000)
    assert batch.discount is None
    assert mixture().sample(8).demonstration.tolist() == [0.0] * 6 + [1.0] * 2


def test_n_step_returns_stay_within_their_source():
    batch = mixture(NStep(3, 1.0)).sample(400)
    newest = torch.where(batch.demonstration == 1, 129.0, 19.0)
    x = batch.obs[:, 0]
    steps = torch.minimum(newest - x + 1, torch.tensor(3.0))
    torch.testing.assert_close(batch.reward, steps * x + steps * (steps - 1) / 2)
    assert torch.equal(batch.discount, torch.ones(400))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(50, 300))
def test_counts_add_up_and_are_within_one_of_the_share(parts, batch_size):
    sources = {str(i): Source(buffer(0, 1), part / sum(parts)) for i, part in enumerate(parts)}
    counts = Mixture(sources).counts(batch_size)
    assert sum(counts.values()) == batch_size
    for name, count in counts.items():
        assert abs(count - batch_size * sources[name].share) <= 1


def test_state_restores_every_later_sample():
    first, second = mixture(), mixture(seed=7)
    first.sample(16)
    second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
    for _ in range(3):
        one, two = first.sample(16), second.sample(16)
        assert torch.equal(one.obs, two.obs)
        assert torch.equal(one.demonstration, two.demonstration)


def test_errors_name_the_numbers():
    with pytest.raises(ConfigError, match=r"add up to 1, got \{'a': 0.5, 'b': 0.6\}"):
        Mixture({"a": Source(buffer(0, 1), 0.5), "b": Source(buffer(0, 1), 0.6)})
    with pytest.raises(ConfigError, match="positive"):
        Mixture({"a": Source(buffer(0, 1), 1.0), "b": Source(buffer(0, 1), 0.0)})
    with pytest.raises(ConfigError, match="equal rows"):
        Mixture({"a": Source(buffer(0, 1), 0.5), "b": Source(RingBuffer(5, 2, 1), 0.5)})
    with pytest.raises(ConfigError, match="n-step"):
        Mixture({"a": Source(buffer(0, 1), 0.5), "b": Source(buffer(0, 1, n_step=NStep(2, 0.9)), 0.5)})
    with pytest.raises(ConfigError, match="batch_size 1 is too small"):
        mixture().sample(1)
