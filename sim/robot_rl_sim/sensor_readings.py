"""Which quantity each sensor of a robot reads, and how its errors look in the mirror."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import mujoco
import torch
from torch import Tensor

from robot_rl.networks.rotation import conjugate, in_body, multiply
from robot_rl.replay.mirror import Entries
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends.state_view import StateView
from robot_rl_sim.sensor_config import ORIENTATIONS
from robot_rl_sim.symmetry import DIRECTION, ROTATION, joint_entries

OBJECT = ("object_pos", "object_quat_wxyz")
"""What a camera measures."""
COMPUTED = ("joint_effort", "imu_lin_acc_b")
"""What is no part of qpos or qvel."""


class Now(Protocol):
    """Where the true values come from, as live tensors: a BatchSim, or a StateView of one state of each world."""

    model: mujoco.MjModel
    qpos: Tensor
    qvel: Tensor

    @property
    def num_worlds(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def joint_pos(self) -> Tensor: ...

    @property
    def joint_vel(self) -> Tensor: ...

    @property
    def joint_effort(self) -> Tensor: ...

    def sensor(self, name: str) -> Tensor: ...

    def free_joint(self, body: str) -> tuple[Tensor, Tensor]: ...


Reading = Callable[[Now | StateView], Tensor]


def make_readings(now: Now, robot: RobotSpec, object_body: str | None) -> dict[str, Reading]:
    """What each sensor measures, of one state per world or of several: by field of RobotState, in float64 or float32.

    The IMU is that of the base, and its frame is the base's. `object_body` is what the camera sees, a body with a free
    joint.
    """
    readings: dict[str, Reading] = {
        "joint_pos": lambda s: s.joint_pos,
        "joint_vel": lambda s: s.joint_vel,
        "joint_effort": lambda s: s.joint_effort,
        "imu_quat_wxyz": lambda s: s.qpos[..., 3:7],
        "imu_ang_vel_b": lambda s: s.qvel[..., 3:6],
        "imu_lin_acc_b": lambda s: s.sensor("imu_acc"),
    }
    if object_body is None:
        return readings
    fixed = None if robot.floating_base else _fixed_pose(now.model, robot.root_body).to(now.qpos)

    def from_root(s: Now | StateView, convert: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        pose, _ = s.free_joint(object_body)
        root = s.qpos[..., :7] if fixed is None else fixed.expand_as(pose)
        return convert(pose.reshape(-1, 7), root.reshape(-1, 7)).reshape(*pose.shape[:-1], -1)

    def position(pose: Tensor, root: Tensor) -> Tensor:
        return in_body(pose[:, :3] - root[:, :3], root[:, 3:])

    def orientation(pose: Tensor, root: Tensor) -> Tensor:
        return multiply(conjugate(root[:, 3:]), pose[:, 3:])

    readings["object_pos"] = lambda s: from_root(s, position)
    readings["object_quat_wxyz"] = lambda s: from_root(s, orientation)
    return readings


def _fixed_pose(model: mujoco.MjModel, body: str) -> Tensor:
    """Position m and orientation (7,) in the world of a body that no joint moves."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    pose = data.body(body)
    return torch.cat((torch.from_numpy(pose.xpos.copy()), torch.from_numpy(pose.xquat.copy())))


def error_mirror(field: str, robot: RobotSpec) -> Entries:
    """The image of a sensor's errors with left and right exchanged."""
    if field.startswith("joint_"):
        return joint_entries(robot)
    return ROTATION if field in (*ORIENTATIONS, "imu_ang_vel_b") else DIRECTION
