import errno
import os
from pathlib import Path

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.replay import storage
from robot_rl.replay.n_step import NStep
from robot_rl.replay.ring_buffer import RingBuffer
from robot_rl.replay.storage import in_file


def test_a_mapped_buffer_does_what_one_in_memory_does(tmp_path):
    buffers = [RingBuffer(50, 2, 1, seed=1, n_step=NStep(2, 0.9), file=file) for file in (None, tmp_path / "rows")]
    for replay in buffers:
        g = torch.Generator().manual_seed(0)
        for n in (30, 45):
            obs = torch.randn(n, 2, generator=g)
            replay.add(obs, obs[:, :1], obs[:, 0], torch.zeros(n), torch.zeros(n), obs)
    one, two = (replay.sample(200) for replay in buffers)
    assert torch.equal(one.obs, two.obs)
    assert torch.equal(one.reward, two.reward)
    assert all(torch.equal(a, b) for a, b in zip(*(r.state_dict().values() for r in buffers), strict=True))


def mappings() -> list[str]:
    return Path("/proc/self/maps").read_text().splitlines()


def test_the_rows_are_in_the_file_and_its_room_is_free_afterwards(tmp_path):
    rows = in_file(1000, 25, tmp_path / "rows")
    assert rows.shape == (1000, 25)
    assert not rows.any()
    (mapped,) = [line for line in mappings() if str(tmp_path / "rows") in line]
    assert " rw-s " in mapped  # shared: written to the file, not to swap
    assert list(tmp_path.iterdir()) == []
    del rows
    assert not any(str(tmp_path / "rows") in line for line in mappings())


def test_reading_beyond_the_rows_is_an_error(tmp_path):
    rows = in_file(10, 3, tmp_path / "rows")
    with pytest.raises(IndexError):
        rows.index_select(0, torch.tensor([10]))


def test_a_disk_that_is_too_small_is_an_error_at_construction(tmp_path, monkeypatch):
    def full(descriptor, start, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ConfigError, match=r"10,000,000,000,000 transitions needs .*GB.*rows cannot have: .*free"):
        in_file(10**13, 3, tmp_path / "rows")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ConfigError, match="No space left"):
        in_file(10, 3, tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="No such file"):
        in_file(10, 3, tmp_path / "missing" / "rows")


def test_without_a_way_to_claim_room_the_free_space_decides(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    assert in_file(10, 3, tmp_path / "rows").sum() == 0
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(ConfigError, match="No space left"):
        in_file(10, 3, tmp_path / "rows")
