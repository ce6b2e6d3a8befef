"""From a model file to a robot in a folder: RobotSpec, scene, meshes, licences."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mujoco

from robot_rl.errors import ConfigError
from robot_rl.robots import ROBOTS, RobotSpec
from robot_rl.robots.files import ROBOT_FILE, check_name, robot_to_json
from robot_rl_sim.importing.assets import copy_assets, copy_licences, find_assets
from robot_rl_sim.importing.checks import JointRow, check_hold, check_joints, check_model, fitting_timestep, joint_rows
from robot_rl_sim.importing.drives import find_drives
from robot_rl_sim.importing.findings import Findings
from robot_rl_sim.importing.loads import Loads
from robot_rl_sim.importing.reader import compile_spec, name_parts, read_mjcf
from robot_rl_sim.importing.robot import Choices, Given, build_robot
from robot_rl_sim.importing.scene import dress, exclude_overlaps, keep_robot, lowest_reach, strip
from robot_rl_sim.importing.urdf import read_urdf
from robot_rl_sim.models import add_motors, default_qpos, hang

OVERLAP_M = 0.001
"""Bodies that overlap more than this at home are meant to: a pin in its bearing, the covers of a joint."""


@dataclass(frozen=True)
class Added:
    """A robot that was added, and what there is to say about it."""

    robot: RobotSpec
    folder: Path
    rows: list[JointRow]
    mass_kg: float
    findings: tuple[str, ...]


def add_robot(
    source: Path,
    into: Path,
    name: str | None = None,
    choices: Choices | None = None,
    *,
    floating: bool = False,
    skip_missing_meshes: bool = False,
    overwrite: bool = False,
) -> Added:
    """Write `into`/<name>/ from an MJCF file or a .urdf; nothing is written unless all went well.

    `floating` puts a URDF on a free joint. Raises ConfigError saying what to mend.
    """
    name = check_name(name or _default_name(source))
    if name in ROBOTS:
        raise ConfigError(f"{name!r} is a built-in robot; choose another --name")
    folder = into / name
    if folder.exists() and not overwrite:
        raise ConfigError(f"{folder} exists; --overwrite replaces it, --name makes another")
    into.mkdir(parents=True, exist_ok=True)
    # Beside its final place, so that moving it there is one step that cannot fail half way.
    with tempfile.TemporaryDirectory(dir=into, prefix=f".{name}-") as temporary:
        draft = Path(temporary) / name
        draft.mkdir()
        added = _write(draft, source, name, choices or Choices(), floating, skip_missing_meshes)
        if folder.exists():
            folder.rename(Path(temporary) / "replaced")
        draft.rename(folder)
    return Added(added.robot, folder, added.rows, added.mass_kg, added.findings)


def _write(folder: Path, source: Path, name: str, choices: Choices, floating: bool, skip_missing: bool) -> Added:
    findings = Findings()
    spec, velocity_limits = _read(source, floating, findings)
    name_parts(spec, findings)
    assets = find_assets(spec, source, skip_missing, findings)
    given = compile_spec(spec, source)
    drives = find_drives(given, findings)
    if not drives:
        raise ConfigError(f"{source}: no hinge or slide joint to drive, so there is nothing to learn")
    joints = tuple(given.joint(d.joint).name for d in drives)
    said = Given(joints, tuple(drives), _key_pose(given, joints, findings), velocity_limits)
    base = keep_robot(spec, given, joints, findings)
    strip(spec)
    dress(spec, given, base, lowest_reach(given), findings)
    licences = copy_licences(source, assets, folder)
    if not licences:
        findings.add("no licence file beside the model: find out what you may do with it")
    copy_assets(spec, assets, folder)
    scene = compile_spec(spec, source)
    text = f"{source.name}, sha256 {hashlib.sha256(source.read_bytes()).hexdigest()}"
    robot, loads = build_robot(name, text, scene, base, said, choices, findings)
    spec.modelname = name
    spec.option.timestep = fitting_timestep(robot, loads, findings)
    exclude_overlaps(spec, scene, default_qpos(scene, robot), OVERLAP_M, findings)
    (folder / f"{name}.xml").write_text(spec.to_xml())
    rows = _check(folder / f"{name}.xml", robot, loads, findings)
    (folder / ROBOT_FILE).write_text(robot_to_json(robot, findings.lines()))
    return Added(robot, folder, rows, base.mass_kg, findings.lines())


def _read(source: Path, floating: bool, findings: Findings) -> tuple[mujoco.MjSpec, dict[str, float]]:
    if source.suffix.lower() == ".urdf":
        return read_urdf(source, floating, findings)
    if floating:
        raise ConfigError("--floating is for URDF; in MJCF, put a <freejoint/> into the base")
    return read_mjcf(source), {}


def _check(scene: Path, robot: RobotSpec, loads: Loads, findings: Findings) -> list[JointRow]:
    """Of the scene as it was written, with motors: what later is loaded."""
    spec = read_mjcf(scene)
    add_motors(spec, robot)
    model = compile_spec(spec, scene)
    check_joints(model, robot, loads, findings)
    check_model(model, findings)
    hang(spec, model, robot)
    hung = spec.compile()
    check_hold(hung, robot, default_qpos(hung, robot), findings)
    return joint_rows(model, robot, loads)


def _key_pose(model: mujoco.MjModel, joints: tuple[str, ...], findings: Findings) -> dict[str, float]:
    """Joint -> position of the keyframe "home", else of the first; empty without keyframes."""
    if model.nkey == 0:
        findings.add("no keyframe: the home pose is zero where the limits leave room, else their middle")
        return {}
    names = [model.key(i).name for i in range(model.nkey)]
    key = names.index("home") if "home" in names else 0
    if names[key] != "home":
        findings.add(f"no keyframe home: the first one, {names[key]!r}, gives the home pose")
    return {name: float(model.key_qpos[key, model.joint(name).qposadr[0]]) for name in joints}


def _default_name(source: Path) -> str:
    """After the file, or its folder where every robot's file is called the same."""
    stem = source.stem if source.stem not in ("scene", "robot", "model", "main") else source.resolve().parent.name
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).lstrip("_-0123456789") or "robot"
