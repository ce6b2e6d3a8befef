"""Where the parts of a robot and of its scene lie in MuJoCo's state vectors."""

from __future__ import annotations

import mujoco

from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec


def joint_addresses(model: mujoco.MjModel, robot: RobotSpec) -> tuple[int, int]:
    """First qpos and dof address of the robot's joints, which must be consecutive and in contract order."""
    joints = [model.joint(name) for name in robot.joint_names]
    qpos = [int(j.qposadr[0]) for j in joints]
    dofs = [int(j.dofadr[0]) for j in joints]
    actuators = [model.actuator(i).name for i in range(model.nu)]
    for addresses in (qpos, dofs):
        if addresses != list(range(addresses[0], addresses[0] + len(joints))):
            raise ConfigError(f"robot {robot.name!r}: the model's joints are not in the order of the RobotSpec")
    if actuators != list(robot.joint_names):
        raise ConfigError(f"robot {robot.name!r}: the model's actuators are not in the order of the RobotSpec")
    return qpos[0], dofs[0]


def free_joint_addresses(model: mujoco.MjModel, body: str) -> tuple[int, int]:
    """First qpos and dof address of a body's free joint. Raises ConfigError naming the bodies that have one."""
    free = int(mujoco.mjtJoint.mjJNT_FREE)
    bodies = {model.body(int(model.jnt_bodyid[j])).name: j for j in range(model.njnt) if int(model.jnt_type[j]) == free}
    if body not in bodies:
        raise ConfigError(f"no body {body!r} with a free joint; valid: {', '.join(bodies) or 'none'}")
    return int(model.jnt_qposadr[bodies[body]]), int(model.jnt_dofadr[bodies[body]])
