"""Left-right symmetry of what a policy sees, from the symmetry of its robot."""

from __future__ import annotations

import mujoco

from robot_rl.errors import ConfigError
from robot_rl.networks.policy_io import PolicyIO
from robot_rl.replay.mirror import Entries, Mirror
from robot_rl.robots import RobotSpec

# Reflecting y: a direction changes the sign of y; a rotation keeps that about y and turns the other way about x and z.
DIRECTION = ((0, 1), (1, -1), (2, 1))
ROTATION = ((0, -1), (1, 1), (2, -1))
# Half a cycle later, the other leg does the same.
_GAIT_PHASE = ((0, -1), (1, -1))
_VECTOR_TERMS = {"base_ang_vel": ROTATION, "projected_gravity": DIRECTION, "gait_phase": _GAIT_PHASE}
_JOINT_TERMS = {"joint_pos", "joint_vel", "target_error", "last_action"}


def mirror(io: PolicyIO, privileged: Entries = (), command: Entries = ()) -> Mirror:
    """Of a policy's observations with the task's privileged ones behind them, whose own image is `privileged`; the term
    "command" has the image `command`.

    Raises ConfigError for a robot without two like sides, or a term whose mirror image is not known here."""
    robot = io.robot
    if not robot.mirror:
        raise ConfigError(f"robot {robot.name!r} has no left-right symmetry")
    joints = joint_entries(robot)
    vectors = _VECTOR_TERMS | ({"command": command} if command else {})
    obs: list[tuple[int, int]] = []
    for name, _ in io.contract.observation_terms * io.contract.history_length:
        if name not in vectors and name not in _JOINT_TERMS:
            valid = ", ".join(sorted(vectors.keys() | _JOINT_TERMS))
            raise ConfigError(f"the mirror image of observation term {name!r} is not known; valid: {valid}")
        first = len(obs)
        obs += [(first + i, sign) for i, sign in vectors.get(name, joints)]
    obs += [(len(obs) + i, sign) for i, sign in privileged]
    return Mirror(obs, joints)


def joint_entries(robot: RobotSpec) -> Entries:
    """The image of one number per joint that has a side and a sign, such as an angle; itself, for a robot without two
    like sides."""
    names = robot.joint_names
    return tuple((names.index(name), sign) for name, sign in robot.mirror or ((name, 1) for name in names))


def body_entries(model: mujoco.MjModel, robot: RobotSpec) -> Entries:
    """The image of one number per body of the model but the world, such as its mass.

    Bodies change places as their joints do; those without a joint of the robot as their names, in which left and right
    are exchanged.
    """
    names = [model.body(i).name for i in range(1, model.nbody)]
    owner = {joint: model.body(int(model.joint(joint).bodyid[0])).name for joint in robot.joint_names}
    other = {name: name for name in names}
    if robot.mirror:
        for name in names:
            swapped = name.replace("left", "\0").replace("right", "left").replace("\0", "right")
            other[name] = swapped if swapped in other else name
        other |= {owner[j]: owner[image] for j, (image, _) in zip(robot.joint_names, robot.mirror, strict=True)}
    return tuple((names.index(other[name]), 1) for name in names)
