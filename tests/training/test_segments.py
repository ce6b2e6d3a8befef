"""Replay segments: what is written, what is shared, and that a process killed at any moment loses nothing."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from robot_rl.errors import CheckpointError
from robot_rl.replay.ring_buffer import RingBuffer
from robot_rl.training import checkpoint, files, segments
from robot_rl.training.checkpoint import newest_checkpoint, save_checkpoint
from robot_rl.training.segments import read_segments

ROWS = 100
"""Rows of a full segment in these tests."""


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", ROWS * 40)


def extend(replay: RingBuffer, count: int) -> None:
    """Rows of 10 numbers (40 bytes), each equal to its transition's number."""
    replay.add_rows(torch.arange(replay.total, replay.total + count).float().unsqueeze(-1).expand(count, 10))


def spans(folder: Path) -> list[tuple[int, int]]:
    rows = [load_file(path)["rows"][:, 0].int().tolist() for path in sorted(folder.glob("replay_*"))]
    return [(r[0], r[-1] + 1) for r in rows]


def assert_equal(restored: RingBuffer, replay: RingBuffer) -> None:
    assert restored.total == replay.total
    assert torch.equal(restored._rows[: len(replay)], replay._rows[: len(replay)])


@pytest.mark.parametrize("capacity", [1, 90, 250, 300, 333])
def test_a_saved_buffer_comes_back_row_for_row(tmp_path, capacity):
    """Filling, full, wrapped, with checkpoints less and more than a segment or a whole buffer apart."""
    replay, previous = RingBuffer(capacity, 3, 1), None
    for step, count in enumerate((0, 30, 1, 69, 20, 250, 7, 700, 100, 0)):
        extend(replay, count)
        previous = save_checkpoint(tmp_path, step, {}, replay, {}, previous)
        restored = RingBuffer(capacity, 3, 1)
        extend(restored, 55)  # which must not matter
        read_segments(newest_checkpoint(tmp_path).path, restored)
        assert_equal(restored, replay)
        on_disk = spans(previous)
        assert sum(end - first for first, end in on_disk) <= len(replay) + ROWS


def test_full_segments_are_shared_and_disappear_with_the_last_checkpoint_that_needs_them(tmp_path):
    replay = RingBuffer(250, 3, 1)
    extend(replay, 230)
    one = save_checkpoint(tmp_path, 1, {}, replay, {})
    assert spans(one) == [(0, 100), (100, 200), (200, 230)]
    extend(replay, 100)
    two = save_checkpoint(tmp_path, 2, {}, replay, {}, one)
    assert spans(two) == [(0, 100), (100, 200), (200, 300), (300, 330)]  # rows 0 to 79 are no longer needed
    shared = [path.name for path in two.glob("replay_*") if path.stat().st_nlink == 2]
    assert sorted(shared) == ["replay_000000000100.safetensors", "replay_000000000200.safetensors"]
    extend(replay, 100)
    three = save_checkpoint(tmp_path, 3, {}, replay, {}, two)
    assert not one.exists()
    assert spans(three) == [(100, 200), (200, 300), (300, 400), (400, 430)]
    assert (three / "replay_000000000200.safetensors").stat().st_nlink == 2


@pytest.mark.parametrize("reason", ["no hard links", "the previous checkpoint was deleted", "it was not given"])
def test_without_a_file_to_link_everything_is_written(tmp_path, monkeypatch, reason):
    def no_links(*arguments):
        raise PermissionError

    replay = RingBuffer(250, 3, 1)
    extend(replay, 230)
    one = save_checkpoint(tmp_path, 1, {}, replay, {})
    if reason == "no hard links":
        monkeypatch.setattr(os, "link", no_links)
    elif reason == "the previous checkpoint was deleted":
        shutil.rmtree(one)
    extend(replay, 100)
    two = save_checkpoint(tmp_path, 2, {}, replay, {}, None if reason == "it was not given" else one)
    assert spans(two) == [(80, 100), (100, 200), (200, 300), (300, 330)]
    assert all(path.stat().st_nlink == 1 for path in two.iterdir())


