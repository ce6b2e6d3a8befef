"""Which reader and writer a dataset has, found from its path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robot_rl.data import log, minari, transitions
from robot_rl.data.dataset import ActionRange, Dataset
from robot_rl.errors import ConfigError, MissingDependencyError

_LEROBOT_INFO = "meta/info.json"


def find_dataset(source: Path | str) -> tuple[str, Path]:
    """(format, path) of what `source` names: a file, a folder, or the id of a dataset in Minari's folder.

    Raises ConfigError saying what would have been read.
    """
    path = Path(source)
    if path.suffix in (".safetensors", ".npz"):
        return "transitions", path
    if path.suffix == ".mcap":
        return "log", path
    if (path / _LEROBOT_INFO).is_file():
        return "lerobot", path
    if (folder := minari.find(str(source))) is not None:
        return "minari", folder
    raise ConfigError(
        f"{source} is no dataset: neither a file of transitions (.safetensors, .npz) or a log (.mcap), nor a folder of "
        f"a LeRobotDataset ({_LEROBOT_INFO}) or of Minari (data/metadata.json), nor an id in {minari.local_folder()}"
    )


def read_dataset(source: Path | str, action_range: ActionRange | None = None) -> Dataset:
    """Read a dataset of any format. `action_range` is what -1 and 1 stand for in the units of recorded actions, for
    datasets that do not say.

    Raises ConfigError for what is no dataset, is broken, or needs an action range.
    """
    kind, path = find_dataset(source)
    if kind in ("minari", "lerobot"):
        with _from_extra():
            from robot_rl.data import lerobot

            return (minari if kind == "minari" else lerobot).read(path, action_range)
    if action_range is not None:
        raise ConfigError(f"{source}: actions of {kind} are in [-1, 1] already; no action range is needed")
    return transitions.read(path) if kind == "transitions" else log.read(path)


def write_dataset(dataset: Dataset, target: Path | str, kind: str | None = None, fps: float | None = None) -> Path:
    """Write a dataset; `kind` is one of transitions, minari and lerobot, by default what the name of `target` says
    (.safetensors; minari:ID). Returns where it is.

    Raises ConfigError for rows that are not finite or out of range, and for a target that exists.
    """
    name, path = str(target), Path(target)
    if name.startswith(minari.PREFIX):
        kind, path = kind or "minari", minari.local_folder() / name.removeprefix(minari.PREFIX)
    elif path.suffix == ".safetensors":
        kind = kind or "transitions"
    if path.exists():
        raise ConfigError(f"{path} exists; choose another name or remove it")
    dataset.check(name)
    if kind == "minari":
        with _from_extra():
            minari.write(dataset, path)
    elif kind == "lerobot":
        with _from_extra():
            from robot_rl.data import lerobot

            lerobot.write(dataset, path, fps)
    elif kind == "transitions":
        transitions.write(dataset, path)
    elif kind == "log":
        raise ConfigError("a log is recorded by `robot-rl deploy`; transitions do not hold what is in one")
    else:
        raise ConfigError(f"{name} may be of any format; say which with --to: transitions, minari or lerobot")
    return path


@contextmanager
def _from_extra() -> Iterator[None]:
    """An import that fails names the extra that brings it."""
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(f"{error}; Minari and LeRobot come with: pip install 'robot-rl[data]'") from error
