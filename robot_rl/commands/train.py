"""`robot-rl train`: train a policy, or go on with a run."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl.training.config import TrainConfig


@dataclass(frozen=True)
class TrainArgs:
    """Train a policy in simulation, or go on with a run (--resume).

    The defaults shown are those of the chosen --task and --algo, which are the task's measured preset where it has one,
    or of the --recipe.
    """

    config: TrainConfig
    resume: Path | None = None


RECIPE_HELP = "Settings of a published method as the defaults: rlpd (needs --demos) or fastsac (for a GPU)."
RANDOMIZATION_HELP = (
    "JSON file with some of the task's randomization settings, by name, as defaults of --randomization.<setting>."
)
RESUME_HELP = "Go on with this run folder from its newest checkpoint. Its settings hold, except amounts given as flags."


def parse(arguments: Sequence[str]) -> TrainArgs:
    """Flags over preset over defaults: --task, --algo and --resume decide the defaults of all others."""
    from robot_rl.algorithms.algorithm import get_algorithm
    from robot_rl.env import get_task
    from robot_rl.training.checkpoint import load_config
    from robot_rl.training.config import TrainConfig, make_config, read_randomization
    from robot_rl.training.recipes import get_recipe

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--task")
    first.add_argument("--algo")
    first.add_argument("--recipe")
    first.add_argument("--resume", type=Path)
    first.add_argument("--randomization-file", type=Path)
    chosen, _ = first.parse_known_args(list(arguments))
    recipe = None if chosen.recipe is None else get_recipe(chosen.recipe)
    if recipe is not None and chosen.algo not in (None, recipe.algo):
        raise ConfigError(f"recipe {chosen.recipe!r} is one of --algo {recipe.algo}, got --algo {chosen.algo}")
    algo = recipe.algo if recipe is not None else chosen.algo or "sac"
    get_algorithm(algo)
    default: TrainConfig | None = None
    if chosen.resume is not None:
        default = load_config(chosen.resume)
    elif chosen.task is not None:
        task = get_task(chosen.task)
        # A preset is tuned as a whole, so a recipe replaces it rather than being mixed with it.
        default = (
            make_config(task, algo)
            if recipe is None
            else make_config(dataclasses.replace(task, presets={}), algo, **recipe.settings)
        )
        if chosen.randomization_file is not None:
            ranges = read_randomization(task, chosen.randomization_file)
            default = dataclasses.replace(default, randomization=ranges)

    # Made here, because TrainConfig is known only now: importing it at the top would make every `--help` load torch.
    ranges = None if default is None else default.randomization
    fields = [
        ("config", tyro.conf.OmitArgPrefixes[TrainConfig], MISSING if default is None else default),
        ("randomization", type(ranges) if ranges is not None else tyro.conf.Suppress[None], ranges),
        ("randomization_file", Annotated[Path | None, tyro.conf.arg(help=RANDOMIZATION_HELP)], None),
        ("recipe", Annotated[str | None, tyro.conf.arg(help=RECIPE_HELP)], None),
        ("resume", Annotated[Path | None, tyro.conf.arg(help=RESUME_HELP)], None),
    ]
    parsed: Any = tyro.cli(
        make_dataclass("TrainArgs", [(n, t, field(default=d)) for n, t, d in fields], frozen=True),
        prog="robot-rl train",
        description=inspect.getdoc(TrainArgs),
        args=list(arguments),
        config=(tyro.conf.AvoidSubcommands,),
    )
    return TrainArgs(dataclasses.replace(parsed.config, randomization=parsed.randomization), parsed.resume)


def run(args: TrainArgs) -> Result:
    from robot_rl.training.checkpoint import load_config
    from robot_rl.training.config import MAY_CHANGE_ON_RESUME
    from robot_rl.training.loop import check_resumable, resume, train

    config: TrainConfig = args.config
    if config.video_every and sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported
    if args.resume is None:
        result = train(config)
    else:
        check_resumable(load_config(args.resume), config)
        result = resume(args.resume, **{key: getattr(config, key) for key in MAY_CHANGE_ON_RESUME})
    if result.interrupted:
        raise KeyboardInterrupt
    rows = [
        Row(f"train/{config.task}/env_steps", result.env_steps, "steps"),
        Row(f"train/{config.task}/updates", result.updates, "updates"),
        Row(f"train/{config.task}/wall", result.wall_s, "s"),
    ]
    if result.evaluation is not None:
        rows.append(Row(f"train/{config.task}/return", result.evaluation.return_mean))
        if result.evaluation.success_rate is not None:
            rows.append(Row(f"train/{config.task}/success", result.evaluation.success_rate))
    rows.append(Row("train/run", str(result.run_dir)))
    return Result(ok=True, rows=tuple(rows), details={"run_dir": str(result.run_dir)})


VERB = Verb(arguments=TrainArgs, run=run, parse=parse)
