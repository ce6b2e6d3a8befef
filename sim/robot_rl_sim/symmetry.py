"""Left-right symmetry of what a policy sees, from the symmetry of its robot."""

from __future__ import annotations

from robot_rl.errors import ConfigError
from robot_rl.networks.policy_io import PolicyIO
from robot_rl.replay.mirror import Entries, Mirror

# Reflecting y: a direction changes the sign of y; a rotation keeps that about y and turns the other way about x and z.
DIRECTION = ((0, 1), (1, -1), (2, 1))
_ROTATION = ((0, -1), (1, 1), (2, -1))
# Half a cycle later, the other leg does the same.
_GAIT_PHASE = ((0, -1), (1, -1))
_VECTOR_TERMS = {"base_ang_vel": _ROTATION, "projected_gravity": DIRECTION, "gait_phase": _GAIT_PHASE}
_JOINT_TERMS = {"joint_pos", "joint_vel", "target_error", "last_action"}


def mirror(io: PolicyIO, privileged: Entries = (), command: Entries = ()) -> Mirror:
    """Of a policy's observations with the task's privileged ones behind them, whose own image is `privileged`; the term
    "command" has the image `command`.

    Raises ConfigError for a robot without two like sides, or a term whose mirror image is not known here."""
    robot = io.robot
    if not robot.mirror:
        raise ConfigError(f"robot {robot.name!r} has no left-right symmetry")
    joints = tuple((robot.joint_names.index(name), sign) for name, sign in robot.mirror)
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
