import json
import resource
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from robot_rl.errors import CheckpointError
from robot_rl.replay.ring_buffer import RingBuffer
from robot_rl.training.checkpoint import join, load_config, newest_checkpoint, save_checkpoint, split

GROUPS = {"model": {"a": torch.arange(6.0).reshape(2, 3)}}


def buffer(count: int = 1000, capacity: int = 1000) -> RingBuffer:
    """Rows of 10 numbers, 40 bytes."""
    replay = RingBuffer(capacity, 3, 1)
    extend(replay, count)
    return replay


def extend(replay: RingBuffer, count: int) -> None:
    replay.add_rows(torch.arange(replay.total, replay.total + count).float().unsqueeze(-1).expand(count, 10))


def save(run_dir: Path, step: int, previous: Path | None = None) -> Path:
    return save_checkpoint(run_dir, step, GROUPS, buffer(), {}, previous)


def test_round_trip_is_exact_for_every_dtype(tmp_path):
    tensors = {
        "float": torch.randn(3),
        "double": torch.randn(2, dtype=torch.float64),
        "byte": torch.arange(5, dtype=torch.uint8),
        "long": torch.tensor(2**60),
        "bool": torch.tensor([True, False]),
        "transposed": torch.randn(3, 4).T,
    }
    save_checkpoint(tmp_path, 5, {"model": tensors}, buffer(), {"env_steps": 5, "wall_s": 0.1})
    found = newest_checkpoint(tmp_path)
    assert found.state["wall_s"] == 0.1
    for name, value in found.load("model").items():
        assert torch.equal(value, tensors[name])
        assert value.dtype == tensors[name].dtype


def test_keeps_the_newest_two_and_leaves_nothing_else(tmp_path):
    for step in (10, 20, 30, 100):
        save(tmp_path, step)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_000000030", "step_000000100"]
    assert newest_checkpoint(tmp_path).state["step"] == 100


@pytest.mark.parametrize("damage", ["truncated", "missing", "no state", "half a state", "temporary only"])
def test_an_incomplete_newest_one_is_passed_over(tmp_path, damage):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    if damage == "truncated":
        path = newest / "replay_000000001000.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "missing":
        (newest / "model.safetensors").unlink()
    elif damage == "no state":
        (newest / "state.json").unlink()
    elif damage == "half a state":
        (newest / "state.json").write_text('{"step": 2, "fi')
    else:  # what kill -9 in the middle of writing leaves
        newest.rename(newest.with_name(f".{newest.name}.tmp"))
    assert newest_checkpoint(tmp_path).state["step"] == 1


def test_errors_say_what_was_found(tmp_path):
    with pytest.raises(CheckpointError, match="none yet"):
        newest_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="is no run folder"):
        load_config(tmp_path)
    path = save(tmp_path, 7)
    (path / "model.safetensors").write_bytes(b"x" * (path / "model.safetensors").stat().st_size)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        newest_checkpoint(tmp_path).load("model")
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="step_000000007"):
        newest_checkpoint(tmp_path)


def test_full_disk_leaves_the_checkpoint_of_before_and_says_how_much_was_needed(tmp_path):
    save(tmp_path, 1)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails as it does on a full disk
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old_limit[1]))
    try:
        with pytest.raises(
            CheckpointError,
            match=r"cannot write .*000002: replay_0*1000\.safetensors: .* up to 40,024 bytes and [\d,]+ are free",
        ):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000000001"]
    assert torch.equal(newest_checkpoint(tmp_path).load("model")["a"], GROUPS["model"]["a"])
    save(tmp_path, 3)
    assert newest_checkpoint(tmp_path).state["step"] == 3


def test_groups_come_apart_as_they_were_joined_even_when_they_share_memory(tmp_path):
    shared = torch.arange(4.0)
    groups = {"env": {"x": shared}, "env2": {"x": shared[:2]}}
    flat = join(groups)
    save_file(flat, tmp_path / "x.safetensors")
    assert torch.equal(split(flat, "env")["x"], shared)
    assert list(split(flat, "env2")) == ["x"]
    assert json.dumps(sorted(flat)) == '["env/x", "env2/x"]'
