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
    from robot_rl.parity.diagnose import Diagnosis


@dataclass(frozen=True)
class ParityArgs:
    """Compare a robot's log with the simulator's expectation, and name what is wrong: order, sign, scale, unit, ...

    Exit code 1 if anything is. What does not move cannot be judged: let the robot stand up and run its policy for some
    seconds; rock a hanging humanoid about all axes first, not facing along the world's x. Record with --loop-rate-hz of
    100 or more: slower than its servos settle, joint_vel cannot be held against joint_pos.
    """

    bundle: Annotated[Path, tyro.conf.Positional]
    """Folder or zip that the robot ran."""
    log: Annotated[Path, tyro.conf.Positional]
    """MCAP file of `deploy` or of the ROS node."""
    start: float | None = None
    """Leave out what is earlier, s since the first tick."""
    end: float | None = None
    """Leave out what is later."""


def run(args: ParityArgs) -> Result:
    from robot_rl.bundle.load import load_bundle
    from robot_rl.commands.replay import open_log
    from robot_rl.parity.diagnose import diagnose
    from robot_rl.parity.flight import from_log
    from robot_rl.parity.text import describe, names
    from robot_rl_sim.parity.expectation import errors, expect

    bundle = load_bundle(args.bundle)
    flight = from_log(open_log(args.log, args.start, args.end))
    if flight.contract.digest() != bundle.manifest.contract_digest:
        raise ConfigError(f"{args.log} was recorded with another contract than that of {args.bundle}")
    joints = flight.joint_names
    rows = []
    for signal, error in errors(flight, expect(flight)).items():
        channels = ("x", "y", "z") if len(error) == 3 else joints
        rows += [Row(f"simulated/{signal}/{c}", float(e), "rms") for c, e in zip(channels, error, strict=True)]
    diagnosis = diagnose(flight)
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
        "log": str(args.log),
        "measurements": len(flight.stamp_s),
        "duration_s": float(flight.stamp_s[-1] - flight.stamp_s[0]),
    }
    return Result(ok=diagnosis.ok, rows=tuple(rows), reason=" ".join(found), details=details)


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
