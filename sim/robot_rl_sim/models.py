"""Robot models: the MJCF of each robot, ours or imported, completed with what its RobotSpec says about the motors."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl.errors import ConfigError
from robot_rl.robots import ROBOTS, RobotSpec, get_robot
from robot_rl.robots.collision import CollisionModel
from robot_rl.robots.files import added_robots
from robot_rl_sim.coupling import find_followers, follow
from robot_rl_sim.motors import PD, set_motor

_PACKAGE = Path(__file__).resolve().parent
# An installed wheel carries the assets inside the package; in the source tree they lie beside it.
_ASSET_ROOTS = (_PACKAGE / "assets", _PACKAGE.parent / "assets")


def scene_path(robot: str) -> Path:
    """The robot's MJCF file (body tree, geometry, floor, light, camera "main"; no actuators).

    Raises ConfigError for an unknown robot, or one whose scene is not installed.
    """
    name = get_robot(robot).name
    folders = [root / name for root in _ASSET_ROOTS] if name in ROBOTS else [added_robots()[name]]
    candidates = [folder / f"{name}.xml" for folder in folders]
    for path in candidates:
        if path.is_file():
            return path
    raise ConfigError(f"no scene for robot {name!r}; looked for {', '.join(map(str, candidates))}")


def load_spec(robot: str) -> mujoco.MjSpec:
    """The editable model: the MJCF plus, per joint of the RobotSpec, armature and one position servo of the same name;
    and contacts between links that could hit one another.

    Actuators are in RobotSpec joint order, so `ctrl` is the vector of joint targets (rad) in contract order. Each
    applies kp (target - q) - kd dq, limited to ± effort_limit_nm.
    """
    spec, known = mujoco.MjSpec.from_file(str(scene_path(robot))), get_robot(robot)
    add_motors(spec, known)
    if known.collision is not None:
        add_self_contacts(spec, known.collision, known.root_body)
    return spec


def load_model(robot: str) -> mujoco.MjModel:
    """The compiled model of `load_spec`."""
    return load_spec(robot).compile()


def add_motors(spec: mujoco.MjSpec, robot: RobotSpec) -> None:
    """Give every joint of `robot` its armature and its position servo."""
    for joint, armature in zip(robot.joints, robot.armature_kg_m2, strict=True):
        spec.joint(joint.name).armature = armature
        actuator = spec.add_actuator(name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        set_motor(actuator, joint, PD)


def add_self_contacts(spec: mujoco.MjSpec, collision: CollisionModel, root_body: str) -> None:
    """Let the links of a robot stop one another: its capsules, hidden, and a contact for each of its pairs.

    They are the capsules that the safety filter keeps apart, so that a policy learns among the links that it meets on a
    robot. They touch nothing else. Contacts have no friction: they cost a quarter then, and nothing may lean on them.
    """
    for capsule in collision.capsules:
        body = spec.joint(capsule.joint).parent if capsule.joint else spec.body(root_body)
        body.add_geom(
            name=_self_geom(capsule.name), type=_SHAPE.mjGEOM_CAPSULE, fromto=(*capsule.start_m, *capsule.end_m),
            size=(capsule.radius_m, 0.0, 0.0), mass=0.0, contype=0, conaffinity=0, group=3, rgba=_SELF_RGBA,
        )  # fmt: skip
    for first, second in collision.pairs:
        spec.add_pair(geomname1=_self_geom(first), geomname2=_self_geom(second), condim=1)


def _self_geom(capsule: str) -> str:
    return f"self_{capsule}"


def default_qpos(model: mujoco.MjModel, robot: RobotSpec) -> NDArray[np.float64]:
    """qpos (nq,) of the RobotSpec's default pose; joints that follow others are where they belong.

    A floating base, unless `hang` fixed it, stands upright with its lowest contact geom on the floor, at height 0.
    """
    data = mujoco.MjData(model)
    for joint in robot.joints:
        data.joint(joint.name).qpos = joint.default_pos_rad
    follow(model, data.qpos, find_followers(model, {model.joint(name).id for name in robot.joint_names}))
    if robot.floating_base and int(model.jnt_type[0]) == int(mujoco.mjtJoint.mjJNT_FREE):
        mujoco.mj_kinematics(model, data)
        touches = [g for g in range(model.ngeom) if model.geom_contype[g] or model.geom_conaffinity[g]]
        bottoms = [bottom_m(model, data, g) for g in touches if model.body_weldid[model.geom_bodyid[g]]]
        data.qpos[2] -= min(bottoms, default=0.0)
    return data.qpos.copy()


def hang(spec: mujoco.MjSpec, model: mujoco.MjModel, robot: RobotSpec) -> None:
    """Fix a floating base in the air, upright, too high for any limb to reach the ground. Others stay as they are.

    `model` is what `spec` compiles to before.
    """
    if not robot.floating_base:
        return
    body = spec.body(robot.root_body)
    spec.delete(next(j for j in body.joints if int(j.type) == int(mujoco.mjtJoint.mjJNT_FREE)))
    body.pos = (*body.pos[:2], reach_m(model, robot))


def reach_m(model: mujoco.MjModel, robot: RobotSpec) -> float:
    """No part of the robot is ever farther from its root body than this: all links end to end, and 5 cm."""
    root = model.body(robot.root_body).id
    reach = np.zeros(model.nbody)
    for body in range(root + 1, model.nbody):
        if int(model.body_rootid[body]) == root:
            slides = [
                j for j in range(model.njnt) if int(model.jnt_bodyid[j]) == body and int(model.jnt_type[j]) == _SLIDE
            ]
            travel = sum(float(np.abs(model.jnt_range[j]).max()) for j in slides)
            reach[body] = reach[model.body_parentid[body]] + np.linalg.norm(model.body_pos[body]) + travel
    sizes = np.linalg.norm(model.geom_pos, axis=1) + model.geom_rbound
    parts = [g for g in range(model.ngeom) if int(model.body_rootid[model.geom_bodyid[g]]) == root]
    return max((float(reach[model.geom_bodyid[g]] + sizes[g]) for g in parts), default=0.0) + 0.05


def bottom_m(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> float:
    """Height of the lowest point of a geom, of whatever shape."""
    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    up = data.geom_xmat[geom][6:]  # the vertical in the geom's own axes
    if kind == int(_SHAPE.mjGEOM_SPHERE):
        reach = size[0]
    elif kind == int(_SHAPE.mjGEOM_CAPSULE):
        reach = size[0] + size[1] * abs(up[2])
    elif kind == int(_SHAPE.mjGEOM_CYLINDER):
        reach = size[0] * np.hypot(up[0], up[1]) + size[1] * abs(up[2])
    elif kind == int(_SHAPE.mjGEOM_ELLIPSOID):
        reach = np.linalg.norm(size * up)
    elif kind == int(_SHAPE.mjGEOM_BOX):
        reach = size @ np.abs(up)
    elif kind == int(_SHAPE.mjGEOM_MESH):
        mesh = model.geom_dataid[geom]
        start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        reach = -(model.mesh_vert[start : start + count] @ up).min()
    else:
        reach = model.geom_rbound[geom]
    return float(data.geom_xpos[geom][2] - reach)


_SHAPE = mujoco.mjtGeom
_SELF_RGBA = (0.9, 0.4, 0.2, 0.3)
_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)
