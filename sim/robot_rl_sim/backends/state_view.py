"""StateView: the raw state of worlds by the names of its parts."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from robot_rl_sim.backends.addresses import free_joint, free_joint_columns, sensor_columns


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
        self._sensors, self._free_joints = sensor_columns(model), free_joint_columns(model)

    @property
    def num_worlds(self) -> int:
        return len(self.qpos)

    @property
    def device(self) -> torch.device:
        return self.qpos.device

    def sensor(self, name: str) -> Tensor:
        """(..., size) of a sensor of the model."""
        return self._sensordata[..., self._sensors[name]]

    def free_joint(self, body: str) -> tuple[Tensor, Tensor]:
        """Pose (..., 7) and velocity (..., 6) of a body with a free joint; ConfigError if it has none."""
        qpos, dofs = free_joint(self._free_joints, body)
        return self.qpos[..., qpos], self.qvel[..., dofs]

    def overwrite(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Let all k states of `worlds` (m,) be at qpos (m, nq) and qvel (m, nv), with motors and sensors at zero."""
        self.qpos[worlds], self.qvel[worlds] = qpos.unsqueeze(1), qvel.unsqueeze(1)
        self.joint_effort[worlds] = 0.0
        self._sensordata[worlds] = 0.0
