"""Shapes drawn into a scene to show what is asked of a robot. They take no part in physics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl_sim.mdp import Mdp

Vector = NDArray[np.float64]
Rgba = tuple[float, float, float, float]

_SHAPES = {
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "arrow": mujoco.mjtGeom.mjGEOM_ARROW,
}
GOAL_RGBA: Rgba = (0.16, 0.39, 0.78, 0.45)
_ASKED_RGBA: Rgba = (0.16, 0.39, 0.78, 0.9)
_ACTUAL_RGBA: Rgba = (0.95, 0.6, 0.1, 0.9)
_AXES_RGBA: tuple[Rgba, ...] = ((0.85, 0.2, 0.2, 1.0), (0.2, 0.65, 0.25, 1.0), (0.2, 0.35, 0.9, 1.0))
_GOAL_RADIUS_M = 0.015
_ARROW_M_PER_M_S = 0.5


@dataclass(frozen=True)
class Marker:
    """One shape, in the world frame."""

    shape: Literal["sphere", "capsule", "ellipsoid", "cylinder", "box", "arrow"]
    pos_w: Vector
    """(3,) m; of an arrow its foot, of the others the middle."""
    size: Vector
    """(3,) m, as MuJoCo's geoms have them; of an arrow (radius, radius, length)."""
    rgba: Rgba
    mat_w: Vector
    """(3, 3) rotation; an arrow points along its z."""


def sphere(pos_w: Vector, radius_m: float, rgba: Rgba) -> Marker:
    return Marker("sphere", pos_w, np.full(3, radius_m), rgba, np.eye(3))


def arrow(pos_w: Vector, along_w: Vector, radius_m: float, rgba: Rgba) -> Marker:
    """From `pos_w` (3,) m to `pos_w + along_w`."""
    length = float(np.linalg.norm(along_w))
    z = along_w / length if length > 0 else np.array([0.0, 0.0, 1.0])
    # Any two directions at right angles to it will do.
    x = np.cross(z, [0.0, 0.0, 1.0] if abs(z[2]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    return Marker("arrow", pos_w, np.array([radius_m, radius_m, length]), rgba, np.stack((x, np.cross(z, x), z), 1))


def draw(scene: mujoco.MjvScene, markers: Sequence[Marker]) -> None:
    """Append to a scene, as far as it has room."""
    for marker in markers[: scene.maxgeom - scene.ngeom]:
        # MuJoCo draws an arrow half as long as its size says.
        size = marker.size * [1.0, 1.0, 2.0] if marker.shape == "arrow" else marker.size
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            int(_SHAPES[marker.shape]),
            size,
            marker.pos_w,
            marker.mat_w.ravel(),
            np.array(marker.rgba, dtype=np.float32),
        )
        scene.ngeom += 1


def command_markers(mdp: Mdp, model: mujoco.MjModel, data: mujoco.MjData, command: Vector) -> list[Marker]:
    """What a command (command_dim,) asks for, as its contract describes it, at the state in `data`.

    Positions (m, in threes, in the root body's frame): spheres. A velocity (m/s forward, m/s left, perhaps rad/s): an
    arrow from its root body, with the actual velocity above it. An orientation of an object (in the root body's frame):
    its shape, turned so, floating above it, with the axes of both. Anything else: nothing.
    """
    spec = next((t for t in mdp.policy_io.contract.inputs if t.source == "command"), None)
    if spec is None:
        return []
    root = model.body(mdp.robot.root_body).id
    pos, mat = data.xpos[root], data.xmat[root].reshape(3, 3)
    if spec.unit == "m" and len(command) % 3 == 0:
        return [sphere(pos + mat @ point, _GOAL_RADIUS_M, GOAL_RGBA) for point in command.reshape(-1, 3)]
    if spec.unit.startswith("m/s") and len(command) >= 2:
        return _velocity(model, data, root, command)
    if "quat" in spec.name and len(command) == 4 and mdp.object_body is not None:
        turned = np.empty(9)
        mujoco.mju_quat2Mat(turned, np.asarray(command, np.float64) / np.linalg.norm(command))
        return _orientation(model, data, mdp.object_body, mat @ turned.reshape(3, 3))
    return []


def _velocity(model: mujoco.MjModel, data: mujoco.MjData, root: int, command: Vector) -> list[Marker]:
    mat = data.xmat[root].reshape(3, 3)
    heading = np.arctan2(mat[1, 0], mat[0, 0])
    forward, left = (np.array([np.cos(a), np.sin(a), 0.0]) for a in (heading, heading + np.pi / 2))
    hip = data.xpos[root].copy()
    asked = _ARROW_M_PER_M_S * (command[0] * forward + command[1] * left)
    twist = np.zeros(6)
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, root, twist, 0)
    actual = _ARROW_M_PER_M_S * twist[3:] * [1.0, 1.0, 0.0]
    markers = [
        arrow(hip, asked, 0.015, _ASKED_RGBA),
        arrow(hip + np.array([0.0, 0.0, 0.08]), actual, 0.015, _ACTUAL_RGBA),
    ]
    if len(command) >= 3:  # a turn is drawn as the sideways motion of a point ahead
        markers.append(arrow(hip + 0.3 * forward, 0.3 * command[2] * left, 0.01, _ASKED_RGBA))
    return [m for m in markers if m.size[2] > 0.01]


def _orientation(model: mujoco.MjModel, data: mujoco.MjData, body: str, goal_w: Vector) -> list[Marker]:
    body_id = model.body(body).id
    reach = max(float(model.geom_rbound[g]) for g in range(model.ngeom) if int(model.geom_bodyid[g]) == body_id)
    at, mat = data.xpos[body_id], data.xmat[body_id].reshape(3, 3)
    goal_at = at + np.array([0.0, 0.0, 1.9 * reach])
    names = {int(kind): name for name, kind in _SHAPES.items()}
    markers = [*_axes(at, mat, 1.3 * reach), *_axes(goal_at, goal_w, 1.3 * reach)]
    for g in range(model.ngeom):
        shape: Any = names.get(int(model.geom_type[g]))
        if int(model.geom_bodyid[g]) == body_id and shape is not None:
            local = np.empty(9)
            mujoco.mju_quat2Mat(local, model.geom_quat[g])
            red, green, blue = (float(c) for c in model.geom_rgba[g][:3])
            turned = goal_w @ local.reshape(3, 3)
            at_w, size = goal_at + goal_w @ model.geom_pos[g], model.geom_size[g].copy()
            markers.append(Marker(shape, at_w, size, (red, green, blue, 0.45), turned))
    return markers


def _axes(pos_w: Vector, mat_w: Vector, length_m: float) -> list[Marker]:
    """x red, y green, z blue, with a plain stub to the other side: from anywhere, three of the six are in sight."""
    markers = []
    for i, rgba in enumerate(_AXES_RGBA):
        along = length_m * mat_w[:, i]
        forth = arrow(pos_w, along, 0.06 * length_m, rgba)
        stub = np.array([0.03, 0.4, 0.4]) * length_m
        markers += [forth, Marker("cylinder", pos_w - 0.4 * along, stub, rgba, forth.mat_w)]
    return markers
