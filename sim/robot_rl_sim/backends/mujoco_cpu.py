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
from robot_rl_sim.backends.addresses import free_joint, joint_columns, state_columns
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
        self._columns = state_columns(model, joint_columns(model, robot))
        self.qpos = self._view("qpos")
        self.qvel = self._view("qvel")
        self._qvel = self._batch.bind("qvel")
        self.joint_effort = self._view("actuator_force")
        self._ctrl = self._view("ctrl")
        # Outputs hold nothing until the first call after they are bound, so they are bound before any.
        self._sensordata = self._view("sensordata")
        self._rows, self._warnings = torch.from_numpy(self._batch.state), torch.from_numpy(self._batch.warning)
        self._start_row = self._rows[0].clone()
        self._row_columns = {name: _span(self._batch, name) for name in ("qpos", "qvel", "ctrl")}
        self._warning_counts = self._batch.warning[..., 1]  # live; the other column is the last warning's detail
        self._errors = np.zeros(num_worlds, dtype=bool)
        self._raised = torch.from_numpy(self._errors)
        self._traced: dict[str, np.ndarray] = {}

    @property
    def joint_pos(self) -> Tensor:
        return self.qpos[:, self._columns.joint_pos]

    @property
    def joint_vel(self) -> Tensor:
        return self.qvel[:, self._columns.joint_vel]

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
        qpos, dofs = free_joint(self._columns.free_joints, body)
        return self.qpos[:, qpos], self.qvel[:, dofs]

    def sensor(self, name: str) -> Tensor:
        return self._sensordata[:, self._columns.sensors[name]]

    def view(self, qpos: Tensor, qvel: Tensor) -> StateView:
        return StateView(self.model, self._columns, qpos.to(self.qpos), qvel.to(self.qvel))

    def nominal(self, name: str) -> Tensor:
        return torch.from_numpy(attrgetter(name)(self.model).copy())  # such as opt.gravity

    def model_field(self, name: str) -> Tensor:
        if name not in self._fields:
            self._fields[name] = torch.from_numpy(self._batch.expand(name))
        return self._fields[name]

    def apply_model(self, worlds: Tensor) -> None:
        self._batch.set_const(worlds.numpy())

    def set_state(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        self.write_state(worlds, qpos, qvel)
        self.refresh(worlds)

    def write_state(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        rows, columns = self._start_row.repeat(len(worlds), 1), self._row_columns
        rows[:, columns["qpos"]] = qpos.to(rows)
        rows[:, columns["qvel"]] = qvel.to(rows)
        rows[:, columns["ctrl"]] = qpos[:, self._columns.joint_pos].to(rows)
        self._rows.index_copy_(0, worlds, rows)
        self._warnings.index_fill_(0, worlds, 0)
        self._raised.index_fill_(0, worlds, False)

    def refresh(self, worlds: Tensor) -> None:
        self._call(self._batch.forward, worlds.numpy())

    def trace(self) -> StateView:
        if not self._traced:
            shapes = {name: self._batch.bind(name).shape for name in _TRACED}
            self._traced = {name: np.zeros((n, self.substeps, size)) for name, (n, size) in shapes.items()}
        tensors = (torch.from_numpy(self._traced[name]) for name in _TRACED)
        return StateView(self.model, self._columns, *tensors)

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
        outputs = {"joint_effort": self.joint_effort.clone(), "sensordata": self._sensordata.clone()}
        return {"rows": self._rows.clone(), **outputs, **fields}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        outputs = {"joint_effort": self.joint_effort, "sensordata": self._sensordata}
        own = {"rows": self._rows} | outputs | {f"model/{name}": field for name, field in self._fields.items()}
        expected = {name: tuple(value.shape) for name, value in own.items()}
        given = {name: tuple(value.shape) for name, value in state.items()}
        if given != expected:
            raise CheckpointError(f"physics state does not fit: expected {expected}, got {given}")
        for name, field in self._fields.items():
            field.copy_(state[f"model/{name}"])
        if self._fields:
            self._batch.set_const()
        for name in ("rows", *outputs):
            own[name].copy_(state[name])

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


def _span(batch: Batch, name: str) -> slice:
    """Where a part of the state is in the rows of all of it."""
    first = (batch.bind(name).ctypes.data - batch.state.ctypes.data) // batch.state.itemsize
    return slice(first, first + batch.bind(name).shape[1])
