"""A replay buffer on disk: files of consecutive transitions, each written once and shared by checkpoints.

    step_000050000/replay_000000050000.safetensors    the transitions up to number 50,000
    step_000150000/replay_000000097541.safetensors    those up to number 97,541: a full segment, never written again
                   replay_000000150000.safetensors    those from there on
    step_000200000/replay_000000097541.safetensors    the same file under a second name (a hard link)
                   replay_000000195082.safetensors    ...

A checkpoint therefore costs the transitions added since the one before and at most one segment more, and a file
disappears with the last checkpoint that needs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from robot_rl.errors import CheckpointError
from robot_rl.replay.ring_buffer import RingBuffer
from robot_rl.training.files import write_tensors

SEGMENT_BYTES = 16 << 20
"""About the size of a full segment. The checkpoints of one run must agree on it."""
PREFIX = "replay_"


def write_segments(folder: Path, replay: RingBuffer, previous: Path | None = None) -> None:
    """Write the buffer's rows into `folder`. Raises OSError naming the file that cannot be written.

    `previous` is the folder of an earlier checkpoint of the same buffer, whose full segments are linked. Where there is
    no such file any more, or the file system knows no hard links, the rows are written from memory.
    """
    for first, end in _spans(replay):
        path = folder / f"{PREFIX}{end:012d}.safetensors"
        if previous is None or end % _segment_rows(replay) != 0 or not _link(previous / path.name, path):
            write_tensors(path, {"rows": replay.rows(first, end)})


def read_segments(folder: Path, replay: RingBuffer) -> None:
    """Fill the buffer with the rows in `folder`. Raises CheckpointError for files that are damaged, lack rows or do not
    fit the buffer."""
    replay.clear()
    oldest = 0
    for index, path in enumerate(sorted(folder.glob(f"{PREFIX}*.safetensors"))):
        rows = _load(path)
        first = int(path.stem.removeprefix(PREFIX)) - rows.shape[0]
        if index == 0:
            replay.clear(first)
            oldest = first
        if first != replay.total or rows.shape[1] * 4 != replay.row_bytes:
            raise CheckpointError(
                f"{path} has {rows.shape[1]} numbers per row from transition {first:,} on, where "
                f"{replay.row_bytes // 4} from {replay.total:,} on are needed"
            )
        replay.add_rows(rows)
    if replay.total - oldest < len(replay):
        raise CheckpointError(f"{folder} has {replay.total - oldest:,} transitions, {len(replay):,} are needed")


def _spans(replay: RingBuffer) -> Iterator[tuple[int, int]]:
    """(first, end) of each segment: cut at multiples of a segment's rows, from the oldest row to the newest."""
    size, first = _segment_rows(replay), replay.total - len(replay)
    while first < replay.total:
        end = min(replay.total, (first // size + 1) * size)
        yield first, end
        first = end


def _segment_rows(replay: RingBuffer) -> int:
    return max(1, SEGMENT_BYTES // replay.row_bytes)


def _link(source: Path, path: Path) -> bool:
    try:
        os.link(source, path)
    except OSError:
        return False
    return True


def _load(path: Path) -> Tensor:
    try:
        return load_file(path)["rows"]
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
