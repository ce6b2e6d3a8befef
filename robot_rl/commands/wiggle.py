"""`robot-rl wiggle`: which joint moves, and which way, when each is told to."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from robot_rl.commands import drivers
from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl.robots import RobotSpec
    from robot_rl.robots.unit import UnitConfig
    from robot_rl.runtime.wiggle import Ask, Finding


@dataclass(frozen=True)
class WiggleArgs:
    """Check the order and signs of a robot's joints: move each a little at low gain, and see which one answers.

    The robot must hang or lie free, with room to move. Ctrl-C damps and ends; so does anything unexpected.
    """

    unit: Path | None = None
    """Unit file of the robot: its driver and wiring."""
    interface: str | None = None
    """Driver to connect with. Default: the unit's, without a unit `mock`."""
    robot: str | None = None
    """Robot. Default: the unit's."""
    joints: tuple[str, ...] = ()
    """Joints to try. Default: all."""
    amplitude: float = 0.15
    """How far, rad."""
    stiffness: float = 0.3
    """Share of each joint's own gain."""
    ask: bool = False
    """Ask after each joint what was seen. Needed where commands and readings go through the same wiring, as on a bus of
    servos: a wrong wiring then agrees with itself."""
    log: Path | None = None
    """Write what was sent and measured, for `robot-rl parity`: a file that ends with .npz."""
    yes: bool = False
    """Do not ask before a real robot is moved."""


def run(args: WiggleArgs) -> Result:
    from robot_rl.parity.flight import FlightRecorder
    from robot_rl.parity.wiggle_log import SUFFIX, write_wiggle_log
    from robot_rl.runtime.interface import MonotonicClock
    from robot_rl.runtime.wiggle import LOG_RATE_HZ, WiggleAborted, WiggleConfig, wiggle

    if args.log is not None and args.log.suffix != SUFFIX:
        raise ConfigError(f"--log must end with {SUFFIX}, got {args.log}")
    unit = drivers.read_unit(args.unit)
    interface = drivers.interface_of(args.interface, unit)
    robot_name = args.robot or (unit.robot if unit else None)
    if robot_name is None:
        raise ConfigError("name the robot: --unit FILE or --robot NAME")
    spec, _ = drivers.spec_of(robot_name, unit)
    config = WiggleConfig(amplitude_rad=args.amplitude, stiffness=args.stiffness)
    if args.log is not None:
        config = replace(config, rate_hz=LOG_RATE_HZ)
    if interface not in drivers.SIMULATED and not args.yes:
        _confirm(spec)
    findings: list[Finding] = []
    recorder = FlightRecorder()

    def note(finding: Finding) -> None:
        findings.append(finding)
        answers = " ".join(f"{name} {share:+.2f}" for name, share in finding.answers)
        print(f"{finding.joint:<12} {finding.verdict:<36} {answers}".rstrip(), flush=True)

    reason = ""
    robot = drivers.connect(interface, spec, unit)
    try:
        ask = _ask(spec, config.amplitude_rad) if args.ask else None
        wiggle(robot, MonotonicClock(), config, args.joints, on_finding=note, on_step=recorder.take, ask=ask)
    except WiggleAborted as error:
        reason = f"aborted and damped: {error}"
    if args.log is not None:
        write_wiggle_log(args.log, spec, recorder)
    wrong = [finding for finding in findings if not finding.ok]
    lines = unit_lines(findings, spec, unit) if unit is not None and wrong and not reason else []
    if lines:
        print("\nlines for the unit file:\n\njoints:\n" + "\n".join(f"  {line}" for line in lines) + "\n")
    if wrong and not reason:
        reason = (
            f"{len(wrong)} of {len(findings)} joints are not what they are called: {', '.join(f.joint for f in wrong)}"
        )
    rows = tuple(Row(finding.joint, finding.verdict) for finding in findings)
    details = {
        "unit_lines": lines,
        "findings": [{"joint": f.joint, "answers": f.answers, "ok": f.ok} for f in findings],
    }
    return Result(ok=not reason, rows=rows, reason=reason, details=details, quiet=True)


def unit_lines(findings: list[Finding], spec: RobotSpec, unit: UnitConfig) -> list[str]:
    """Lines for the unit's joints: a motor belongs to the joint that it moved, and its zero stays with it.

    Empty if the unit has no wiring, or unless the joints that were tried moved each other, every one once.
    """
    tried, moved = [f.joint for f in findings], [f.moved for f in findings]
    if not unit.joints or sorted(m for m in moved if m) != sorted(tried):
        return []
    wiring = dict(zip(spec.joint_names, unit.joints, strict=True))
    found = {f.moved: (wiring[f.joint], f.sign) for f in findings}
    return [
        f"{name}: {{id: {motor.id}, sign: {sign * motor.sign}, zero_offset_rad: {motor.zero_offset_rad!r}}}"
        for name, (motor, sign) in ((name, found[name]) for name in spec.joint_names if name in found)
    ]


def _confirm(spec: RobotSpec) -> None:
    print(f"{spec.name} will move. Is it free on all sides, and can you cut its power? Type yes.", flush=True)
    if sys.stdin.readline().strip() != "yes":
        raise ConfigError("not confirmed: nothing was moved (--yes moves without asking)")


def _ask(spec: RobotSpec, amplitude_rad: float) -> Ask:
    from robot_rl.robots.tip_motion import tip_motion_m
    from robot_rl.runtime.wiggle import Finding

    def ask(finding: Finding, direction: int) -> Finding | None:
        tip = tip_motion_m(spec, finding.joint, direction * amplitude_rad)
        moves = ""
        if tip is not None:
            x, y, z = (round(1e3 * float(v)) for v in tip[1])
            moves = f", which takes {tip[0]} by ({x}, {y}, {z}) mm in the frame of {spec.root_body}"
        print(f"\n{finding.joint} was told to go {direction:+d}{moves}, and back.")
        while True:
            print("Enter if it did; else the joint that moved, with - before it if it went the other way:", flush=True)
            word = sys.stdin.readline()
            if not word:
                return None
            name = word.strip().lstrip("-") or finding.joint
            if name in spec.joint_names:
                return Finding(finding.joint, ((name, -1.0 if word.startswith("-") else 1.0),))
            print(f"unknown joint {name!r}; valid: {', '.join(spec.joint_names)}")

    return ask


VERB = Verb(WiggleArgs, run)
