"""BatchSim on MuJoCo Warp: all worlds on a GPU, or on Warp's CPU device, which runs the same code.

Physics is in single precision; tensors are views of Warp's arrays, on the device. One control period is captured once
as a graph and then replayed. Model fields are shared by all worlds until someone asks for their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial

import mujoco
import torch
from torch import Tensor

from robot_rl.errors import CheckpointError, ConfigError, EnvError
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends import inertia
from robot_rl_sim.backends.addresses import free_joint, joint_columns, state_columns
from robot_rl_sim.backends.batch_sim import MAX_SPEED
from robot_rl_sim.backends.state_view import StateView
from robot_rl_sim.backends.warp_kernels import mjw, note_failures, while_compiling, wp

STATE = (
    "qpos", "qvel", "act", "time", "qacc_warmstart", "ctrl", "history", "qfrc_applied", "xfrc_applied", "eq_active",
    "mocap_pos", "mocap_quat", "userdata", "sensordata", "actuator_force",
)  # fmt: skip
"""Fields of Warp's Data from which a world goes on exactly, and the outputs that can be read meanwhile."""

_TRACED = ("qpos", "qvel", "actuator_force", "sensordata")

FREE_FIELDS = frozenset({
    "opt.gravity", "opt.wind", "opt.density", "opt.viscosity",
    "jnt_stiffness", "jnt_range", "jnt_actfrcrange", "jnt_margin", "jnt_solref", "jnt_solimp",
    "dof_damping", "dof_frictionloss", "dof_solref", "dof_solimp",
    "geom_friction", "geom_margin", "geom_gap", "geom_solref", "geom_solimp", "geom_solmix",
    "pair_friction", "pair_margin", "pair_gap", "pair_solref", "pair_solimp",
    "actuator_gainprm", "actuator_biasprm", "actuator_forcerange", "actuator_ctrlrange", "actuator_gear",
    "tendon_damping", "tendon_stiffness", "tendon_frictionloss", "tendon_range",
})  # fmt: skip
"""Model fields that a world may have its own values of, and from which nothing else follows. (From those in
`inertia.SOURCES` something does, which `apply_model` sees to; any other field could leave the physics inconsistent.)"""

CONTACTS = "contacts_per_world"
"""Name of the `numeric` with which a model says for how many contacts to make room."""

SHARED_OVERFLOW = int(mjw.OverflowType.BROADPHASE | mjw.OverflowType.NARROWPHASE | mjw.OverflowType.CCD)
"""Contacts of all worlds are in one buffer: when it is full, no world's can be trusted."""
WORLD_OVERFLOW = int(
    mjw.OverflowType.NEFC
    | mjw.OverflowType.NJMAX_NNZ
    | mjw.OverflowType.HFIELD
    | mjw.OverflowType.CONTACT_MATCH
    | mjw.OverflowType.TACTILE
)
"""Only the world itself went wrong."""


