"""Minari datasets (https://minari.farama.org): HDF5, Arrow or Parquet on disk, read and written with its own package.

Only what is on this machine is read; nothing is downloaded. An episode of T steps has T + 1 observations, so the true
last observation is there. Written, and read back, beside Minari's own arrays:

    infos/action_proposed, infos/success, infos/time_s   rows t + 1 hold step t, as infos of a step do; row 0 is NaN
    metadata "robot_rl"                                  what is told about the dataset

Actions are stored in their recorded units, and the action space says which: its box is what [-1, 1] stands for.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robot_rl.data.dataset import ActionRange, Dataset, as_batch, closed, new_folder
from robot_rl.errors import ConfigError

PREFIX = "minari:"
"""`minari:ID` is the dataset of that id in Minari's folder."""
_ID = re.compile(r"([\w-]+/)*[\w-]+-v\d+")
_INFOS = ("action_proposed", "success", "time_s")


def local_folder() -> Path:
    """Where Minari keeps datasets on this machine."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def find(name: str) -> Path | None:
    """The folder of a dataset, given as a folder, an id, or minari:ID; None if there is none."""
    for folder in (Path(name), local_folder() / name.removeprefix(PREFIX)):
        if (folder / "data" / "metadata.json").is_file():
            return folder
    return None


def read(path: Path, action_range: ActionRange | None = None) -> Dataset:
    """All episodes of the dataset in folder `path`. `action_range` stands in for an unbounded action space.

    Raises ConfigError for spaces other than boxes, for images, and for files that cannot be read.
    """
    from minari.dataset.minari_storage import MinariStorage

    try:
        storage = MinariStorage.read(path / "data")
        metadata = MinariStorage.read_raw_metadata(path / "data")
        observation_dim = _vector(storage.observation_space, f"{path}: observations")
        action_dim = _vector(storage.action_space, f"{path}: actions")
        actions = action_range.for_actions(action_dim) if action_range else _box_range(storage.action_space, path)
        episodes = list(storage.get_episodes(range(storage.total_episodes)))
        if (steps := sum(len(e["rewards"]) for e in episodes)) != storage.total_steps or not episodes:
            raise ConfigError(f"{path} holds {steps} steps; its metadata says {storage.total_steps}")
    except (OSError, KeyError, ValueError, AssertionError) as error:
        raise ConfigError(f"{path} cannot be read as a Minari dataset: {type(error).__name__}: {error}") from error
    obs = [np.asarray(e["observations"], np.float32).reshape(-1, observation_dim) for e in episodes]
    short = [i for i, e in enumerate(episodes) if len(obs[i]) != len(e["rewards"]) + 1]
    if short:
        raise ConfigError(
            f"{path}: episode {short[0]} has {len(obs[short[0]])} observations; one more than steps needed"
        )
    flags = [closed(np.asarray(e["terminations"]), np.asarray(e["truncations"])) for e in episodes]
    native = np.concatenate([np.asarray(e["actions"], np.float64).reshape(len(e["rewards"]), -1) for e in episodes])
    batch = as_batch(
        np.concatenate([o[:-1] for o in obs]),
        actions.to_unit(native, str(path)),
        np.concatenate([np.asarray(e["rewards"]).reshape(-1) for e in episodes]),
        np.concatenate([terminated for terminated, _ in flags]),
        np.concatenate([truncated for _, truncated in flags]),
        np.concatenate([o[1:] for o in obs]),
    )
    infos = {name: _info(episodes, name) for name in _INFOS}
    proposed = infos["action_proposed"]
    return Dataset(
        batch,
        action_proposed=None if proposed is None else actions.to_unit(proposed, f"{path}: action_proposed"),
        success=None if infos["success"] is None else torch.from_numpy(infos["success"].astype(np.float32)),
        time_s=None if infos["time_s"] is None else torch.from_numpy(infos["time_s"].astype(np.float64)),
        action_range=actions,
        about=_about(metadata),
    )


def write(dataset: Dataset, path: Path) -> None:
    """Write a dataset as the folder `path`, whose place in Minari's folder (or else its name) is its id.

    Raises ConfigError for a folder that exists and for a name that Minari cannot load.
    """
    from gymnasium.spaces import Box
    from minari import __version__
    from minari.data_collector.episode_buffer import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    root = local_folder()
    dataset_id = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    if not _ID.fullmatch(dataset_id):
        raise ConfigError(f"Minari names datasets [NAMESPACE/]NAME-vN, such as hand/replay-v0; got {dataset_id!r}")
    batch, actions = dataset.transitions, dataset.native_actions
    low, high = (bound.astype(np.float32) for bound in (actions.low, actions.high))
    native = actions.to_native(batch.action)
    more = _native_infos(dataset)
    buffers = []
    for rows in dataset.episodes():
        terminated, truncated = closed(batch.terminated[rows].numpy(), batch.truncated[rows].numpy())
        buffers.append(
            EpisodeBuffer(
                observations=torch.cat((batch.obs[rows], batch.next_obs[rows][-1:])).numpy(),  # type: ignore[arg-type]
                actions=native[rows],  # type: ignore[arg-type]
                rewards=batch.reward[rows].numpy(),  # type: ignore[arg-type]
                terminations=terminated,  # type: ignore[arg-type]
                truncations=truncated,  # type: ignore[arg-type]
                infos={name: np.concatenate((np.full_like(v[:1], np.nan), v[rows])) for name, v in more.items()},
            )
        )
    with new_folder(path) as folder:
        storage = MinariStorage.new(
            folder.absolute() / "data",  # it measures the size of the folder wrongly through a relative path
            observation_space=Box(-np.inf, np.inf, (batch.obs.shape[1],), np.float32),
            action_space=Box(low, high, dtype=np.float32),
        )
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": __version__,
                "robot_rl": dict(dataset.about),
                **_env_spec(dataset),
            }
        )
        storage.update_episodes(buffers)


def _native_infos(dataset: Dataset) -> dict[str, NDArray[Any]]:
    infos: dict[str, NDArray[Any]] = {}
    if dataset.action_proposed is not None:
        infos["action_proposed"] = dataset.native_actions.to_native(dataset.action_proposed)
    if dataset.success is not None:
        infos["success"] = dataset.success.numpy()
    if dataset.time_s is not None:
        infos["time_s"] = dataset.time_s.numpy()
    return infos


def _info(episodes: Iterable[dict[str, Any]], name: str) -> NDArray[Any] | None:
    """The info of all steps; None if any episode lacks it or has it in another form than one value per step."""
    found = []
    for episode in episodes:
        value, steps = (episode.get("infos") or {}).get(name), len(episode["rewards"])
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "bfiu" or len(value) != steps + 1:
            return None
        found.append(value[1:].reshape((steps, -1) if name == "action_proposed" else steps))
    return np.concatenate(found)


def _vector(space: Any, what: str) -> int:
    """Size of a box of numbers."""
    from gymnasium.spaces import Box

    if not isinstance(space, Box):
        raise ConfigError(f"{what} are {space}; only Box spaces are read")
    if space.dtype == np.uint8 and len(space.shape) > 1:
        raise ConfigError(f"{what} are images of {space.shape}; only vectors are read")
    return int(np.prod(space.shape))


def _box_range(space: Any, path: Path) -> ActionRange:
    if not space.is_bounded():
        raise ConfigError(
            f"{path}: actions are unbounded ({space}); say with --action-low and --action-high what -1 and 1 are"
        )
    return ActionRange(space.low, space.high)


def _about(metadata: dict[str, Any]) -> dict[str, str]:
    if "robot_rl" in metadata:
        return metadata["robot_rl"]
    names = ("dataset_id", "algorithm_name", "description", "code_permalink", "ref_min_score", "ref_max_score")
    about = {name: str(metadata[name]) for name in names if metadata.get(name) not in (None, "")}
    if metadata.get("env_spec"):
        about["task"] = f"gym:{json.loads(metadata['env_spec'])['id']}"
    return about


def _env_spec(dataset: Dataset) -> dict[str, str]:
    """With the specification of a Gymnasium task, `recover_environment` works."""
    import gymnasium

    task = dataset.about.get("task", "")
    if not task.startswith("gym:"):
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {"env_spec": gymnasium.spec(task.removeprefix("gym:")).to_json()}
    except (gymnasium.error.Error, TypeError, ValueError, ModuleNotFoundError):
        return {}
