"""The capsules of a robot's CollisionModel, fitted around the geoms of its model: `python -m
robot_rl_sim.importing.capsules unitree_g1` prints the literal of robot_rl/robots/unitree_g1_capsules.py.

Which links have one, and who must stay clear of whom, is chosen by a person, in PARTS and PAIRS; the figures are the
model's. A capsule holds every geom of its link whole, drawn or colliding, and lies along the main axis of their points.
"""

from __future__ import annotations

import sys

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl.robots import RobotSpec, get_robot
from robot_rl.robots.collision import Capsule, CollisionModel, Placement
from robot_rl_sim.models import scene_path

Array = NDArray[np.float64]

DIGITS = 4
"""Of all figures, m: a tenth of a millimetre, by which radii are rounded up."""
_GRID = 24
"""Points along each angle of a round geom."""
_SHAPES = ("BOX", "CYLINDER", "CAPSULE", "SPHERE", "ELLIPSOID")


PARTS: dict[str, dict[str, str]] = {
    "unitree_g1": {"pelvis": "pelvis", "torso": "torso_link"}
    | {
        f"{side}_{name}": f"{side}_{body}"
        for side in ("left", "right")
        for name, body in (
            ("hip", "hip_roll_link"),
            ("thigh", "hip_yaw_link"),
            ("shank", "knee_link"),
            ("foot", "ankle_roll_link"),
            ("forearm", "elbow_link"),
            ("hand", "wrist_yaw_link"),
        )
    }
}
"""Robot -> capsule -> the body that it is around."""
_ARM = ("hand", "forearm")
PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "unitree_g1": (
        *((f"{side}_{arm}", body) for side in ("left", "right") for arm in _ARM for body in ("torso", "pelvis")),
        *(
            (f"{s}_{arm}", f"{leg}_{part}")
            for s in ("left", "right")
            for arm in _ARM
            for leg in ("left", "right")
            for part in ("hip", "thigh")
        ),
        *((f"left_{a}", f"right_{b}") for a in _ARM for b in _ARM),
        ("left_thigh", "right_thigh"),
        ("left_shank", "right_shank"),
        ("left_foot", "right_foot"),
        ("left_foot", "right_shank"),
        ("left_shank", "right_foot"),
    )
}


def collision_model(robot: RobotSpec, model: mujoco.MjModel) -> CollisionModel:
    """Of a robot in PARTS, and of its scene alone, which has no capsules yet. Raises KeyError for another one."""
    capsules = tuple(_fit(model, robot, name, model.body(body).id) for name, body in PARTS[robot.name].items())
    needed: set[str] = set()
    for capsule in capsules:
        joint = capsule.joint
        while joint:
            needed.add(joint)
            joint = _parent(model, robot, joint)
    tree = tuple(_place(model, robot, name) for name in robot.joint_names if name in needed)
    return CollisionModel(tree, capsules, PAIRS[robot.name])


def _body_of(model: mujoco.MjModel, joint: str) -> int:
    return int(model.joint(joint).bodyid[0])


def _joint_of(model: mujoco.MjModel, robot: RobotSpec, body: int) -> str:
    """The joint that moves a body against what is before it; empty for the root."""
    names = {_body_of(model, name): name for name in robot.joint_names}
    return names.get(body, "")


def _parent(model: mujoco.MjModel, robot: RobotSpec, joint: str) -> str:
    return _joint_of(model, robot, int(model.body_parentid[_body_of(model, joint)]))


def _place(model: mujoco.MjModel, robot: RobotSpec, joint: str) -> Placement:
    body = _body_of(model, joint)
    assert not model.joint(joint).pos.any(), f"{joint} does not turn about its body's origin"
    figures = (model.body_pos[body], model.body_quat[body], model.joint(joint).axis)
    # Orientations and axes at full precision: rounded, they would no longer be of length 1.
    pos, quat, axis = (tuple(float(v) for v in values) for values in figures)
    return Placement(joint, _parent(model, robot, joint), pos, quat, axis)  # type: ignore[arg-type]


