"""The tables and the metadata of a LeRobotDataset v3.0, made from columns of numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

VERSION = "v3.0"
FILE_MB, CHUNK_FILES = 100, 1000
"""LeRobot's own limits: the size of a data file, and the files of a folder."""

Columns = dict[str, NDArray[Any]]
"""Feature -> (rows,) or (rows, size). What has one number per row is a plain column, as LeRobot has it."""

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def info_json(columns: Columns, episodes: int, fps: float, robot: str | None) -> dict[str, Any]:
    """meta/info.json."""
    return {
        "codebase_version": VERSION,
        "robot_type": robot,
        "total_episodes": episodes,
        "total_frames": len(columns["index"]),
        "total_tasks": 1,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": FILE_MB,
        "video_files_size_in_mb": 200,
        "fps": int(fps) if fps == int(fps) else fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": {name: _feature(name, values) for name, values in columns.items()},
    }


def _feature(name: str, values: NDArray[Any]) -> dict[str, Any]:
    size = values.shape[1] if values.ndim > 1 else 1
    names = None if name in _BOOKKEEPING else [f"{name.rpartition('.')[2]}_{i}" for i in range(size)]
    return {"dtype": str(values.dtype), "shape": [size], "names": names}


def data_file(number: int) -> str:
    """Where the data file of that number lies."""
    return f"data/chunk-{number // CHUNK_FILES:03d}/file-{number % CHUNK_FILES:03d}.parquet"


def frame_tables(columns: Columns, episodes: list[slice]) -> Iterator[tuple[pa.Table, int]]:
    """Data files and how many episodes each holds: whole ones, of FILE_MB together at most unless one alone is more."""
    row_bytes = sum(values.nbytes for values in columns.values()) / len(columns["index"])
    most = max(1, int(FILE_MB * 2**20 / row_bytes))
    first = 0
    for i, rows in enumerate(episodes):
        if i + 1 == len(episodes) or episodes[i + 1].stop - episodes[first].start > most:
            span = slice(episodes[first].start, rows.stop)
            yield pa.table({name: _column(values[span]) for name, values in columns.items()}), i + 1 - first
            first = i + 1


def _column(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 1 or values.shape[1] == 1:
        return pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def episode_table(columns: Columns, episodes: list[slice], files: list[int], task: str) -> pa.Table:
    """meta/episodes: where each episode lies, and its statistics."""
    n = len(episodes)
    table: dict[str, Any] = {
        "episode_index": np.arange(n),
        "tasks": [[task]] * n,
        "length": [rows.stop - rows.start for rows in episodes],
        "data/chunk_index": [file // CHUNK_FILES for file in files],
        "data/file_index": [file % CHUNK_FILES for file in files],
        "dataset_from_index": [rows.start for rows in episodes],
        "dataset_to_index": [rows.stop for rows in episodes],
        "meta/episodes/chunk_index": np.zeros(n, np.int64),
        "meta/episodes/file_index": np.zeros(n, np.int64),
    }
    for name, values in columns.items():
        each = [stats(values[rows]) for rows in episodes]
        table |= {f"stats/{name}/{key}": [one[key] for one in each] for key in each[0]}
    return pa.table(table)


def stats(values: NDArray[Any]) -> dict[str, list[float]]:
    """Of each number of a feature, over rows."""
    numbers = values.reshape(len(values), -1).astype(np.float64)
    found = {"min": numbers.min(0), "max": numbers.max(0), "mean": numbers.mean(0), "std": numbers.std(0)}
    quantiles = np.quantile(numbers, list(_QUANTILES.values()), axis=0)
    found |= dict(zip(_QUANTILES, quantiles, strict=True))
    return {**{name: value.tolist() for name, value in found.items()}, "count": [len(values)]}


def task_table(task: str) -> pa.Table:
    """meta/tasks.parquet, which LeRobot reads as a pandas frame with the tasks as its index."""
    table = pa.table({"task_index": pa.array([0], pa.int64()), "task": [task]})
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, (kind, numpy) in kinds.items()
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
