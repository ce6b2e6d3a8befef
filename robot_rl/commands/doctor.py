"""`robot-rl doctor`: what is installed, what this machine can do, is a robot ready; and how to mend what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.doctor.finding import Finding
from robot_rl.doctor.machine import (
    check_clock,
    check_cpu,
    check_disk,
    check_gpu,
    check_real_time,
    check_rendering,
    check_sleep,
)
from robot_rl.doctor.robot import check_robot
from robot_rl.doctor.ros import check_ros
from robot_rl.doctor.software import check_packages, check_python

CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_python,
    check_packages,
    check_ros,
    check_rendering,
    check_gpu,
    check_cpu,
    check_real_time,
    check_sleep,
    check_disk,
    check_clock,
)


@dataclass(frozen=True)
class DoctorArgs:
    """Check installation, machine and, where they are named, bundle and robot; every line that is not ok says how to
    mend it."""

    bundle: Path | None = None
    """Policy that shall run here: its golden rows, and whether it fits the robot in its variant."""
    unit: Path | None = None
    """Unit file of the robot: its thresholds, driver and port."""
    robot: str | None = None
    """Robot, where it is not the unit's or the bundle's."""
    connect: bool = False
    """Open the unit's driver and wait for a state. Nothing moves; the driver damps when it is closed."""


def run(args: DoctorArgs) -> Result:
    findings = [finding for check in CHECKS for finding in check()]
    findings += check_robot(args.bundle, args.unit, args.robot, connect=args.connect)
    missing = [f.name for f in findings if f.status == "missing"]
    return Result(
        ok=not missing,
        rows=tuple(Row(f.name, f.status, f"{f.found}; {f.fix}" if f.fix else f.found) for f in findings),
        reason=f"missing: {', '.join(missing)}" if missing else "",
        details={f.name: {"status": f.status, "found": f.found, "fix": f.fix} for f in findings},
    )


VERB = Verb(DoctorArgs, run)