def _fit(model: mujoco.MjModel, robot: RobotSpec, name: str, body: int) -> Capsule:
    points = np.concatenate([_surface(model, g) for g in range(model.ngeom) if model.geom_bodyid[g] == body])
    centre = (points.max(0) + points.min(0)) / 2
    axis = np.linalg.svd(points - points.mean(0), full_matrices=False)[2][0]
    along = (points - centre) @ axis
    # The line runs through the middle of what is seen along the axis.
    across = points - centre - along[:, None] * axis
    basis = np.linalg.svd(np.eye(3) - np.outer(axis, axis))[0][:, :2]
    middle = basis @ ((across @ basis).max(0) + (across @ basis).min(0)) / 2
    away = np.linalg.norm(across - middle, axis=1)
    radius = float(away.max())
    cap = np.sqrt(np.maximum(radius**2 - away**2, 0.0))
    low, high = float((along + cap).min()), float((along - cap).max())
    low, high = (low, high) if low < high else ((low + high) / 2,) * 2
    ends = [np.round(centre + middle + t * axis, DIGITS) for t in (low, high)]
    radius = float(np.ceil(_needed(points, *ends) * 10**DIGITS) / 10**DIGITS)
    start, end = (tuple(float(v) + 0.0 for v in point) for point in ends)
    return Capsule(name, _joint_of(model, robot, body), start, end, radius)  # type: ignore[arg-type]


def _needed(points: Array, start: Array, end: Array) -> float:
    """Largest distance of the points from the line between both ends."""
    line = end - start
    share = np.clip((points - start) @ line / max(float(line @ line), 1e-12), 0.0, 1.0)
    return float(np.linalg.norm(points - start - share[:, None] * line, axis=1).max())


def _surface(model: mujoco.MjModel, geom: int) -> Array:
    """(n, 3) m, in the body's frame: points whose convex hull holds the geom."""
    size, kind = model.geom_size[geom], int(model.geom_type[geom])
    box, cylinder, capsule, sphere, ellipsoid = (int(getattr(mujoco.mjtGeom, f"mjGEOM_{n}")) for n in _SHAPES)
    angle = np.linspace(0.0, 2 * np.pi, _GRID, endpoint=False)
    # Circumscribed, so that no arc between two points is outside.
    ring = np.stack((np.cos(angle), np.sin(angle)), -1) / np.cos(np.pi / _GRID)
    if kind == box:
        local = size * np.array(np.meshgrid(*([(-1.0, 1.0)] * 3))).reshape(3, -1).T
    elif kind == cylinder:
        local = np.concatenate([np.column_stack((size[0] * ring, np.full(_GRID, z))) for z in (-size[1], size[1])])
    else:
        latitude = np.linspace(-np.pi / 2, np.pi / 2, _GRID // 2 + 1)
        ball = np.array([(*(np.cos(b) * r), np.sin(b)) for b in latitude for r in ring]) / np.cos(np.pi / _GRID)
        if kind == capsule:
            local = np.concatenate([size[0] * ball + (0.0, 0.0, z) for z in (-size[1], size[1])])
        elif kind in (sphere, ellipsoid):
            local = ball * (size if kind == ellipsoid else size[0])
        else:
            raise ValueError(
                f"geom {model.geom(geom).name!r}: capsules cannot be fitted around a {mujoco.mjtGeom(kind).name}"
            )
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    return local @ rotation.reshape(3, 3).T + model.geom_pos[geom]


def literal(robot: RobotSpec, model: CollisionModel) -> str:
    """The Python source, not yet formatted."""
    tree = "".join(f"Placement({p.joint!r}, {p.parent!r}, {p.pos_m}, {p.quat_wxyz}, {p.axis}),\n" for p in model.tree)
    capsules = "".join(
        f"Capsule({c.name!r}, {c.joint!r}, {c.start_m}, {c.end_m}, {c.radius_m}),\n" for c in model.capsules
    )
    return (
        f'"""Capsules of the {robot.name}, written by `python -m robot_rl_sim.importing.capsules {robot.name}`."""\n\n'
        "from robot_rl.robots.collision import Capsule, CollisionModel, Placement\n\n"
        f"COLLISION = CollisionModel(tree=({tree}), capsules=({capsules}), pairs={model.pairs})\n"
    )


if __name__ == "__main__":
    spec = get_robot(sys.argv[1])
    print(literal(spec, collision_model(spec, mujoco.MjModel.from_xml_path(str(scene_path(spec.name))))), end="")
