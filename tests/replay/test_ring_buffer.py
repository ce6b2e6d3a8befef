from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.replay import storage
from robot_rl.replay.ring_buffer import Batch, RingBuffer


def transitions(ids: torch.Tensor) -> Batch:
    """Transitions whose every field tells its id."""
    x = ids.float()
    return Batch(
        torch.stack((x, -x), -1),
        (x / 1e4).unsqueeze(-1),
        10 * x,
        ids % 2 == 0,
        ids % 3 == 0,
        torch.stack((x + 1, -x - 1), -1),
    )


def add(buffer: RingBuffer, batch: Batch) -> None:
    buffer.add(batch.obs, batch.action, batch.reward, batch.terminated, batch.truncated, batch.next_obs)


@settings(max_examples=50, deadline=None)
@given(capacity=st.integers(1, 13), counts=st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_wraparound_holds_what_a_deque_holds(capacity, counts):
    buffer, reference, start = RingBuffer(capacity, 2, 1), deque(maxlen=capacity), 0
    for n in counts:
        ids = torch.arange(start, start + n)
        add(buffer, transitions(ids))
        reference.extend(ids.tolist())
        start += n
    assert len(buffer) == len(reference)
    stored = buffer.state_dict()["rows"][:, 0].int().tolist()
    assert sorted(stored) == sorted(reference)


def test_sample_keeps_fields_of_a_transition_together_and_covers_all():
    buffer = RingBuffer(50, 2, 1, seed=1)
    add(buffer, transitions(torch.arange(70)))
    batch = buffer.sample(4000)
    ids = batch.obs[:, 0].long()
    assert set(ids.tolist()) == set(range(20, 70))
    expected = transitions(ids)
    for name in ("obs", "action", "reward", "terminated", "truncated", "next_obs"):
        torch.testing.assert_close(getattr(batch, name), getattr(expected, name).float())
    assert batch.discount is None
    assert batch.weight is None
    assert batch.demonstration is None


def test_state_restores_contents_pointer_and_random_stream():
    first = RingBuffer(20, 2, 1, seed=5)
    add(first, transitions(torch.arange(33)))
    first.sample(8)
    second = RingBuffer(20, 2, 1, seed=99)
    second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
    for start in (33, 40):
        for buffer in (first, second):
            add(buffer, transitions(torch.arange(start, start + 7)))
        assert torch.equal(first.sample(64).obs, second.sample(64).obs)


def test_errors_name_the_numbers(monkeypatch, tmp_path):
    monkeypatch.setattr(storage, "free_memory", lambda device: 48_000)
    with pytest.raises(ConfigError, match=r"1,000 transitions needs .* \(64 bytes each\).* at most 750 fit"):
        RingBuffer(1000, 6, 1)
    with pytest.raises(ConfigError, match="empty"):
        RingBuffer(10, 2, 1).sample(1)
    with pytest.raises(ConfigError, match="buffer_size"):
        RingBuffer(0, 2, 1)
    small = RingBuffer(10, 2, 1)
    add(small, transitions(torch.arange(15)))
    with pytest.raises(CheckpointError, match=r"\(10, 8\) does not fit a buffer of \(12, 8\); buffer_size"):
        RingBuffer(12, 2, 1).load_state_dict(small.state_dict())
    with pytest.raises(CheckpointError, match=r"\(10, 8\) does not fit a buffer of \(10, 10\)"):
        RingBuffer(10, 3, 1).load_state_dict(small.state_dict())
    with pytest.raises(IndexError, match="rows 4 to 7 of 5 to 15"):
        small.rows(4, 7)


def test_memory_is_what_the_row_size_says():
    buffer = RingBuffer(1000, 17, 6)
    assert buffer.row_bytes == 4 * (17 + 6 + 1 + 1 + 1 + 17)
    add_count = 1000
    buffer.add(
        *(torch.zeros(add_count, d) for d in (17, 6)),
        *(torch.zeros(add_count) for _ in range(3)),
        torch.zeros(1000, 17),
    )
    assert buffer.state_dict()["rows"].untyped_storage().nbytes() == 1000 * buffer.row_bytes
