"""StateView: the raw state of worlds by the names of its parts."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from robot_rl_sim.backends.addresses import free_joint_addresses


class StateView:
    """One state of each of n worlds, in tensors (n, size), or k of them, in tensors (n, k, size). Its parts are views.

    See BatchSim for what they are.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joints: tuple[slice | Tensor, slice | Tensor],
        qpos: Tensor,
        qvel: Tensor,
        joint_effort: Tensor,
        sensordata: Tensor,
    ) -> None:
        """`joints` are the columns of the robot's joints in qpos and in qvel."""
        self.qpos, self.qvel, self.joint_effort = qpos, qvel, joint_effort
        self.joint_pos, self.joint_vel = qpos[..., joints[0]], qvel[..., joints[1]]
        self.model, self._sensordata = model, sensordata

    @property
    def num_worlds(self) -> int:
        return len(self.qpos)

    @property
    def device(self) -> torch.device:
        return self.qpos.device

    def sensor(self, name: str) -> Tensor:
        """(..., size) of a sensor of the model."""
        sensor = self.model.sensor(name)
        start, size = int(sensor.adr[0]), int(sensor.dim[0])
        return self._sensordata[..., start : start + size]

    def free_joint(self, body: str) -> tuple[Tensor, Tensor]:
        """Pose (..., 7) and velocity (..., 6) of a body with a free joint; ConfigError if it has none."""
        qpos, dof = free_joint_addresses(self.model, body)
        return self.qpos[..., qpos : qpos + 7], self.qvel[..., dof : dof + 6]
