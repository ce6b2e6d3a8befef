"""One robot: does the bundle fit it, does the unit's file, and can its port be opened?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from robot_rl.doctor.finding import Finding, missing, ok, warn
from robot_rl.doctor.machine import ROOT
from robot_rl.errors import RobotRLError

if TYPE_CHECKING:
    from robot_rl.robots import RobotSpec
    from robot_rl.robots.unit import UnitConfig

MAX_LATENCY_MS = 2
"""Of a USB serial adapter; its default of 16 ms is more than a tick."""


def check_robot(bundle: Path | None, unit: Path | None, robot: str | None, *, connect: bool = False) -> list[Finding]:
    """Findings about what is named; nothing where nothing is. `connect` opens the driver, which moves nothing."""
    if bundle is None and unit is None and robot is None:
        return []
    from robot_rl.commands import drivers

    findings, spec, known_unit = [], None, None
    try:
        known_unit = drivers.read_unit(unit)
    except RobotRLError as error:
        findings.append(missing("unit", str(error), "mend the file; hardware/units/leap-example.yaml shows its form"))
    contract_robot = ""
    if bundle is not None:
        finding, contract_robot = _bundle(bundle)
        findings.append(finding)
    name = robot or (known_unit.robot if known_unit else contract_robot)
    if name:
        try:
            spec, changes = drivers.spec_of(name, known_unit)
            findings.append(ok("robot", f"{spec.name}/{spec.variant}{'; ' if changes else ''}{'; '.join(changes)}"))
        except RobotRLError as error:
            findings.append(missing("robot", str(error), "name the robot that this unit and this bundle are for"))
    if bundle is not None and spec is not None:
        findings.append(_fit(bundle, spec))
    if known_unit is not None:
        findings += _driver(known_unit)
    if connect and spec is not None:
        findings.append(_connected(spec, known_unit))
    return findings


def _bundle(path: Path) -> tuple[Finding, str]:
    from robot_rl.bundle.verify import verify_bundle

    try:
        report = verify_bundle(path)
        report.require_ok()
    except RobotRLError as error:
        return missing("bundle", str(error), "export it again, or copy it again"), ""
    contract = report.bundle.contract
    return ok("bundle", f"for {contract.robot}/{contract.variant}, {report.rows} golden rows agree"), contract.robot


def _fit(path: Path, spec: RobotSpec) -> Finding:
    """The bundle's robot and variant, joints, limits and gains against those of the robot at hand."""
    from robot_rl.bundle.load import load_bundle
    from robot_rl.robots import check_contract

    try:
        check_contract(load_bundle(path).contract, spec)
    except RobotRLError as error:
        return missing("variant", str(error), "use a bundle that was trained for this robot, in this variant")
    return ok("variant", f"the bundle fits {spec.name}/{spec.variant}")


def _driver(unit: UnitConfig, root: Path = ROOT) -> list[Finding]:
    from robot_rl.commands import drivers

    names = drivers.driver_names()
    if unit.driver not in names:
        return [
            missing("driver", f"{unit.driver!r} is not installed", f"install it, or name one of {', '.join(names)}")
        ]
    port = unit.options.get("port")
    return [ok("driver", unit.driver), *(check_port(port, root) if isinstance(port, str) else [])]


def check_port(port: str, root: Path = ROOT) -> list[Finding]:
    """A serial port: present, ours to open, and quick."""
    device = root / port.lstrip("/")
    if not device.exists():
        return [
            missing(
                "port", f"{port} does not exist", "plug the robot in, switch it on, or mend `port` in the unit file"
            )
        ]
    if not os.access(device, os.R_OK | os.W_OK):
        return [missing("port", f"{port} may not be opened", "usermod -aG dialout <user>, and log in again")]
    timer = root / "sys/bus/usb-serial/devices" / device.resolve().name / "latency_timer"
    if timer.exists() and int(timer.read_text()) > MAX_LATENCY_MS:
        fix = f"echo 1 > /{timer.relative_to(root)}, and for good in a udev rule: ATTR{{latency_timer}}=1"
        return [warn("port", f"{port} waits {timer.read_text().strip()} ms before it passes on what came", fix)]
    return [ok("port", port)]


def _connected(spec: RobotSpec, unit: UnitConfig | None) -> Finding:
    import time

    from robot_rl.commands import drivers

    try:
        with drivers.connect(drivers.interface_of(None, unit), spec, unit) as robot:  # type: ignore[attr-defined]
            deadline = time.monotonic() + 2.0
            while (state := robot.read()) is None and time.monotonic() < deadline:
                time.sleep(0.01)
            found = robot.spec
    except (RobotRLError, OSError) as error:
        return missing("connection", str(error), "see the driver's own advice; power, cable, port")
    if state is None:
        return missing("connection", "no state within 2 s", "switch the robot on; check cables and baud rate")
    if (found.name, found.variant) != (spec.name, spec.variant):
        fix = "use the unit file of this robot"
        return missing("connection", f"{found.name}/{found.variant} answered, not {spec.name}/{spec.variant}", fix)
    return ok("connection", f"{found.name}/{found.variant} answered with {state.joint_pos.shape[-1]} joints")
