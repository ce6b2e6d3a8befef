"""URDF: what MuJoCo's reader leaves to us. Paths of meshes, speed limits, and a base that floats."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.etree.ElementTree import Element

import mujoco
import numpy as np

from robot_rl.errors import ConfigError
from robot_rl_sim.importing.findings import Findings
from robot_rl_sim.importing.reader import explain, require_file

_XACRO = "{http://www.ros.org/wiki/xacro}"
WORLD_LINK = "world"


def read_urdf(path: Path, floating: bool, findings: Findings) -> tuple[mujoco.MjSpec, dict[str, float]]:
    """The model, and the speed limits (rad/s, m/s) of the joints that have one. Raises ConfigError.

    `floating` puts the root link on a free joint; URDF itself has no word for that.
    """
    require_file(path)
    try:
        robot = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ConfigError(f"{path}: not well-formed XML: {error}") from error
    if robot.tag != "robot":
        raise ConfigError(f"{path}: the root of a URDF is <robot>, this file's is <{robot.tag}>; MJCF goes to --mjcf")
    if any(str(e.tag).startswith(_XACRO) for e in robot.iter()):
        raise ConfigError(f"{path}: this is xacro; `xacro FILE > robot.urdf` turns it into URDF")
    _check(robot, path)
    for mesh in robot.iter("mesh"):
        mesh.set("filename", str(_mesh_path(mesh.get("filename", ""), path)))
    if floating:
        _float(robot)
    _set_compiler(robot)
    text = ElementTree.tostring(robot, encoding="unicode")
    try:
        spec = mujoco.MjSpec.from_string(text)
    except ValueError as error:
        raise ConfigError(f"{path}: {explain(error)}") from error
    _mend_inertias(spec, findings)
    return spec, _speed_limits(robot, path)


def _check(robot: Element, path: Path) -> None:
    """What MuJoCo's reader would take without a word, or name without a place."""
    links = [link.get("name", "") for link in robot.findall("link")]
    joints = robot.findall("joint")
    for what, names in (("link", links), ("joint", [j.get("name", "") for j in joints])):
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise ConfigError(f"{path}: {what} names must be unique; repeated: {', '.join(repeated)}")
    for joint in joints:
        for end in ("parent", "child"):
            element = joint.find(end)
            link = None if element is None else element.get("link")
            if link not in links:
                raise ConfigError(f"{path}: joint {joint.get('name')!r} has {end} link {link!r}, which is not defined")
        mimicked = joint.find("mimic")
        if mimicked is not None and mimicked.get("joint") not in {j.get("name") for j in joints}:
            raise ConfigError(
                f"{path}: joint {joint.get('name')!r} mimics {mimicked.get('joint')!r}, which is not defined"
            )
    roots = set(links) - {c.get("link") for c in robot.iter("child")}
    if len(roots) != 1:
        raise ConfigError(f"{path}: a URDF is one tree, with one root link; this one has {sorted(roots) or 'a loop'}")


def _mesh_path(name: str, urdf: Path) -> Path:
    """Where the mesh of this name or URI lies; where it should, if nowhere."""
    folder = urdf.resolve().parent
    if name.startswith("file://"):
        return Path(name.removeprefix("file://"))
    relative = name.split("://", 1)[-1]
    inside = relative.partition("/")[2] or relative
    # A package's URDF lies at any depth below its root, which has the package's name in an unmoved checkout only.
    candidates = [folder / relative]
    for up in (folder, *folder.parents):
        candidates += [up / relative, up / inside]
    return next((c for c in candidates if c.is_file()), folder / relative)


def _float(robot: Element) -> None:
    roots = {link.get("name") for link in robot.findall("link")} - {c.get("link") for c in robot.iter("child")}
    (root,) = roots
    if root == WORLD_LINK:
        raise ConfigError(f"--floating: this robot is fixed to link {WORLD_LINK!r} by its own file; remove that joint")
    ElementTree.SubElement(robot, "link", name=WORLD_LINK)
    joint = ElementTree.SubElement(robot, "joint", name="floating_base", type="floating")
    ElementTree.SubElement(joint, "parent", link=WORLD_LINK)
    ElementTree.SubElement(joint, "child", link=str(root))


def _set_compiler(robot: Element) -> None:
    """Full paths are to be taken as they are, and what is only seen is kept to be seen."""
    extension = robot.find("mujoco")
    extension = ElementTree.SubElement(robot, "mujoco") if extension is None else extension
    compiler = extension.find("compiler")
    compiler = ElementTree.SubElement(extension, "compiler") if compiler is None else compiler
    compiler.attrib.pop("meshdir", None)
    compiler.set("strippath", "false")
    compiler.set("discardvisual", "false")


def _mend_inertias(spec: mujoco.MjSpec, findings: Findings) -> None:
    """Exporters of CAD programs round inertias so that no real body could have them; MuJoCo refuses those."""
    names = []
    for body in spec.bodies:
        full = body.fullinertia
        if body.explicitinertial and not np.isnan(full[0]):
            a, b, c = sorted(_principal_moments(full))
            if a + b < c:
                names.append(body.name)
    if names:
        spec.compiler.balanceinertia = True
        findings.add("inertia of no real body (A + B < C), replaced by its mean in all axes", *names)


def _principal_moments(full: tuple[float, ...]) -> tuple[float, float, float]:
    xx, yy, zz, xy, xz, yz = full
    moments = np.linalg.eigvalsh(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))
    return float(moments[0]), float(moments[1]), float(moments[2])


def _speed_limits(robot: Element, path: Path) -> dict[str, float]:
    limits = {}
    for joint in robot.findall("joint"):
        limit = joint.find("limit")
        given = None if limit is None else limit.get("velocity")
        try:
            speed = float(given) if given else 0.0
        except ValueError as error:
            raise ConfigError(
                f"{path}: joint {joint.get('name')!r} has velocity limit {given!r}, not a number"
            ) from error
        if speed > 0:
            limits[joint.get("name", "")] = speed
    return limits
