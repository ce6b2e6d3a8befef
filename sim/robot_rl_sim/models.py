"""Robot models: the hand-written MJCF of each robot, completed with what its RobotSpec says about the motors."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec, get_robot

_PACKAGE = Path(__file__).resolve().parent
# An installed wheel carries the assets inside the package; in the source tree they lie beside it.
_ASSET_ROOTS = (_PACKAGE / "assets", _PACKAGE.parent / "assets")


def scene_path(robot: str) -> Path:
    """The robot's MJCF file (body tree, geometry, floor, light, camera "main"; no actuators).

    Raises ConfigError for an unknown robot, or one whose scene is not installed.
    """
    name = get_robot(robot).name
    candidates = [root / name / f"{name}.xml" for root in _ASSET_ROOTS]
    for path in candidates:
        if path.is_file():
            return path
    raise ConfigError(f"no scene for robot {name!r}; looked for {', '.join(map(str, candidates))}")


def load_spec(robot: str) -> mujoco.MjSpec:
    """The editable model: the MJCF plus, per joint of the RobotSpec, armature and one position servo of the same name.

    Actuators are in RobotSpec joint order, so `ctrl` is the vector of joint targets (rad) in contract order. Each
    applies kp (target - q) - kd dq, limited to ± effort_limit_nm.
    """
    spec = mujoco.MjSpec.from_file(str(scene_path(robot)))
    add_motors(spec, get_robot(robot))
    return spec


def load_model(robot: str) -> mujoco.MjModel:
    """The compiled model of `load_spec`."""
    return load_spec(robot).compile()


def add_motors(spec: mujoco.MjSpec, robot: RobotSpec) -> None:
    """Give every joint of `robot` its armature and its position servo."""
    for joint, armature in zip(robot.joints, robot.armature_kg_m2, strict=True):
        spec.joint(joint.name).armature = armature
        actuator = spec.add_actuator(name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=joint.kp_nm_rad, kv=joint.kd_nms_rad)
        actuator.forcelimited = True
        actuator.forcerange = (-joint.effort_limit_nm, joint.effort_limit_nm)


def default_qpos(model: mujoco.MjModel, robot: RobotSpec) -> NDArray[np.float64]:
    """qpos (nq,) of the RobotSpec's default pose.

    A floating base stands upright with its lowest contact geom, which must be a sphere or capsule, on the floor.
    """
    data = mujoco.MjData(model)
    for joint in robot.joints:
        data.joint(joint.name).qpos = joint.default_pos_rad
    if robot.floating_base:
        mujoco.mj_kinematics(model, data)
        data.qpos[2] -= min(_bottom_m(model, data, geom) for geom in range(model.ngeom) if model.geom_conaffinity[geom])
    return data.qpos.copy()


def _bottom_m(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> float:
    """Height of the lowest point of a sphere or capsule."""
    radius, half_length = model.geom_size[geom][:2]
    sphere = int(model.geom_type[geom]) == int(mujoco.mjtGeom.mjGEOM_SPHERE)
    reach = 0.0 if sphere else half_length * abs(data.geom_xmat[geom][8])
    return float(data.geom_xpos[geom][2] - reach - radius)
