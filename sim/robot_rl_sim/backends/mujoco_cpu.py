"""BatchSim on MuJoCo's own thread pool: no Python per world, and no copy between its arrays and our tensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from operator import attrgetter

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch, SimulationError
from torch import Tensor

from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends.addresses import free_joint, free_joint_columns, joint_columns, sensor_columns
from robot_rl_sim.backends.batch_sim import MAX_SPEED
from robot_rl_sim.backends.state_view import StateView

_TRACED = ("qpos", "qvel", "actuator_force", "sensordata")


class MujocoCpuSim:
    """See BatchSim. `num_threads` 0 means all cores. Results do not depend on the number of threads."""

    stays = True

    def __init__(
        self, model: mujoco.MjModel, robot: RobotSpec, num_worlds: int, substeps: int, num_threads: int = 0
    ) -> None:
        if num_worlds < 1 or substeps < 1:
            raise ConfigError(f"num_worlds and substeps must be at least 1, got {num_worlds}, {substeps}")
        self.num_worlds = num_worlds
        self.substeps = substeps
        self.device = torch.device("cpu")
        self.model = model
        self._batch = Batch(model, num_worlds, num_threads)
        self._fields: dict[str, Tensor] = {}
        self._qpos_columns, self._dof_columns = joint_columns(model, robot)
        self._sensors, self._free_joints = sensor_columns(model), free_joint_columns(model)
        self.qpos = self._view("qpos")
        self.qvel = self._view("qvel")
        self._qpos, self._qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        self.joint_effort = self._view("actuator_force")
        self._ctrl = self._view("ctrl")
        # Outputs hold nothing until the first call after they are bound, so they are bound before any.
        self._sensordata = self._view("sensordata")
        self._start_row = self._batch.state[0].copy()
        self._warning_counts = self._batch.warning[..., 1]  # live; the other column is the last warning's detail
        self._errors = np.zeros(num_worlds, dtype=bool)
        self._traced: dict[str, np.ndarray] = {}

    @property
    def joint_pos(self) -> Tensor:
        return self.qpos[:, self._qpos_columns]

    @property
    def joint_vel(self) -> Tensor:
        return self.qvel[:, self._dof_columns]

    @property
    def any_failed(self) -> bool:
        # First the least that shows that nothing failed, in numpy: after physics, which drives all else out of the
        # caches, torch takes several times as long. No speed exceeds the root of the sum of all squares, which is not
        # less than anything if it is NaN.
        slow = np.vdot(self._qvel, self._qvel) < MAX_SPEED**2
        if slow and not np.count_nonzero(self._warning_counts) and not np.count_nonzero(self._errors):
            return False
        return bool(self.failed.any())

    @property
    def failed(self) -> Tensor:
        speed = np.abs(self._qvel).max(axis=1, initial=0.0)  # NaN counts as too fast
        return torch.from_numpy(~(speed < MAX_SPEED) | self._errors | self._warning_counts.any(axis=1))

    def free_joint(self, body: str) -> tuple[Tensor, Tensor]:
        qpos, dofs = free_joint(self._free_joints, body)
        return self.qpos[:, qpos], self.qvel[:, dofs]

    def sensor(self, name: str) -> Tensor:
        return self._sensordata[:, self._sensors[name]]

    def nominal(self, name: str) -> Tensor:
        return torch.from_numpy(attrgetter(name)(self.model).copy())  # such as opt.gravity

    def model_field(self, name: str) -> Tensor:
        if name not in self._fields:
            self._fields[name] = torch.from_numpy(self._batch.expand(name))
        return self._fields[name]

    def apply_model(self, worlds: Tensor) -> None:
        self._batch.set_const(worlds.numpy())

    def set_state(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        ids = worlds.numpy()
        self._batch.state[ids] = self._start_row
        self._batch.warning[ids] = 0
        self._errors[ids] = False
        self._qpos[ids] = qpos.numpy()
        self._qvel[ids] = qvel.numpy()
        self._ctrl.numpy()[ids] = self._qpos[ids][:, self._qpos_columns]
        # So that sensors and efforts read now belong to this state and not to the last episode.
        self._call(self._batch.forward, ids)

    def trace(self) -> StateView:
        if not self._traced:
            shapes = {name: self._batch.bind(name).shape for name in _TRACED}
            self._traced = {name: np.zeros((n, self.substeps, size)) for name, (n, size) in shapes.items()}
        tensors = (torch.from_numpy(self._traced[name]) for name in _TRACED)
        return StateView(self.model, (self._qpos_columns, self._dof_columns), *tensors)

    def step(self, ctrl: Tensor) -> None:
        if ctrl.dim() == 2 and not self._traced:
            self._ctrl.copy_(ctrl)
            self._call(self._batch.step, nstep=self.substeps)
        else:
            controls = (ctrl if ctrl.dim() == 3 else ctrl.unsqueeze(1)).double().numpy()
            record = tuple(self._traced)
            self._call(self._batch.rollout, self.substeps, controls, record=record, out=self._traced)

    def state_dict(self) -> dict[str, Tensor]:
        fields = {f"model/{name}": field.clone() for name, field in self._fields.items()}
        return {"rows": torch.from_numpy(self._batch.state.copy()), **fields}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        expected = {"rows": self._batch.state.shape} | {f"model/{k}": tuple(v.shape) for k, v in self._fields.items()}
        given = {name: tuple(value.shape) for name, value in state.items()}
        if given != expected:
            raise CheckpointError(f"physics state does not fit: expected {expected}, got {given}")
        for name, field in self._fields.items():
            field.copy_(state[f"model/{name}"])
        if self._fields:
            self._batch.set_const()
        self._batch.state[:] = state["rows"].numpy()

    def snapshot(self, world: int) -> mujoco.MjData:
        """One world's state as an MjData of `model`, forwarded: to render, or to inspect."""
        data = self._batch.get_data(world)
        mujoco.mj_forward(self._batch.get_model(world), data)
        return data

    def _view(self, name: str) -> Tensor:
        with warnings.catch_warnings():
            # Outputs are read-only arrays, of which torch warns that a write through the tensor is undefined.
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(self._batch.bind(name))

    def _call(self, function, *args, **kwargs) -> None:
        """Call into the batch; the other worlds run to completion where one of them raises an error."""
        try:
            function(*args, **kwargs)
        except SimulationError as error:
            self._errors[error.ids] = True
