"""`robot-rl robot`: robots from files that the project has never seen."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl.robots import RobotSpec
    from robot_rl_sim.importing.checks import JointRow

_DEFAULT_GAINS = "Default: the gains of the file's position actuators; without them, derived."


@dataclass(frozen=True)
class RobotArgs:
    """Robots: `add` one from an MJCF or URDF file, `list` all, `show` one.

    An added robot is a folder with its RobotSpec (robot.json), scene and meshes in ./robots, or in $ROBOT_RL_ROBOTS.
    Task track-pose:NAME trains on it at once; evaluate, export, verify and deploy know it by name.

    Where the file has no gains: kp = I w² and kd = 2 ζ I w, with I the largest inertia that the joint turns over many
    poses, rotor included, w = 2π --natural-frequency and ζ = --damping-ratio; kp is raised where gravity would bend the
    joint by more than 2 % of its range. Whatever is assumed, missing or suspicious is printed, and kept in robot.json.

    Flags by joint take one number for all, or PATTERN=NUMBER (* matches anything), several in a row; later ones win:
    --effort-limit 20 '*knee*=60'.
    """


@dataclass(frozen=True)
class AddArgs:
    """Make a robot from a file: joint order, limits, gains, home pose, and a list of what is missing or suspicious."""

    mjcf: Path | None = None
    """MuJoCo XML, a robot alone or in a scene."""
    urdf: Path | None = None
    """URDF (no xacro)."""
    name: str | None = None
    """Default: the file's name."""
    into: Path | None = None
    """Folder of robots. Default: $ROBOT_RL_ROBOTS, or ./robots."""
    kp: tuple[str, ...] = ()
    """Stiffness, N m/rad (N/m of a slide)."""
    kd: tuple[str, ...] = ()
    """Damping, N m s/rad."""
    natural_frequency: float | None = None
    """Hz; derives the stiffness of every joint, whatever the file says. Where it says nothing, 5."""
    damping_ratio: float | None = None
    """Derives the damping of every joint, whatever the file says. Where it says nothing, 1."""
    armature: tuple[str, ...] = ()
    """Rotor inertia times gear ratio squared, kg m²."""
    effort_limit: tuple[str, ...] = ()
    """Torque limit, N m."""
    velocity_limit: tuple[str, ...] = ()
    """Speed limit, rad/s."""
    floating: bool = False
    """Put a URDF's root link on a free joint: a humanoid, a quadruped."""
    skip_missing_meshes: bool = False
    """Go on without meshes that are not there: they are neither seen nor touched."""
    overwrite: bool = False
    """Replace a robot of that name."""


@dataclass(frozen=True)
class ListArgs:
    """Names of all robots, built in and added."""


@dataclass(frozen=True)
class ShowArgs:
    """The table of one robot's joints, and what its import had to assume."""

    name: Annotated[str, tyro.conf.Positional]
    """Robot (see `robot-rl robot list`)."""


def parse(arguments: Sequence[str]) -> AddArgs | ListArgs | ShowArgs:
    return tyro.extras.subcommand_cli_from_dict(
        {"add": AddArgs, "list": ListArgs, "show": ShowArgs},
        prog="robot-rl robot",
        description=inspect.getdoc(RobotArgs),
        args=list(arguments),
    )


def run(args: AddArgs | ListArgs | ShowArgs) -> Result:
    if isinstance(args, AddArgs):
        return _add(args)
    return _show(args.name) if isinstance(args, ShowArgs) else _list()


def _add(args: AddArgs) -> Result:
    from robot_rl.robots.files import FOLDER_VARIABLE, robots_folder
    from robot_rl_sim.importing.add import add_robot
    from robot_rl_sim.importing.robot import Choices

    if (args.mjcf is None) == (args.urdf is None):
        raise ConfigError("give the file as --mjcf FILE or --urdf FILE")
    file = args.mjcf or args.urdf
    assert file is not None
    if args.urdf is not None and file.suffix.lower() != ".urdf":
        raise ConfigError(f"--urdf {file}: the name of a URDF ends in .urdf; MJCF goes to --mjcf")
    choices = Choices(
        args.kp, args.kd, args.armature, args.effort_limit, args.velocity_limit,
        args.natural_frequency, args.damping_ratio,
    )  # fmt: skip
    into = args.into or robots_folder()
    added = add_robot(
        file, into, args.name, choices,
        floating=args.floating, skip_missing_meshes=args.skip_missing_meshes, overwrite=args.overwrite,
    )  # fmt: skip
    _print(added.robot, added.rows, added.findings)
    name = added.robot.name
    rows = [
        Row("robot/name", name),
        Row("robot/folder", str(added.folder)),
        Row("robot/joints", len(added.robot.joints)),
        Row("robot/base", "floating" if added.robot.floating_base else "fixed"),
        Row("robot/mass", added.mass_kg, "kg"),
        Row("robot/findings", len(added.findings)),
        Row("robot/next", f"robot-rl train --task track-pose:{name}"),
    ]
    if into.resolve() != robots_folder().resolve():
        rows.append(Row("robot/first", f"export {FOLDER_VARIABLE}={into}"))
    details = {"robot": asdict(added.robot), "joints": [asdict(r) for r in added.rows], "findings": added.findings}
    return Result(ok=True, rows=tuple(rows), details=details)


def _list() -> Result:
    from robot_rl.robots import ROBOTS, get_robot, robot_names

    robots = [get_robot(name) for name in robot_names()]
    rows = [
        Row(f"robot/{r.name}", f"{len(r.joints)} joints{'' if r.name in ROBOTS else ', added'}")
        for r in robots
    ]  # fmt: skip
    return Result(ok=True, rows=tuple(rows))


def _show(name: str) -> Result:
    from robot_rl.robots import ROBOTS, get_robot
    from robot_rl.robots.files import added_robots, read_findings
    from robot_rl_sim.importing.checks import inspect_robot

    robot = get_robot(name)
    rows, remarks = inspect_robot(robot)
    kept = () if name in ROBOTS else read_findings(added_robots()[name])
    findings = (*kept, *(r for r in remarks if r not in kept))
    _print(robot, rows, findings)
    return Result(ok=True, details={"robot": asdict(robot), "joints": [asdict(r) for r in rows], "findings": findings})


def _print(robot: RobotSpec, rows: Sequence[JointRow], findings: Sequence[str]) -> None:
    """The joints as they will behave, then the findings."""
    head = ("joint", "lower", "upper", "home", "speed", "effort", "kp", "kd", "inertia", "Hz", "ζ")
    units = ("", "rad", "rad", "rad", "rad/s", "N m", "N m/rad", "N m s/rad", "kg m²", "", "")
    cells = [head, units]
    for joint, row in zip(robot.joints, rows, strict=True):
        numbers = (
            joint.lower_rad, joint.upper_rad, joint.default_pos_rad, joint.velocity_limit_rad_s, joint.effort_limit_nm,
            joint.kp_nm_rad, joint.kd_nms_rad, row.inertia, row.frequency_hz, row.damping_ratio,
        )  # fmt: skip
        cells.append((joint.name, *(f"{n:.3g}" if abs(n) < 1e3 else f"{n:.0f}" for n in numbers)))
    widths = [max(len(c[i]) for c in cells) for i in range(len(head))]
    for name, *numbers in cells:
        print("  ".join([name.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True))]))
    print()
    for finding in findings:
        print(f"- {finding}")
    print()


VERB = Verb(arguments=RobotArgs, run=run, parse=parse)
