"""A compiled MuJoCo model as Isaac Gym takes it: one plain MJCF per actor, and filters for what must not collide."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from xml.etree import ElementTree

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl.errors import ConfigError

_SHAPES = {
    int(mujoco.mjtGeom.mjGEOM_SPHERE): "sphere",
    int(mujoco.mjtGeom.mjGEOM_CAPSULE): "capsule",
    int(mujoco.mjtGeom.mjGEOM_CYLINDER): "cylinder",
    int(mujoco.mjtGeom.mjGEOM_BOX): "box",
}
_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)
_FREE = int(mujoco.mjtJoint.mjJNT_FREE)
_JOINTS = {int(mujoco.mjtJoint.mjJNT_HINGE): "hinge", int(mujoco.mjtJoint.mjJNT_SLIDE): "slide"}
MAX_FILTER_BITS = 31


@dataclass(frozen=True, slots=True)
class Actor:
    """A tree of bodies that hangs from the world: the robot, an object, or something that stands still."""

    name: str
    root: int
    """Body id of its topmost body."""
    bodies: tuple[int, ...]
    """Body ids, parents first."""
    free: bool
    mjcf: str


def split(model: mujoco.MjModel) -> list[Actor]:
    """The actors of a model, and what it has that Isaac Gym cannot do as a ConfigError."""
    _check(model)
    roots = [b for b in range(1, model.nbody) if int(model.body_parentid[b]) == 0]
    if shapes_of(model, 0):
        roots.append(0)
    actors = []
    for root in roots:
        bodies = (0,) if root == 0 else tuple(b for b in range(1, model.nbody) if int(model.body_rootid[b]) == root)
        free = [int(model.jnt_type[j]) for j in joints_of(model, root)] == [_FREE]
        actors.append(Actor(body_name(model, root), root, bodies, free, _mjcf(model, root)))
    return actors


def body_name(model: mujoco.MjModel, body: int) -> str:
    """Its name, or one made up from its number, as a body may go without."""
    return model.body(body).name or f"body{body}"


def colliding_geoms(model: mujoco.MjModel, body: int) -> list[int]:
    """Geoms of a body that take part in contacts, in the order in which they are written."""
    first = int(model.body_geomadr[body])
    geoms = range(first, first + int(model.body_geomnum[body]))
    return [g for g in geoms if int(model.geom_contype[g]) or int(model.geom_conaffinity[g])]


def shapes_of(model: mujoco.MjModel, body: int) -> list[int]:
    """Geoms of a body that its actor has: those that collide, but for the floor."""
    return [g for g in colliding_geoms(model, body) if int(model.geom_type[g]) != _PLANE]


def joints_of(model: mujoco.MjModel, body: int) -> range:
    """Joint ids of a body."""
    first = int(model.body_jntadr[body])
    return range(first, first + int(model.body_jntnum[body]))


def ground(model: mujoco.MjModel) -> float | None:
    """Friction of the ground, if the model has any."""
    planes = [g for g in range(model.ngeom) if int(model.geom_type[g]) == _PLANE and g in colliding_geoms(model, 0)]
    return float(model.geom_friction[planes[0], 0]) if planes else None


def collision_filters(model: mujoco.MjModel) -> NDArray[np.int64]:
    """Bits (ngeom,): in Isaac Gym two shapes collide unless they share one.

    Every bit belongs to shapes of which no two collide; together the bits cover all such pairs.
    """
    geoms = [g for body in range(model.nbody) for g in shapes_of(model, body)]
    apart = {(a, b) for a in geoms for b in geoms if a != b and not _collide(model, a, b)}
    bits = np.zeros(model.ngeom, np.int64)
    bit = 0
    for a, b in sorted(apart):
        if bits[a] & bits[b]:
            continue
        if bit == MAX_FILTER_BITS:
            raise ConfigError(f"Isaac Gym's {MAX_FILTER_BITS} filter bits do not suffice to say which geoms collide")
        group = [a, b]
        for g in geoms:
            if all((g, other) in apart for other in group):
                group.append(g)
        bits[group] |= 1 << bit
        bit += 1
    return bits


def principal_to_body(model: mujoco.MjModel) -> NDArray[np.float64]:
    """Rotations (nbody, 3, 3) from each body's principal axes of inertia to its own frame."""
    matrix = np.zeros((model.nbody, 9))
    for body in range(model.nbody):
        mujoco.mju_quat2Mat(matrix[body], model.body_iquat[body])
    return matrix.reshape(-1, 3, 3)


def _collide(model: mujoco.MjModel, a: int, b: int) -> bool:
    """MuJoCo's rules, but for explicit contact pairs, which are left out: nothing that touches a link can be kept from
    touching the ground."""
    body_a, body_b = int(model.geom_bodyid[a]), int(model.geom_bodyid[b])
    low, high = sorted((body_a, body_b))
    weld_a, weld_b = int(model.body_weldid[body_a]), int(model.body_weldid[body_b])
    parent_a, parent_b = (int(model.body_weldid[model.body_parentid[w]]) for w in (weld_a, weld_b))
    match = (int(model.geom_contype[a]) & int(model.geom_conaffinity[b])) or (
        int(model.geom_contype[b]) & int(model.geom_conaffinity[a])
    )
    related = weld_a == weld_b or (weld_a and weld_b and (weld_a == parent_b or weld_b == parent_a))
    return bool(match) and not related and (low << 16) + high not in model.exclude_signature


