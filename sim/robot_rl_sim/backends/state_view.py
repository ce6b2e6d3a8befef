"""StateView: the raw state of worlds by the names of its parts."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from robot_rl_sim.backends.addresses import StateColumns, free_joint


class StateView:
    """One state of each of n worlds, in tensors (n, size), or k of them, in tensors (n, k, size). Its parts are views.

    See BatchSim for what they are.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        columns: StateColumns,
        qpos: Tensor,
        qvel: Tensor,
        joint_effort: Tensor | None = None,
        sensordata: Tensor | None = None,
    ) -> None:
        """Without efforts or sensors, there are none to read: (n, 0)."""
        none = qpos[..., :0]
        self.qpos, self.qvel, self.joint_effort = qpos, qvel, none if joint_effort is None else joint_effort
        self.joint_pos, self.joint_vel = qpos[..., columns.joint_pos], qvel[..., columns.joint_vel]
        self.model, self._columns, self._sensordata = model, columns, none if sensordata is None else sensordata

    @property
    def num_worlds(self) -> int:
        return len(self.qpos)

    @property
    def device(self) -> torch.device:
        return self.qpos.device

    def sensor(self, name: str) -> Tensor:
        """(..., size) of a sensor of the model."""
        return self._sensordata[..., self._columns.sensors[name]]

    def free_joint(self, body: str) -> tuple[Tensor, Tensor]:
        """Pose (..., 7) and velocity (..., 6) of a body with a free joint; ConfigError if it has none."""
        qpos, dofs = free_joint(self._columns.free_joints, body)
        return self.qpos[..., qpos], self.qvel[..., dofs]

    def overwrite(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Let all k states of `worlds` (m,) be at qpos (m, nq) and qvel (m, nv), with motors and sensors at zero."""
        self.qpos[worlds], self.qvel[worlds] = qpos.unsqueeze(1), qvel.unsqueeze(1)
        self.joint_effort[worlds] = 0.0
        self._sensordata[worlds] = 0.0
