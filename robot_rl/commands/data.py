"""`robot-rl data`: recorded transitions between formats, and a report of what is in them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl.data import Dataset

Bound = tuple[float, ...] | None
LOW_HELP = "What -1 stands for in recorded units, where the dataset does not say: one number, or one for each action."
HIGH_HELP = "What 1 stands for."


@dataclass(frozen=True)
class DataArgs:
    """Recorded transitions: `convert` between formats, `report` what is in them.

    Formats: files of transitions (.safetensors, .npz), flight logs of `deploy` and of the ROS node (.mcap), folders of
    LeRobotDataset v3, datasets of Minari (a folder, or an id in its own folder), and run folders of `robot-rl train`,
    whose replay is read. `robot-rl train --demos` takes all of them but run folders.
    """


@dataclass(frozen=True)
class ConvertArgs:
    """Write a dataset in another format, with everything that is known about its rows."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """What to read."""
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """Where to write: a .safetensors file, minari:ID, or a folder (with --to). It must not exist yet."""
    to: Literal["transitions", "minari", "lerobot"] | None = None
    """Format; default: by the name of the target."""
    fps: float | None = None
    """Steps a second, for LeRobot, where the source does not say."""
    action_low: Annotated[Bound, tyro.conf.arg(help=LOW_HELP)] = None
    action_high: Annotated[Bound, tyro.conf.arg(help=HIGH_HELP)] = None


@dataclass(frozen=True)
class ReportArgs:
    """Size, ends, returns, coverage, actions and faults of a dataset."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """What to read."""
    plot: Path | None = None
    """Draw it, as .png, .pdf or .svg."""
    action_low: Annotated[Bound, tyro.conf.arg(help=LOW_HELP)] = None
    action_high: Annotated[Bound, tyro.conf.arg(help=HIGH_HELP)] = None


def parse(arguments: Sequence[str]) -> ConvertArgs | ReportArgs:
    """The subcommand's flags."""
    return tyro.extras.subcommand_cli_from_dict(
        {"convert": ConvertArgs, "report": ReportArgs},
        prog="robot-rl data",
        description=inspect.getdoc(DataArgs),
        args=list(arguments),
    )


def run(args: ConvertArgs | ReportArgs) -> Result:
    dataset = _read(args.source, args.action_low, args.action_high)
    for note in dataset.notes:
        print(f"{args.source}: {note}", file=sys.stderr)
    return _convert(args, dataset) if isinstance(args, ConvertArgs) else _report(args, dataset)


def _convert(args: ConvertArgs, dataset: Dataset) -> Result:
    from robot_rl.data import write_dataset

    path = write_dataset(dataset, args.target, args.to, args.fps)
    rows = [
        Row("data/written", str(path)),
        Row("data/episodes", len(dataset.episodes())),
        Row("data/steps", len(dataset)),
    ]
    return Result(ok=True, rows=tuple(rows), details={"about": dict(dataset.about), "notes": dataset.notes})


def _report(args: ReportArgs, dataset: Dataset) -> Result:
    from robot_rl.data.report import make_report

    report = make_report(dataset)
    rows = [Row(f"data/{name}", value, _unit(name)) for name, value in report.values.items()]
    if args.plot is not None:
        from robot_rl.data.plot import plot_report

        title = f"{Path(args.source).name}: {report.values['episodes']} episodes, {report.values['steps']} steps"
        plot_report(dataset, report, title, args.plot)
        rows.append(Row("data/plot", str(args.plot)))
    return Result(ok=True, rows=tuple(rows), details={**report.details, "notes": dataset.notes})


def _read(source: str, low: Bound, high: Bound) -> Dataset:
    from robot_rl.data import ActionRange, Dataset, read_dataset
    from robot_rl.training.checkpoint import load_config, load_transitions

    if (low is None) != (high is None):
        raise ConfigError("--action-low and --action-high belong together")
    action_range = None if low is None or high is None else ActionRange(low, high)
    if not (Path(source) / "checkpoints").is_dir():
        return read_dataset(source, action_range)
    task = load_config(Path(source)).task
    action_range = action_range or _native_range(task)
    about = {"task": task, "source": Path(source).name}
    return Dataset(load_transitions(source), action_range=action_range, about=about)


def _native_range(task: str) -> Any:
    """The action space of a Gymnasium task; our own tasks have actions in [-1, 1]."""
    if not task.startswith("gym:"):
        return None
    import gymnasium

    from robot_rl.data import ActionRange
    from robot_rl.interop.spaces import box

    env = gymnasium.make(task.removeprefix("gym:"))
    space = box(env.action_space, f"the actions of {task}")
    env.close()
    return ActionRange(space.low, space.high)


def _unit(name: str) -> str:
    return "s" if name == "time/step" else "steps" if name.startswith("length/") else ""


VERB = Verb(arguments=DataArgs, run=run, parse=parse)
