"""What a run reports, on a disk that fills up and is emptied again."""

import csv
import io
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robot_rl.training.metrics import Metrics


class Disk:
    """Takes `room` more bytes."""

    def __init__(self) -> None:
        self.room: float = float("inf")

    def take(self, size: int) -> int:
        if self.room <= 0:
            raise OSError(28, "No space left on device")
        taken = int(min(size, self.room))
        self.room -= taken
        return taken


class OnDisk(io.FileIO):
    """A file on it."""

    disk: Disk

    def write(self, data) -> int:
        return super().write(data[: self.disk.take(len(data))])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """That of every run of this test, for progress.csv and for TensorBoard's threads."""
    from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

    disk = Disk()
    monkeypatch.setattr(OnDisk, "disk", disk, raising=False)
    write = LocalFileSystem._write

    def take_and_write(*args) -> None:
        disk.take(1)
        write(*args)

    monkeypatch.setattr(LocalFileSystem, "_write", take_and_write)
    usage = type("Usage", (), {"free": property(lambda _: disk.room)})
    monkeypatch.setattr("robot_rl.training.metrics.shutil.disk_usage", lambda _: usage())
    return disk


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own
def test_a_full_disk_delays_rows_and_is_told_once(tmp_path: Path, disk: Disk) -> None:
    metrics = Metrics(tmp_path, ("q",))
    metrics._file = OnDisk(metrics._file.name, "ab")
    problems = []
    for step in range(1, 11):
        disk.room = {3: 10, 4: 0, 7: float("inf")}.get(step, disk.room)  # row 3 is cut off in its midst
        metrics.add_update({"q": torch.tensor(float(step))})
        metrics.write(step, 0.1 * step, step)
        problems.append(metrics.problem)
        if metrics._board is not None:
            try:
                metrics._board.flush()
            except OSError:
                assert step < 7
    metrics.close()
    assert [step for step, problem in enumerate(problems, 1) if problem] == [3]
    assert "No space left" in problems[2]
    with (tmp_path / "progress.csv").open() as file:
        assert [(row["step"], row["q"]) for row in csv.DictReader(file)] == [(str(s), str(s)) for s in range(1, 11)]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("Policy/q")] == [1, 2, 7, 8, 9, 10]
