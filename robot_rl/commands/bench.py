"""`robot-rl bench NAME`: one of the installed benchmarks, with its own flags.

A benchmark is an entry point of the group `robot_rl.benchmarks`: a function that returns a Result. Its docstring is its
help, its parameters, all with defaults, are its flags.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import tyro

from robot_rl.commands.main import EXIT_OK, EXIT_USAGE, Verb
from robot_rl.commands.result import Result
from robot_rl.errors import ConfigError


@dataclass(frozen=True)
class BenchArgs:
    """Measure on this machine: speed beside others', learning against public results, timing. `bench` lists what."""

    name: str
    """Benchmark to run."""
    flags: tuple[str, ...] = ()
    """What follows its name."""


def load_benchmarks() -> dict[str, EntryPoint]:
    """Benchmark name -> entry point, sorted by name, without importing any."""
    return {e.name: e for e in sorted(entry_points(group="robot_rl.benchmarks"), key=lambda e: e.name)}


def parse(arguments: list[str]) -> BenchArgs:
    """The name, and what follows it as it is: the benchmark knows its own flags."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        raise SystemExit(EXIT_OK if arguments else EXIT_USAGE)
    if arguments[0] not in (known := load_benchmarks()):
        raise ConfigError(f"unknown benchmark {arguments[0]!r}; valid: {', '.join(known)}")
    return BenchArgs(arguments[0], tuple(arguments[1:]))


def overview() -> str:
    """Every benchmark with the first line of its module's docstring."""
    entries = load_benchmarks()
    width = max((len(name) for name in entries), default=0)
    lines = ["usage: robot-rl bench NAME [flags]", "", str(BenchArgs.__doc__), "", "benchmarks:"]
    for name, entry in entries.items():
        try:
            summary = (inspect.getdoc(inspect.getmodule(entry.load())) or "").partition("\n")[0]
            summary = summary.removeprefix(f"`robot-rl bench {name}`: ")
        except ModuleNotFoundError as error:  # what is not installed must not cost the others
            summary = f"(not available: {error})"
        lines.append(f"  {name:<{width}}  {summary}")
    return "\n".join([*lines, "", "NAME --help shows a benchmark's flags."])


def run(args: BenchArgs) -> Result:
    benchmark: Callable[..., Result] = load_benchmarks()[args.name].load()
    return tyro.cli(benchmark, prog=f"robot-rl bench {args.name}", args=list(args.flags))


VERB = Verb(BenchArgs, run, parse)
