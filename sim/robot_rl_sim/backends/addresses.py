"""Where the parts of a robot and of its scene lie in MuJoCo's state vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec


@dataclass(frozen=True, slots=True)
class StateColumns:
    """Where things are in qpos, qvel and sensor data."""

    joint_pos: slice | Tensor
    """The robot's joints in qpos, and in qvel."""
    joint_vel: slice | Tensor
    sensors: Mapping[str, slice]
    free_joints: Mapping[str, tuple[slice, slice]]
    """Columns of qpos and of qvel of each body with a free joint."""


def state_columns(model: mujoco.MjModel, joints: tuple[slice | Tensor, slice | Tensor]) -> StateColumns:
    """All columns of a model whose robot has its joints in those of `joint_columns`."""
    return StateColumns(*joints, sensor_columns(model), free_joint_columns(model))


def joint_columns(
    model: mujoco.MjModel, robot: RobotSpec, device: torch.device | str = "cpu"
) -> tuple[slice | Tensor, slice | Tensor]:
    """Columns of qpos and qvel that hold the robot's joints, in contract order: slices where the joints lie one behind
    the other in the model, else indices."""
    joints = [model.joint(name) for name in robot.joint_names]
    if [model.actuator(i).name for i in range(model.nu)] != list(robot.joint_names):
        raise ConfigError(f"robot {robot.name!r}: the model's actuators are not in the order of the RobotSpec")
    return _columns([int(j.qposadr[0]) for j in joints], device), _columns([int(j.dofadr[0]) for j in joints], device)


def joint_addresses(model: mujoco.MjModel, robot: RobotSpec) -> tuple[int, int]:
    """First qpos and dof address of the robot's joints, which must be consecutive and in contract order."""
    qpos, dofs = joint_columns(model, robot)
    if not isinstance(qpos, slice) or not isinstance(dofs, slice):
        raise ConfigError(f"robot {robot.name!r}: the model's joints are not in the order of the RobotSpec")
    return qpos.start, dofs.start


def _columns(addresses: list[int], device: torch.device | str) -> slice | Tensor:
    first, end = addresses[0], addresses[0] + len(addresses)
    return slice(first, end) if addresses == list(range(first, end)) else torch.tensor(addresses, device=device)


def sensor_columns(model: mujoco.MjModel) -> dict[str, slice]:
    """Where in the sensor data each named sensor is."""
    sensors = [model.sensor(i) for i in range(model.nsensor)]
    return {s.name: slice(int(s.adr[0]), int(s.adr[0]) + int(s.dim[0])) for s in sensors if s.name}


def free_joint_columns(model: mujoco.MjModel) -> dict[str, tuple[slice, slice]]:
    """Columns of qpos and of qvel of each body with a free joint."""
    free = int(mujoco.mjtJoint.mjJNT_FREE)
    joints = [j for j in range(model.njnt) if int(model.jnt_type[j]) == free]
    bodies = {model.body(int(model.jnt_bodyid[j])).name: j for j in joints}
    qpos, dofs = model.jnt_qposadr, model.jnt_dofadr
    return {
        body: (slice(int(qpos[j]), int(qpos[j]) + 7), slice(int(dofs[j]), int(dofs[j]) + 6))
        for body, j in bodies.items()
    }


def free_joint_addresses(model: mujoco.MjModel, body: str) -> tuple[int, int]:
    """First qpos and dof address of a body's free joint. Raises ConfigError naming the bodies that have one."""
    qpos, dofs = free_joint(free_joint_columns(model), body)
    return qpos.start, dofs.start


def free_joint(columns: Mapping[str, tuple[slice, slice]], body: str) -> tuple[slice, slice]:
    """Of `free_joint_columns`, those of one body. Raises ConfigError naming the bodies that have some."""
    if body not in columns:
        raise ConfigError(f"no body {body!r} with a free joint; valid: {', '.join(columns) or 'none'}")
    return columns[body]
