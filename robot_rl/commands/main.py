"""The command line `robot-rl`, composed from the entry points `robot_rl.commands` of the installed parts.

An entry point names a Verb. Its argument dataclass becomes the flags; its function gets the parsed arguments and
returns a Result. Verb modules import torch, mujoco and the like only inside their functions, so that `--help` and the
verbs of a robot start at once and work where the heavy parts are not installed.

Exit codes: 0 success; 1 the verb ran and failed; 2 wrong usage; 3 an optional part is missing; 130 interrupted; 143 and
129 ended by SIGTERM and SIGHUP.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FrameType
from typing import Any

import tyro

from robot_rl import __version__
from robot_rl.commands.result import Result
from robot_rl.commands.terminal import reader_has_gone, tell
from robot_rl.errors import ConfigError, MissingDependencyError, RobotRLError

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_MISSING, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

# Package that fails to import -> the extra that brings it.
_EXTRAS = {
    "torch": "train", "safetensors": "train", "tensorboard": "train", "onnx": "train", "onnxscript": "train",
    "mujoco": "sim", "gymnasium": "sim", "matplotlib": "sim", "imageio": "sim",
    "minari": "data", "h5py": "data", "pyarrow": "data",
    "stable_baselines3": "sb3", "rclpy": "ros", "robot_rl_bridge": "ros", "viser": "view",
    "dynamixel_sdk": "leap", "serial": "leap",
}  # fmt: skip


@dataclass(frozen=True)
class Verb:
    """One verb of the command line."""

    arguments: type
    """Frozen dataclass; its docstring is the verb's help, its attribute docstrings are the flags' help."""
    run: Callable[[Any], Result]
    parse: Callable[[list[str]], Any] | None = None
    """For flags whose defaults depend on other flags; otherwise tyro parses `arguments`."""


def load_verbs() -> dict[str, EntryPoint]:
    """Verb name -> entry point, sorted by name, without importing any."""
    return {e.name: e for e in sorted(entry_points(group="robot_rl.commands"), key=lambda e: e.name)}


def main(argv: list[str] | None = None) -> int:
    """Parse, run, print, write `--json FILE`, and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Read when torch is first imported. An OpenMP thread that waits spins, by default for so long that beside one busy
    # process an update on two threads has taken 30 times its usual time; not spinning at all doubles it on idle cores.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        arguments, json_path = _take_json(arguments)
        return _dispatch(arguments, json_path)
    except KeyboardInterrupt:
        tell("interrupted", sys.stderr)
        return EXIT_INTERRUPTED
    except OSError:
        if not reader_has_gone():
            raise
        if {"-h", "--help"} & set(arguments):
            return EXIT_OK
        tell("robot-rl: stopped, because what read its output has ended", sys.stderr)
        return EXIT_FAILED


def _dispatch(arguments: list[str], json_path: Path | None) -> int:
    verbs = load_verbs()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _show(_overview(verbs))
        return EXIT_OK if arguments else EXIT_USAGE
    if arguments[0] == "--version":
        _show(f"robot-rl {__version__}")
        return EXIT_OK
    name, *rest = arguments
    if name not in verbs:
        print(f"robot-rl: unknown verb {name!r}; valid: {', '.join(verbs)}", file=sys.stderr)
        return EXIT_USAGE
    try:
        verb: Verb = verbs[name].load()
        # tyro exits with 0 after --help and with 2 on a wrong flag, having said what is valid.
        parse = verb.parse or (lambda args: tyro.cli(verb.arguments, prog=f"robot-rl {name}", args=args))
        parsed = parse(rest)
        result, code = verb.run(parsed), None
    except MissingDependencyError as error:
        result, code = Result(ok=False, reason=str(error)), EXIT_MISSING
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        reason = f"'{error.name}' is not installed; pip install 'robot-rl[{extra}]'"
        result, code = Result(ok=False, reason=reason), EXIT_MISSING
    except ConfigError as error:
        result, code = Result(ok=False, reason=str(error)), EXIT_USAGE
    except RobotRLError as error:
        result, code = Result(ok=False, reason=str(error)), EXIT_FAILED
    unwritten = "" if json_path is None else _write(result, json_path)
    if result.rows and not result.quiet:
        _show(result.table())
    if not result.ok:
        tell(f"robot-rl {name}: {result.reason}", sys.stderr)
    if unwritten:
        tell(f"robot-rl {name}: {unwritten}", sys.stderr)
    if code is not None:
        return code
    return EXIT_OK if result.ok and not unwritten else EXIT_FAILED


def _write(result: Result, path: Path) -> str:
    """Write the result, before anything is printed that may end this; why it could not be, or nothing."""
    try:
        result.write(path)
    except OSError as error:
        return f"--json {path} was not written: {error.strerror}"
    return ""


def _show(text: str) -> None:
    """Print a result. Who reads no further, as `head` and a pager do, has seen enough: that is no failure. Nor is a
    terminal that was lost."""
    try:
        print(text, flush=True)
    except OSError:
        if not reader_has_gone():
            raise


def _take_json(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Split off `--json FILE` or `--json=FILE`, which every verb accepts."""
    rest: list[str] = []
    path: Path | None = None
    items = iter(arguments)
    for item in items:
        if item == "--json":
            value = next(items, None)
            if value is None:
                print("robot-rl: --json needs a file name", file=sys.stderr)
                raise SystemExit(EXIT_USAGE)
            path = Path(value)
        elif item.startswith("--json="):
            path = Path(item.removeprefix("--json="))
        else:
            rest.append(item)
    return rest, path


def _overview(verbs: dict[str, EntryPoint]) -> str:
    lines = [
        "robot-rl: train, prove and run robot policies.",
        "",
        "usage: robot-rl VERB [flags]",
        "",
        "verbs:",
    ]
    width = max((len(n) for n in verbs), default=0)
    for name, entry in verbs.items():
        try:
            verb: Verb = entry.load()
            summary = (verb.arguments.__doc__ or "").strip().splitlines()[0]
        except ModuleNotFoundError as error:  # a part that is listed and not installed must not cost the others
            summary = f"(not available: {error})"
        lines.append(f"  {name:<{width}}  {summary}")
    lines += [
        "",
        "Every verb takes --help, and --json FILE to write its result for scripts.",
        "Exit codes: 0 success, 1 failed, 2 wrong usage, 3 an optional part is not installed, 130 interrupted.",
    ]
    return "\n".join(lines)


def console() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup's choice stays
            signal.signal(number, _leave)
    raise SystemExit(main())


def _leave(number: int, _frame: FrameType | None) -> None:
    """End in order, so that no process which a verb has started outlives it; once, for a lost terminal sends two."""
    for other in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    console()
