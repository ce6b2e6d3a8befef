"""LeRobotDataset v3.0: Parquet and JSON, in the layout of lerobot 0.4 and 0.6 (run with 0.4.4); without its package.

Written, one row per transition:

    observation.state, action, next.reward        action in recorded units, as it was executed
    next.done                                     terminated or truncated
    next.truncated                                of those, cut off by the clock or the end of recording
    next.observation.state                        before any reset; LeRobot has no observation after the last action
    next.success, complementary_info.action_proposed, complementary_info.time_s     where they are known
    timestamp, frame_index, episode_index, index, task_index                        timestamp is frame_index / fps

and meta/info.json, stats.json, tasks.parquet, episodes/, and meta/robot_rl.json: what is told about the dataset. What
-1 and 1 stand for is in info.json, as "low" and "high" of the feature action. A reward that is not known has no column.
lerobot's loaders ignore what they do not know, and its tools keep it; columns named complementary_info are its own way
to have more per step (one that begins with "action" would be another action).

Read, of datasets of others: observation.* vectors one after the other, in the order of info.json; images, videos and
text are left out, which `notes` says. Without next.truncated, an episode that ends in next.success terminated, and any
other was truncated. Without next.observation.state, the last row of a truncated episode is dropped: what came after it
is not known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from robot_rl.data.dataset import ActionRange, Dataset, as_batch, new_folder, unit_range
from robot_rl.data.lerobot_meta import Columns, data_file, episode_table, frame_tables, info_json, stats, task_table
from robot_rl.errors import ConfigError

INFO, ABOUT = Path("meta/info.json"), Path("meta/robot_rl.json")
_NEXT_OBS = "next.observation.state"
_PROPOSED, _TIME = "complementary_info.action_proposed", "complementary_info.time_s"


def write(dataset: Dataset, path: Path, fps: float | None = None) -> None:
    """Write a dataset as the folder `path`. Raises ConfigError for a folder that exists, and when neither `fps` nor the
    dataset says how many steps a second has."""
    fps = fps or float(dataset.about.get("fps", 0))
    if not fps > 0:
        raise ConfigError("LeRobot needs to know how many steps a second has; give it with --fps")
    episodes, actions = dataset.episodes(), dataset.native_actions
    columns = _frames(dataset, episodes, fps)
    task = dataset.about.get("task", "unknown")
    with new_folder(path) as folder:
        files = []
        for number, (table, span) in enumerate(frame_tables(columns, episodes)):
            files += [number] * span
            _write_table(table, folder / data_file(number))
        _write_table(episode_table(columns, episodes, files, task), folder / "meta/episodes/chunk-000/file-000.parquet")
        pq.write_table(task_table(task), folder / "meta/tasks.parquet")
        about = {**dataset.about, "fps": f"{fps:.10g}"}
        info = info_json(columns, len(episodes), fps, dataset.about.get("robot"))
        info["features"]["action"] |= {"low": actions.low.tolist(), "high": actions.high.tolist()}
        for file, content in (
            (INFO, info),
            (Path("meta/stats.json"), {name: stats(values) for name, values in columns.items()}),
            (ABOUT, about),
        ):
            (folder / file).write_text(json.dumps(content, indent=4))


def _frames(dataset: Dataset, episodes: list[slice], fps: float) -> Columns:
    """One row per transition."""
    batch, actions = dataset.transitions, dataset.native_actions
    done = (batch.terminated + batch.truncated).numpy() > 0
    truncated = batch.truncated.numpy() > 0
    # An end without a flag is where recording stopped.
    ends = [rows.stop - 1 for rows in episodes]
    truncated[ends] |= ~done[ends]
    done[ends] = True
    columns: Columns = {
        "observation.state": batch.obs.numpy(),
        "action": actions.to_native(batch.action),
        "next.done": done,
        "next.truncated": truncated,
        _NEXT_OBS: batch.next_obs.numpy(),
    }
    if dataset.reward_known:
        columns["next.reward"] = batch.reward.numpy()
    if dataset.success is not None:
        columns["next.success"] = dataset.success.numpy() > 0
    if dataset.action_proposed is not None:
        columns[_PROPOSED] = actions.to_native(dataset.action_proposed)
    if dataset.time_s is not None:
        columns[_TIME] = dataset.time_s.numpy()
    lengths = np.array([rows.stop - rows.start for rows in episodes])
    frame = np.concatenate([np.arange(n) for n in lengths])
    return columns | {
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "index": np.arange(len(dataset)),
        "task_index": np.zeros(len(dataset), np.int64),
    }


def read(path: Path, action_range: ActionRange | None = None) -> Dataset:
    """All episodes of the dataset in folder `path`. `action_range` says what -1 and 1 are in the units of the action;
    without it, it is what we wrote, or else actions must lie in [-1, 1].

    Raises ConfigError for another version, for a dataset without observation vectors or actions, and for missing rows.
    """
    try:
        info = json.loads((path / INFO).read_text())
        own = json.loads((path / ABOUT).read_text()) if (path / ABOUT).is_file() else {}
        features, version, total = info["features"], info["codebase_version"], info["total_frames"]
        if not version.startswith("v3."):
            raise ConfigError(f"{path} has version {version}; v3.0 is read. lerobot converts v2.1 to it")
        observed = [n for n in features if n.startswith("observation.") and _is_vector(features[n])]
        if not observed or "action" not in features:
            raise ConfigError(f"{path} needs observation vectors and an action; it has {', '.join(features)}")
        wanted = [*observed, "action", "episode_index", "frame_index", "next.reward", "next.done", "next.truncated"]
        wanted += [_NEXT_OBS, "next.success", _PROPOSED, _TIME]
        columns = _columns(path, {n: int(np.prod(features[n]["shape"])) for n in wanted if n in features}, total)
        tasks = _tasks(path)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read as a LeRobotDataset: {type(error).__name__}: {error}") from error
    obs = np.concatenate([columns[name] for name in observed], axis=1)
    last = np.append(np.diff(columns["episode_index"][:, 0]) != 0, True)
    kept, terminated, truncated, next_obs = _ends(columns, obs, last)
    if not kept.any():
        raise ConfigError(f"{path} has only episodes of one frame, of which nothing is known that follows")
    if action_range is None and "low" in features["action"]:
        action_range = ActionRange(features["action"]["low"], features["action"]["high"])
    action_range = (action_range or unit_range(1)).for_actions(columns["action"].shape[1])
    reward = columns["next.reward"][kept, 0] if "next.reward" in columns else np.full(kept.sum(), np.nan)
    batch = as_batch(
        obs[kept], action_range.to_unit(columns["action"][kept], str(path)), reward, terminated[kept], truncated[kept],
        next_obs[kept],
    )  # fmt: skip
    about = {
        "fps": f"{info['fps']:g}",
        "source": path.name,
        "observation": " ".join(observed),
        "robot": info.get("robot_type") or "",
        "task": tasks[0] if len(tasks) == 1 else "",
    }
    proposed = columns.get(_PROPOSED)
    return Dataset(
        batch,
        action_proposed=None if proposed is None else action_range.to_unit(proposed[kept], f"{path}: {_PROPOSED}"),
        success=_column(columns, "next.success", kept, torch.float32),
        time_s=_column(columns, _TIME, kept, torch.float64),
        action_range=action_range,
        about=own or {name: text for name, text in about.items() if text},
        notes=tuple(_notes(features, observed, columns, int((~kept).sum()), tasks)),
    )


def _ends(
    columns: Columns, obs: NDArray[Any], last: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[Any]]:
    """(rows that are transitions, terminated, truncated, next_obs)."""
    never = np.zeros((len(obs), 1))
    done = (columns.get("next.done", never)[:, 0] > 0) | last
    if "next.truncated" in columns:
        truncated = done & (columns["next.truncated"][:, 0] > 0)
    else:
        truncated = done & ~(columns.get("next.success", never)[:, 0] > 0)
    if _NEXT_OBS in columns:
        return np.ones(len(obs), bool), done & ~truncated, truncated, columns[_NEXT_OBS]
    # Nothing is bootstrapped from the end of an MDP, so what stands there does not matter.
    next_obs = np.where(last[:, None], obs, np.roll(obs, -1, axis=0))
    dropped = last & truncated
    # Where it was, the row before ends the episode.
    truncated[:-1] |= dropped[1:] & ~last[:-1] & ~done[:-1]
    return ~dropped, done & ~truncated, truncated, next_obs


def _notes(
    features: dict[str, Any], observed: list[str], columns: Columns, dropped: int, tasks: list[str]
) -> Iterator[str]:
    skipped = [f"{n} ({f['dtype']})" for n, f in features.items() if n.startswith("observation") and n not in observed]
    if skipped:
        yield f"left out: {', '.join(skipped)}; only vectors are read"
    if dropped:
        yield f"{dropped} last rows of episodes left out: their next observation was not recorded"
    if "next.reward" not in columns:
        yield "there is no next.reward: it is NaN"
    if "next.truncated" not in columns:
        yield "there is no next.truncated: episodes that end in next.success are terminated, others truncated"
    if len(tasks) > 1:
        yield f"{len(tasks)} tasks are read as one: {', '.join(tasks[:5])}"


def _columns(path: Path, sizes: dict[str, int], total: int) -> Columns:
    """Columns (rows, size) of all data files, in the order in which they happened."""
    files = sorted((path / "data").glob("*/*.parquet"))
    table = pa.concat_tables([pq.read_table(file, columns=list(sizes)) for file in files]) if files else None
    if table is None or table.num_rows != total or not total:
        raise ConfigError(f"{path} has {table.num_rows if table else 0} rows in data/; meta/info.json says {total}")
    table = table.sort_by([("episode_index", "ascending"), ("frame_index", "ascending")])
    return {name: _array(table.column(name), size, f"{path}: {name}") for name, size in sizes.items()}


def _array(column: pa.ChunkedArray, size: int, what: str) -> NDArray[Any]:
    values = column.combine_chunks()
    is_list = isinstance(values.type, (pa.FixedSizeListType, pa.ListType, pa.LargeListType))
    flat = (values.flatten() if is_list else values).to_numpy(zero_copy_only=False)
    if len(flat) != len(column) * size:
        raise ConfigError(f"{what} has {len(flat)} numbers in {len(column)} rows; {size} per row expected")
    return flat.reshape(-1, size)


def _column(columns: Columns, name: str, kept: NDArray[np.bool_], dtype: torch.dtype) -> torch.Tensor | None:
    return torch.tensor(columns[name][kept, 0], dtype=dtype) if name in columns else None


def _is_vector(feature: dict[str, Any]) -> bool:
    return len(feature["shape"]) == 1 and feature["dtype"] in ("float32", "float64", "int32", "int64", "bool")


def _tasks(path: Path) -> list[str]:
    table = pq.read_table(path / "meta/tasks.parquet")
    texts = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    return table.column(texts[0]).to_pylist() if texts else []


def _write_table(table: pa.Table, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