def test_files_that_do_not_fit_are_named(tmp_path):
    replay = RingBuffer(250, 3, 1)
    extend(replay, 230)
    folder = save_checkpoint(tmp_path, 1, {}, replay, {})
    with pytest.raises(CheckpointError, match=r"10 numbers per row .* 12"):
        read_segments(folder, RingBuffer(250, 4, 1))
    (folder / "replay_000000000200.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"replay_000000000230.safetensors .* from transition 200 on.* from 100"):
        read_segments(folder, RingBuffer(250, 3, 1))
    (folder / "replay_000000000230.safetensors").unlink()
    read_segments(folder, RingBuffer(250, 3, 1))
    save_file({"rows": torch.zeros(5, 10)}, folder / "replay_000000000100.safetensors")
    with pytest.raises(CheckpointError, match="5 transitions, 100 are needed"):
        read_segments(folder, RingBuffer(250, 3, 1))
    (folder / "replay_000000000100.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"replay_000000000100.safetensors cannot be read"):
        read_segments(folder, RingBuffer(250, 3, 1))


class Killed(BaseException):
    """As kill -9: no handler of errors runs."""


class Killer:
    """Kills at the n-th change of the disk. A write then leaves half a file, a deletion half a folder."""

    def __init__(self, monkeypatch, n: int) -> None:
        self.left = n
        for owner, name, half in (
            (files, "save_file", self._half_save), (files, "sync", None), (checkpoint, "sync", None),
            (os, "rename", None), (os, "replace", None), (os, "link", None),
            (Path, "write_text", None), (Path, "mkdir", None), (shutil, "rmtree", self._half_rmtree),
        ):  # fmt: skip
            monkeypatch.setattr(owner, name, self._deadly(getattr(owner, name), half))

    def _deadly(self, original, half):
        def call(*arguments, **options):
            self.left -= 1
            if self.left == 0:
                if half is not None:
                    half(*arguments, **options)
                raise Killed
            if self.left < 0:  # a dead process changes nothing
                raise Killed
            return original(*arguments, **options)

        return call

    def _half_save(self, tensors, path):
        save_file(tensors, path)
        path.write_bytes(path.read_bytes()[:50])

    def _half_rmtree(self, path, **options):
        for name in sorted(os.listdir(path))[::2] if os.path.isdir(path) else []:
            os.unlink(os.path.join(path, name))


def test_killed_at_any_moment_the_newest_checkpoint_is_whole_and_the_next_one_succeeds(tmp_path, monkeypatch):
    """Kill the third save at each change of the disk in turn; then restore, go on, save and restore again."""
    finished, moments, outcomes = False, 0, set()
    while not finished:
        moments += 1
        run_dir = tmp_path / str(moments)
        replay, previous, states = RingBuffer(250, 3, 1), None, {}
        for step in (1, 2):
            extend(replay, 130)
            states[step] = replay.state_dict()
            previous = save_checkpoint(run_dir, step, {"model": {"step": torch.tensor(step)}}, replay, {}, previous)
        extend(replay, 130)
        states[3] = replay.state_dict()
        with monkeypatch.context() as patch:
            Killer(patch, moments)
            try:
                save_checkpoint(run_dir, 3, {"model": {"step": torch.tensor(3)}}, replay, {}, previous)
                finished = True
            except Killed:
                pass

        found = newest_checkpoint(run_dir)
        step = found.state["step"]
        outcomes.add(step)
        assert found.load("model")["step"] == step
        restored = RingBuffer(250, 3, 1)
        read_segments(found.path, restored)
        assert restored.total == 130 * step
        assert torch.equal(restored.state_dict()["rows"], states[step]["rows"])

        extend(restored, 90)
        save_checkpoint(run_dir, 4, {"model": {"step": torch.tensor(4)}}, restored, {}, found.path)
        again = RingBuffer(250, 3, 1)
        read_segments(newest_checkpoint(run_dir).path, again)
        assert_equal(again, restored)
        assert len(list((run_dir / "checkpoints").iterdir())) == 2
    assert outcomes == {2, 3}
    assert moments > 15
