"""What a run reports: TensorBoard scalars under the names of rsl_rl and Isaac Lab, and progress.csv."""

from __future__ import annotations

import csv
import io
import os
import shutil
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robot_rl.env import Step
from robot_rl.training.evaluate import Evaluation, measures_of

EPISODES = 100
"""Episode statistics are means over this many of the newest episodes."""

ROOM = 2**20
"""Bytes that must be free before TensorBoard gets a new file in place of one that could not be written."""

# progress.csv column: TensorBoard tag.
TAGS = {
    "episode_return": "Train/mean_reward",
    "episode_length": "Train/mean_episode_length",
    "success": "Train/success_rate",
    "env_steps_per_s": "Perf/total_fps",
    "updates_per_s": "Perf/updates_per_s",
    "eval_return": "Eval/mean_reward",
    "eval_success": "Eval/success_rate",
}
COLUMNS = ("step", "wall_s", "updates", *TAGS)


class Metrics:
    """Collects between two rows, writes a row, starts again. `metrics` names what the algorithm's update returns.

    On a resume at `step`, rows of progress.csv and TensorBoard events after it are dropped. A disk that is full ends
    nothing: rows wait until there is room again, TensorBoard lacks what fell between.
    """

    problem = ""
    """Why the newest row could not be written, if the one before could."""

    def __init__(self, run_dir: Path, metrics: tuple[str, ...], step: int = 0) -> None:
        self._run_dir = run_dir
        self._names = metrics
        self._columns = (*COLUMNS, *metrics)
        self._board: Any = _board(run_dir, purge_step=step + 1 if step else None)
        self._file = _open_csv(run_dir / "progress.csv", self._columns, step)
        self._unwritten = b""
        self._failing = False
        self._episodes: deque[tuple[float, float, float | None]] = deque(maxlen=EPISODES)
        self._evaluation: Evaluation | None = None
        self._terms: dict[str, Tensor] = {}
        self._measures: dict[str, deque[float]] = {}
        self._steps = 0
        self._updates: Tensor | None = None
        self._n_updates = 0
        self._since = (time.monotonic(), step, 0)

    def add_step(self, step: Step) -> None:
        """Take in one step of all environments."""
        done = step.terminated | step.truncated
        if done.any() and "episode_return" in step.info:
            length = step.info["episode_length"][done].tolist()
            success = step.info["success"][done].tolist() if "success" in step.info else [None] * len(length)
            self._episodes.extend(zip(step.info["episode_return"][done].tolist(), length, success, strict=True))
        for name, value in step.info.items():
            if name.startswith("reward/"):
                self._terms[name] = self._terms.get(name, torch.zeros(())) + value.mean()
        if done.any():
            for name in measures_of(step):
                ends = self._measures.setdefault(name, deque(maxlen=EPISODES))
                ends.extend(step.info[name][done].tolist())
        self._steps += 1

    def add_update(self, values: Mapping[str, Tensor]) -> Tensor:
        """Take in what one update returned; the values in the order of the metrics' names, as one tensor."""
        row = torch.stack([values[name] for name in self._names])
        self._updates = row if self._updates is None else self._updates + row
        self._n_updates += 1
        return row

    def add_evaluation(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation

    def write(self, step: int, wall_s: float, updates: int) -> dict[str, float | None]:
        """Write one row and return it."""
        now = time.monotonic()
        then, old_step, old_updates = self._since
        elapsed = max(now - then, 1e-9)
        row: dict[str, float | None] = {"step": step, "wall_s": round(wall_s, 3), "updates": updates}
        for i, name in enumerate(("episode_return", "episode_length", "success")):
            values = [value for e in self._episodes if (value := e[i]) is not None]
            row[name] = sum(values) / len(values) if values else None
        row["env_steps_per_s"] = (step - old_step) / elapsed
        row["updates_per_s"] = (updates - old_updates) / elapsed
        row["eval_return"] = self._evaluation.return_mean if self._evaluation else None
        row["eval_success"] = self._evaluation.success_rate if self._evaluation else None
        means = [None] * len(self._names) if self._updates is None else (self._updates / self._n_updates).tolist()
        row |= dict(zip(self._names, means, strict=True))
        tags = {**TAGS, **{n: _tag(n) for n in self._names}}
        scalars = {tag: row[column] for column, tag in tags.items()}
        scalars |= {n.replace("reward/", "Episode_Reward/"): (v / self._steps).item() for n, v in self._terms.items()}
        scalars |= {f"Episode/{name}": sum(ends) / len(ends) for name, ends in self._measures.items()}
        self._write_files(row, {tag: value for tag, value in scalars.items() if value is not None}, step)
        self._terms, self._steps, self._updates, self._n_updates, self._evaluation = {}, 0, None, 0, None
        self._since = (now, step, updates)
        return row

    def _write_files(self, row: Mapping[str, float | None], scalars: Mapping[str, float], step: int) -> None:
        self._unwritten += _csv_line(self._columns, row)
        error: OSError | None = None
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) or 0 :]
            if self._board is None and shutil.disk_usage(self._run_dir).free >= ROOM:
                self._board = _board(self._run_dir)
        except OSError as of_csv:
            error = of_csv
        of_board = self._to_board(lambda board: [board.add_scalar(tag, value, step) for tag, value in scalars.items()])
        error = error or of_board
        self.problem = str(error) if error is not None and not self._failing else ""
        self._failing = error is not None

    def _to_board(self, add: Callable[[Any], object]) -> OSError | None:
        """What has failed writes no more, and may have left half an event in its file: the next one gets a new file."""
        if self._board is not None:
            try:
                add(self._board)
            except OSError as error:
                self._board = None
                return error
        return None

    def add_gif(self, tag: str, gif: bytes, step: int) -> None:
        """An animated image, as it is: TensorBoard shows it among the images."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        width, height = struct.unpack("<HH", gif[6:10])  # of the logical screen, after "GIF89a"
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        self._to_board(lambda board: board._get_file_writer().add_summary(summary, step))

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            with suppress(OSError):
                self._board.close()


def _board(run_dir: Path, purge_step: int | None = None) -> Any:
    # Importing it takes a second, and nothing but training needs it.
    from torch.utils.tensorboard.writer import SummaryWriter

    return SummaryWriter(str(run_dir), purge_step=purge_step)


def _tag(name: str) -> str:
    return f"Loss/{name.removesuffix('_loss')}" if name.endswith("_loss") else f"Policy/{name}"


def _csv_line(columns: tuple[str, ...], row: Mapping[str, float | None]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, columns).writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue().encode()


def _open_csv(path: Path, columns: tuple[str, ...], step: int) -> io.FileIO:
    """The file, open for appending rows after `step`: later ones are of a future that a resume undoes. Unbuffered, so
    that what was written is known."""
    kept: list[dict[str, str]] = []
    if step and path.exists():
        with path.open(newline="") as file:
            # A row that a killed process left half written lacks its last columns.
            kept = [row for row in csv.DictReader(file) if None not in row.values() and int(row["step"]) <= step]
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
    os.replace(temporary, path)
    return path.open("ab", buffering=0)