class MujocoWarpSim:
    """See BatchSim. Deterministic on the CPU; on a GPU, sums of forces may differ in the last bit between runs.

    Room for contacts is bounded: for what the model's geom pairs can give, but at most 64 a world, or as many as the
    model's `<custom><numeric name="contacts_per_world" data="..."/></custom>` says. A world that needs more constraints
    than it has room for is `failed`; contacts that do not fit into the buffer of all worlds raise EnvError.
    """

    stays = False  # what `set_state` changes is computed when it is asked for

    def __init__(
        self, model: mujoco.MjModel, robot: RobotSpec, num_worlds: int, substeps: int, device: str = "cuda"
    ) -> None:
        """Raises ConfigError for a model that MuJoCo Warp cannot simulate, naming what and a remedy, or for a device
        that is not there."""
        if num_worlds < 1 or substeps < 1:
            raise ConfigError(f"num_worlds and substeps must be at least 1, got {num_worlds}, {substeps}")
        self.num_worlds = num_worlds
        self.substeps = substeps
        self.model = model
        self.device = _torch_device(device)
        self._columns = state_columns(model, joint_columns(model, robot, self.device))
        self._device = wp.device_from_torch(self.device)
        with wp.ScopedDevice(self._device):
            self._model = _put_model(model)
            self._contacts, rows = _capacity(model, int(self._model.nxn_geom_pair_filtered.shape[0]))
            # Kernels are built on a world of their own, so that this one's state stays untouched.
            scratch = mjw.make_data(model, nworld=1, nconmax=self._contacts, njmax=rows)
            with while_compiling(device):
                self._step(scratch, *(torch.zeros(1, dtype=t, device=self.device) for t in (torch.bool, torch.int32)))
            self._data = mjw.make_data(model, nworld=num_worlds, nconmax=self._contacts, njmax=rows)
            wp.synchronize_device()  # from here on, everything is on torch's stream

        views = {name: wp.to_torch(getattr(self._data, name)) for name in STATE}
        self._state = {name: view for name, view in views.items() if view.numel()}
        self._fresh = {name: view[:1].clone() for name, view in self._state.items()}
        self._nominal: dict[str, Tensor] = {}
        self._fields: dict[str, Tensor] = {}
        self._inertia: inertia.InertiaConstants | None = None
        self.qpos, self.qvel, self._ctrl = views["qpos"], views["qvel"], views["ctrl"]
        self._outputs = {name: views[name] for name in ("sensordata", "actuator_force") if name in self._state}
        self._effort = views["actuator_force"]
        self._late = torch.zeros(num_worlds, dtype=torch.bool, device=self.device)
        """Worlds whose outputs are not yet those of the state they were set to. To compute them costs as much as a
        physics step of all worlds, and most tasks never look before the next step."""
        self._any_late = False

        self.failed = torch.zeros(num_worlds, dtype=torch.bool, device=self.device)
        self._overflow = wp.to_torch(self._data.overflow)
        self._overflows = torch.zeros(1, dtype=torch.int32, device=self.device)
        self._overflows_seen = self._overflows
        if self.device.type == "cuda":  # pinned memory, into which the device copies by itself
            self._overflows_seen = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=True)
        self._plan = torch.zeros(substeps, num_worlds, model.nu, device=self.device)
        self._graphs: dict[str, wp.Graph] = {}
        self._traced: dict[str, Tensor] = {}
        """States after each physics step of a period, (substeps, num_worlds, ...), if anyone asked for them."""

    @property
    def joint_pos(self) -> Tensor:
        return self.qpos[:, self._columns.joint_pos]

    @property
    def joint_vel(self) -> Tensor:
        return self.qvel[:, self._columns.joint_vel]

    @property
    def joint_effort(self) -> Tensor:
        self._refresh_outputs()
        return self._effort

    def free_joint(self, body: str) -> tuple[Tensor, Tensor]:
        qpos, dofs = free_joint(self._columns.free_joints, body)
        return self.qpos[:, qpos], self.qvel[:, dofs]

    def sensor(self, name: str) -> Tensor:
        self._refresh_outputs()
        return self._outputs["sensordata"][:, self._columns.sensors[name]]

    def trace(self) -> StateView:
        if not self._traced:
            shapes = {name: wp.to_torch(getattr(self._data, name)).shape for name in _TRACED}
            zeros = partial(torch.zeros, device=self.device)
            self._traced = {name: zeros(self.substeps, *shape) for name, shape in shapes.items()}
            self._graphs.clear()  # they do not record
        return StateView(self.model, self._columns, *(self._traced[name].transpose(0, 1) for name in _TRACED))

    def view(self, qpos: Tensor, qvel: Tensor) -> StateView:
        return StateView(self.model, self._columns, qpos.to(self.qpos), qvel.to(self.qvel))

    def nominal(self, name: str) -> Tensor:
        if name in self._fields:
            return self._nominal[name].clone()
        return wp.to_torch(getattr(*self._owner(name)))[0].clone()

    def model_field(self, name: str) -> Tensor:
        if name not in self._fields:
            if name not in FREE_FIELDS and name not in inertia.SOURCES:
                valid = ", ".join(sorted(FREE_FIELDS.union(inertia.SOURCES)))
                raise ConfigError(
                    f"backend 'warp' has no {name!r} per world; take backend 'mujoco', or one of: {valid}"
                )
            self._expand(name)
            if name in inertia.SOURCES and self._inertia is None:
                self._inertia = inertia.InertiaConstants(self.model, self.device)
                for derived in inertia.DERIVED:
                    self._expand(derived)
        return self._fields[name]

    def apply_model(self, worlds: Tensor) -> None:
        if self._inertia is None or len(worlds) == 0:
            return
        sources = (
            self._fields[name][worlds] if name in self._fields else self.nominal(name).expand(len(worlds), *[-1] * dims)
            for name, dims in zip(inertia.SOURCES, (1, 2, 2, 1), strict=True)
        )
        for name, values in self._inertia(*sources).items():
            self._fields[name][worlds] = values.float()

    @property
    def any_failed(self) -> bool:
        return bool(self.failed.any())

    def set_state(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        self.write_state(worlds, qpos, qvel)

    def write_state(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        for name, view in self._state.items():
            view[worlds] = self._fresh[name]
        self.qpos[worlds] = qpos.to(self.qpos)
        self.qvel[worlds] = qvel.to(self.qvel)
        self._ctrl[worlds] = self.joint_pos[worlds]
        self.failed[worlds] = False
        self._overflow[worlds] = 0
        self._late[worlds] = True
        self._any_late = True

    def refresh(self, worlds: Tensor) -> None:
        """Nothing: whoever asks for outputs gets those that are due (`_late`)."""

    def step(self, ctrl: Tensor) -> None:
        self._check_overflow()
        self._plan.copy_(ctrl if ctrl.dim() == 2 else ctrl.transpose(0, 1))
        self._launch("period", self._period)
        self._all_on_time()
        # Read before the next step, when it has arrived.
        self._overflows_seen.copy_(self._overflows, non_blocking=True)

    def state_dict(self) -> dict[str, Tensor]:
        self._refresh_outputs()
        fields = {f"model/{name}": field for name, field in self._fields.items()}
        return {name: value.clone() for name, value in ({"failed": self.failed} | self._state | fields).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        own = {"failed": self.failed} | self._state | {f"model/{name}": v for name, v in self._fields.items()}
        expected = {name: tuple(value.shape) for name, value in own.items()}
        given = {name: tuple(value.shape) for name, value in state.items()}
        if given != expected:
            raise CheckpointError(f"physics state does not fit: expected {expected}, got {given}")
        for name, value in own.items():
            value.copy_(state[name])
        self._overflow.zero_()
        self._all_on_time()

    def snapshot(self, world: int) -> mujoco.MjData:
        """One world's state as an MjData of `model`, forwarded: to render, or to inspect."""
        data = mujoco.MjData(self.model)
        data.qpos[:] = self.qpos[world].cpu().numpy()
        data.qvel[:] = self.qvel[world].cpu().numpy()
        data.ctrl[:] = self._ctrl[world].cpu().numpy()
        mujoco.mj_forward(self.model, data)
        return data

    def _period(self) -> None:
        for step, ctrl in enumerate(self._plan):
            wp.copy(self._data.ctrl, wp.from_torch(ctrl))
            self._step(self._data, self.failed, self._overflows)
            for name, states in self._traced.items():
                if states.numel():
                    wp.copy(wp.from_torch(states[step]), getattr(self._data, name))

    def _step(self, data: mjw.Data, failed: Tensor, overflows: Tensor) -> None:
        mjw.step(self._model, data)
        note_failures(
            self._model,
            data,
            failed,
            overflows,
            max_speed=MAX_SPEED,
            world_overflow=WORLD_OVERFLOW,
            shared_overflow=SHARED_OVERFLOW,
        )

    def _launch(self, name: str, run: Callable[[], None]) -> None:
        """Replay what `run` launches, captured at the first call after a model field moved."""
        with wp.ScopedDevice(self._device):
            if name not in self._graphs:
                with wp.ScopedCapture() as capture:
                    run()
                assert capture.graph is not None
                self._graphs[name] = capture.graph
            on_cpu = self.device.type == "cpu"
            wp.capture_launch(self._graphs[name], None if on_cpu else wp.stream_from_torch(self.device))

    def _owner(self, name: str) -> tuple[object, str]:
        """Where Warp keeps a model field."""
        option = name.removeprefix("opt.")
        return (self._model, name) if option == name else (self._model.opt, option)

    def _expand(self, name: str) -> None:
        """Give each world its own values of a model field."""
        owner, attribute = self._owner(name)
        shared: wp.array = getattr(owner, attribute)
        nominal = wp.to_torch(shared)[0].clone()
        field = nominal.expand(self.num_worlds, *nominal.shape).contiguous()
        self._nominal[name], self._fields[name] = nominal, field
        wp.synchronize_device(self._device)  # a period that still runs reads the shared values
        if field.numel():
            setattr(owner, attribute, wp.from_torch(field, dtype=shared.dtype))
        self._graphs.clear()  # they go by the old arrays

    def _refresh_outputs(self) -> None:
        """Bring sensors and efforts up to date where they are late. The other worlds keep theirs, of before a step."""
        if not self._any_late:
            return
        before = {name: view.clone() for name, view in self._outputs.items()}
        self._launch("forward", lambda: mjw.forward(self._model, self._data))
        for name, view in self._outputs.items():
            view.copy_(torch.where(self._late.unsqueeze(1), view, before[name]))
        self._all_on_time()

    def _all_on_time(self) -> None:
        if self._any_late:
            self._late.zero_()
            self._any_late = False

    def _check_overflow(self) -> None:
        """Tell of room that did not suffice, which the device noted meanwhile."""
        overflows = int(self._overflows_seen)
        if not overflows:
            return
        kinds = [k for k in mjw.OverflowType if int(k).bit_count() == 1 and int(k) & overflows]
        names = ", ".join(str(k.name) for k in kinds)
        advice = (
            f'give the model <custom><numeric name="{CONTACTS}" data="{2 * self._contacts}"/></custom>: '
            f"it has room for {self._contacts} ({names})"
        )
        if overflows & SHARED_OVERFLOW:
            raise EnvError(f"contacts of {self.num_worlds} worlds did not fit into their buffer; {advice}")
        warnings.warn(f"a world had more constraints than fit and is started afresh; {advice}", stacklevel=3)
        self._overflows.zero_()


def _torch_device(device: str) -> torch.device:
    try:
        found = torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    if found.type not in ("cpu", "cuda"):
        raise ConfigError(f"backend 'warp' runs on cpu and cuda, not on {device!r}")
    return found


def _put_model(model: mujoco.MjModel) -> mjw.Model:
    """The model on the present device. Raises ConfigError for what MuJoCo Warp does not have."""
    if int(model.opt.enableflags) & int(mujoco.mjtEnableBit.mjENBL_SLEEP):
        raise ConfigError("backend 'warp' does not let bodies sleep; drop <flag sleep=.../>, or take backend 'mujoco'")
    if int(model.opt.solver) == int(mujoco.mjtSolver.mjSOL_PGS):
        raise ConfigError("MuJoCo Warp has no solver PGS; set <option solver=\"Newton\"/>, or take backend 'mujoco'")
    try:
        put = mjw.put_model(model)
    except (NotImplementedError, ValueError) as error:
        raise ConfigError(
            f"MuJoCo Warp cannot simulate this model: {str(error).rstrip('.')}; take it out of the model, or take "
            "backend 'mujoco'"
        ) from error
    # Without conditional nodes a captured solver makes all its iterations, whether or not it has converged.
    put.opt.graph_conditional = wp.get_device().is_cpu or wp.is_conditional_graph_supported()
    put.opt.warn_overflow = 0  # it would print from the device, in every step; `_check_overflow` tells once
    return put


def _capacity(model: mujoco.MjModel, pairs: int) -> tuple[int, int]:
    """Contacts and constraint rows to make room for in each world, of which `pairs` of geoms may touch."""
    asked = mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_NUMERIC), CONTACTS)
    if asked >= 0:
        touching = contacts = int(model.numeric_data[model.numeric_adr[asked]])
        if contacts < 1:
            raise ConfigError(f"numeric {CONTACTS} must be at least 1, got {contacts}")
    else:
        # A pair of flat geoms touches in several points; and any pair may come so near that it is looked at.
        touching = min(4 * pairs, 64)
        contacts = max(pairs, touching)
    condim = max([1, *(int(d) for d in model.geom_condim), *(int(d) for d in model.pair_dim)])
    elliptic = int(model.opt.cone) == int(mujoco.mjtCone.mjCONE_ELLIPTIC)
    rows_per_contact = condim if elliptic else max(1, 2 * (condim - 1))
    # A weld has six rows; every dof and tendon may have friction, and every joint and tendon a limit that is reached.
    others = 6 * model.neq + model.nv + model.njnt + 2 * model.ntendon
    return contacts, others + rows_per_contact * touching
