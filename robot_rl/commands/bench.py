"""`robot-rl bench NAME`: one of the installed benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Annotated

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result
from robot_rl.errors import ConfigError


@dataclass(frozen=True)
class BenchArgs:
    """Measure speed on this machine: `env` simulation, `runtime` one control tick, and whatever else is installed."""

    name: Annotated[str, tyro.conf.Positional]
    """Benchmark to run."""


def run(args: BenchArgs) -> Result:
    benchmarks = {e.name: e for e in entry_points(group="robot_rl.benchmarks")}
    if args.name not in benchmarks:
        raise ConfigError(f"unknown benchmark {args.name!r}; valid: {', '.join(sorted(benchmarks))}")
    return benchmarks[args.name].load()()


VERB = Verb(BenchArgs, run)