def _check(model: mujoco.MjModel) -> None:
    problems = [f"{n} {what}" for what, n in (
        ("equality constraints", model.neq), ("tendons", model.ntendon), ("mocap bodies", model.nmocap),
    ) if n]  # fmt: skip
    for joint in range(model.njnt):
        kind, body = int(model.jnt_type[joint]), int(model.jnt_bodyid[joint])
        free = kind == _FREE and int(model.body_parentid[body]) == 0
        plain = kind in _JOINTS and not np.any(model.jnt_pos[joint])
        if not (free or plain) or int(model.body_jntnum[body]) > 1:
            problems.append(f"joint {model.joint(joint).name!r}, which is not its body's only hinge or slide, at 0")
    for geom in range(model.ngeom):
        kind, body = int(model.geom_type[geom]), int(model.geom_bodyid[geom])
        if geom not in colliding_geoms(model, body) or kind in _SHAPES:
            continue
        level = np.allclose(model.geom_pos[geom, 2], 0) and np.allclose(model.geom_quat[geom], (1, 0, 0, 0))
        if not (kind == _PLANE and body == 0 and level):
            problems.append(f"geom {model.geom(geom).name!r}, which is no {', '.join(_SHAPES.values())} or floor at 0")
    if problems:
        raise ConfigError(f"the Isaac Gym backend cannot do: {'; '.join(problems)}; take backend 'mujoco' or 'warp'")
    if model.npair:
        warnings.warn(
            f"the Isaac Gym backend leaves out {model.npair} explicit contact pairs, such as those that keep a robot's "
            "links apart",
            stacklevel=2,
        )


def _mjcf(model: mujoco.MjModel, root: int) -> str:
    """Every number is written out: no defaults, classes or includes for an importer to overlook."""
    top = ElementTree.Element("mujoco", model=body_name(model, root))
    ElementTree.SubElement(top, "compiler", angle="radian", inertiafromgeom="false")
    world = ElementTree.SubElement(top, "worldbody")
    if [int(model.jnt_type[j]) for j in joints_of(model, root)] in ([], [_FREE]):
        elements = {root: _body(world, model, root, at_origin=True)}
    else:  # what stands still is then the body that its joint holds on to
        base = ElementTree.SubElement(world, "body", name=f"base_of_{body_name(model, root)}")
        ElementTree.SubElement(base, "inertial", pos="0 0 0", mass="1", diaginertia="1 1 1")
        elements = {root: _body(base, model, root, at_origin=True)}
    if root:
        for body in range(root + 1, model.nbody):
            parent = elements.get(int(model.body_parentid[body]))
            if parent is not None:
                elements[body] = _body(parent, model, body, at_origin=False)
    return ElementTree.tostring(top, encoding="unicode")


def _body(parent: ElementTree.Element, model: mujoco.MjModel, body: int, at_origin: bool) -> ElementTree.Element:
    """One body with its joint, inertia and colliding geoms. The topmost is placed as an actor, and not in its file."""
    pos, quat = ((0, 0, 0), (1, 0, 0, 0)) if at_origin else (model.body_pos[body], model.body_quat[body])
    element = ElementTree.SubElement(parent, "body", name=body_name(model, body), pos=_text(pos), quat=_text(quat))
    inertia = (model.body_ipos[body], model.body_iquat[body], model.body_mass[body], model.body_inertia[body])
    if not model.body_mass[body]:  # the world, or a frame without substance: it needs some, and stands still
        inertia = ((0, 0, 0), (1, 0, 0, 0), 1.0, (1, 1, 1))
    names = ("pos", "quat", "mass", "diaginertia")
    ElementTree.SubElement(element, "inertial", {n: _text(v) for n, v in zip(names, inertia, strict=True)})
    for joint in joints_of(model, body):
        name = model.joint(joint).name
        if int(model.jnt_type[joint]) == _FREE:
            ElementTree.SubElement(element, "freejoint", name=name or f"joint{joint}")
            continue
        kind, limited = _JOINTS[int(model.jnt_type[joint])], "true" if model.jnt_limited[joint] else "false"
        values = {"axis": _text(model.jnt_axis[joint]), "range": _text(model.jnt_range[joint])}
        ElementTree.SubElement(element, "joint", values, name=name, type=kind, limited=limited)
    for geom in shapes_of(model, body):
        kind = _SHAPES[int(model.geom_type[geom])]
        size = model.geom_size[geom][: {"sphere": 1, "box": 3}.get(kind, 2)]
        values = {"size": size, "pos": model.geom_pos[geom], "quat": model.geom_quat[geom]}
        values["friction"] = model.geom_friction[geom]
        name = model.geom(geom).name or f"geom{geom}"
        ElementTree.SubElement(element, "geom", {k: _text(v) for k, v in values.items()}, name=name, type=kind)
    return element


def _text(values: object) -> str:
    return " ".join(f"{v:.9g}" for v in np.atleast_1d(np.asarray(values, np.float64)))
