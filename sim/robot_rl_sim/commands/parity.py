"""`robot-rl parity`: does a robot do what the simulator expects, and if not, what is wrong with its driver?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl.bundle.load import Bundle
    from robot_rl.parity.diagnose import Diagnosis
    from robot_rl.parity.flight import Flight


@dataclass(frozen=True)
class ParityArgs:
    """Compare a robot's logs with the simulator's expectation, and name what is wrong: order, sign, scale, unit, ...

    Exit code 1 if anything is. What does not move cannot be judged: let the robot stand up and run its policy for some
    seconds; rock a hanging humanoid about all axes first, not facing along the world's x. Record with --loop-rate-hz of
    100 or more: slower than its servos settle, joint_vel cannot be held against joint_pos. A robot that does not get so
    far is helped by `robot-rl wiggle --log`: give that log as well, it is judged together with the others.
    """

    bundle: Annotated[Path, tyro.conf.Positional]
    """Folder or zip that the robot ran."""
    logs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """MCAP files of `deploy` or of the ROS node, .npz files of `wiggle --log`; of one robot, nothing mended between."""
    start: float | None = None
    """Leave out what is earlier, s since the first tick of each MCAP file."""
    end: float | None = None
    """Leave out what is later."""


def run(args: ParityArgs) -> Result:
    from robot_rl.bundle.load import load_bundle
    from robot_rl.parity.diagnose import diagnose
    from robot_rl.parity.text import describe, names
    from robot_rl_sim.parity.expectation import errors, expect

    if not args.logs:
        raise ConfigError("name at least one log")
    bundle = load_bundle(args.bundle)
    flights = [_flight(path, bundle, args) for path in args.logs]
    joints = bundle.contract.joint_names
    rows = []
    for path, flight in zip(args.logs, flights, strict=True):
        of = f"/{path.name}" if len(flights) > 1 else ""
        for signal, error in errors(flight, expect(flight)).items():
            channels = ("x", "y", "z") if len(error) == 3 else joints
            rows += [Row(f"simulated{of}/{signal}/{c}", float(e), "rms") for c, e in zip(channels, error, strict=True)]
    diagnosis = diagnose(*flights)
    still: list[str] = []
    for signal, comparison in diagnosis.comparisons.items():
        channels = names(signal, joints)
        for channel, error, residual in zip(channels, comparison.error, comparison.residual, strict=True):
            rows.append(
                Row(f"{signal}/{channel}", float(error), "rms", "once mended", float(error / max(residual, 1e-9)))
            )
        still += [f"{signal}/{c}" for c, ok in zip(channels, comparison.judged, strict=True) if not ok]
    found = [describe(cause, joints) for cause in diagnosis.causes]
    _print(diagnosis, found, still)
    details = {
        "causes": [{**vars(cause), "text": text} for cause, text in zip(diagnosis.causes, found, strict=True)],
        "not_judged": [*diagnosis.not_judged, *still],
        "bundle": str(args.bundle),
        "logs": [str(path) for path in args.logs],
        "measurements": sum(len(flight.stamp_s) for flight in flights),
        "duration_s": sum(float(flight.stamp_s[-1] - flight.stamp_s[0]) for flight in flights),
    }
    return Result(ok=diagnosis.ok, rows=tuple(rows), reason=" ".join(found), details=details)


def _flight(path: Path, bundle: Bundle, args: ParityArgs) -> Flight:
    from robot_rl.commands.replay import open_log
    from robot_rl.parity.flight import from_log
    from robot_rl.parity.wiggle_log import SUFFIX, read_wiggle_log

    if path.suffix == SUFFIX:
        return read_wiggle_log(path, bundle.contract)
    flight = from_log(open_log(path, args.start, args.end))
    if flight.contract.digest() != bundle.manifest.contract_digest:
        raise ConfigError(f"{path} was recorded with another contract than that of {args.bundle}")
    return flight


def _print(diagnosis: Diagnosis, found: list[str], still: list[str]) -> None:
    for text in found:
        print(text)
    if diagnosis.ok:
        print("the robot does what the simulator expects, as far as it was judged")
    for note in diagnosis.not_judged:
        print(f"not judged: {note}")
    if still:
        print(f"moved too little for a sign or scale to be seen: {', '.join(still)}")


VERB = Verb(ParityArgs, run)
