"""BatchSim on NVIDIA Isaac Gym, Preview 4: written against its documented tensor API, and never run on it.

What has been run is this module against a double of that API, which checks every call and moves the bodies with MuJoCo.

Isaac Gym runs in Python 3.6 to 3.8 only, and must be imported before torch. So it runs in a process of its own,
`isaac_gym_worker`, in the interpreter that ISAACGYM_PYTHON names; states, targets and properties pass through shared
memory. All tensors here are therefore on the CPU, whatever device PhysX runs on: ISAACGYM_DEVICE, or else cuda:0.

Conventions are translated here. Isaac Gym has quaternions xyzw, ours are wxyz; of a floating body it gives the velocity
of the centre of mass and the angular velocity in the world, ours are that of the body's origin and in the body's frame;
all worlds are in one scene, ours each have an origin of their own.

PhysX is not MuJoCo. It has no joint friction in N m, so `dof_frictionloss` has no effect; the friction of two surfaces
is their mean, not their maximum; the ground's is the same in all worlds; joint damping counts against the torque limit,
and is in `joint_effort`; its solver's inner state is not saved, so a restored run goes on alike, not bit for bit.
"""

from __future__ import annotations

import math
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import mujoco
import torch
from torch import Tensor

from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.networks.rotation import in_body, rotate
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends.addresses import free_joint_addresses, joint_addresses, state_columns
from robot_rl_sim.backends.batch_sim import MAX_SPEED
from robot_rl_sim.backends.isaac_gym_assets import (
    Actor,
    body_name,
    collision_filters,
    ground,
    joints_of,
    principal_to_body,
    shapes_of,
    split,
)
from robot_rl_sim.backends.isaac_gym_process import Connection, Process
from robot_rl_sim.backends.isaac_gym_sensors import readable
from robot_rl_sim.backends.state_view import StateView

FIELDS = (
    "body_mass", "body_inertia", "body_ipos", "geom_friction", "actuator_gainprm", "actuator_biasprm",
    "actuator_forcerange", "dof_damping", "dof_frictionloss", "dof_armature", "opt.gravity",
)  # fmt: skip
"""Model fields that may differ between worlds; `dof_frictionloss` without effect."""
_STATE = ("qpos", "qvel", "joint_effort", "failed")
UNLIMITED = 1e9
"""N m: a motor without a limit."""
SPACING_M = 4.0
"""Between the origins of worlds. They do not touch each other at any distance; overlapping, they would cost time."""


class IsaacGymSim:
    """See BatchSim. `physx` is the device that PhysX runs on: cpu, or cuda:0 and so on.

    Raises MissingDependencyError if there is no Isaac Gym, and ConfigError for a model that it cannot do.
    """

    stays = False

    def __init__(
        self,
        model: mujoco.MjModel,
        robot: RobotSpec,
        num_worlds: int,
        substeps: int,
        physx: str | None = None,
        connect: Callable[[dict[str, Any]], Connection] | None = None,
    ) -> None:
        """`connect` starts the worker with its configuration; by default in a process."""
        if num_worlds < 1 or substeps < 1:
            raise ConfigError(f"num_worlds and substeps must be at least 1, got {num_worlds}, {substeps}")
        self.num_worlds = num_worlds
        self.substeps = substeps
        self.device = torch.device("cpu")
        self.model = model
        n = len(robot.joints)
        self._joint_names = robot.joint_names
        first_qpos, self._first_dof = joint_addresses(model, robot)
        self.qpos = torch.from_numpy(model.qpos0).float().repeat(num_worlds, 1)
        self.qvel = torch.zeros(num_worlds, model.nv)
        joints = (slice(first_qpos, first_qpos + n), slice(self._first_dof, self._first_dof + n))
        self._columns = state_columns(model, joints)
        self.joint_pos, self.joint_vel = self.qpos[:, joints[0]], self.qvel[:, joints[1]]
        self.joint_effort = torch.zeros(num_worlds, n)
        self.failed = torch.zeros(num_worlds, dtype=torch.bool)
        self._fields: dict[str, Tensor] = {}
        # Worlds whose state is not what the last step left: what was written to them goes to PhysX with the next.
        self._seen = (self.qpos.clone(), self.qvel.clone())
        self._written = torch.ones(num_worlds, dtype=torch.bool)

        actors = split(model)
        if model.njnt != n + sum(a.free for a in actors):
            raise ConfigError(f"the Isaac Gym backend cannot do joints that are not of robot {robot.name!r}")
        self._free = [(i, a.root, *free_joint_addresses(model, a.name)) for i, a in enumerate(actors) if a.free]
        self._bodies = [body for actor in actors for body in actor.bodies]
        self._geoms = [g for body in self._bodies for g in shapes_of(model, body)]
        self._principal = torch.from_numpy(principal_to_body(model))[self._bodies]
        self._origins = _grid(num_worlds)
        self._sensors = readable(model)
        self._watched = sorted({sensor.body for sensor in self._sensors.values() if sensor.body in self._bodies})
        self._readings: dict[str, Tensor] = {}
        if model.dof_frictionloss.any():
            _warn_of_frictionloss()

        self._files = tempfile.TemporaryDirectory(prefix="robot-rl-isaacgym-")
        config = self._configuration(actors, physx or os.environ.get("ISAACGYM_DEVICE", "cuda:0"))
        self._connection = (connect or Process)(config)
        self._arrays = {name: torch.from_numpy(array) for name, array in self._connection.arrays.items()}
        self._write_properties(torch.arange(num_worlds))
        self._connection.request("start", [])

    def free_joint(self, body: str) -> tuple[Tensor, Tensor]:
        qpos, dof = free_joint_addresses(self.model, body)
        return self.qpos[:, qpos : qpos + 7], self.qvel[:, dof : dof + 6]

    def sensor(self, name: str) -> Tensor:
        valid = ", ".join(n for n, sensor in self._sensors.items() if sensor.body in self._watched)
        if name not in valid.split(", "):
            raise ConfigError(f"the Isaac Gym backend cannot read sensor {name!r}; it can: {valid or 'none'}")
        if name not in self._readings:
            self._readings[name] = torch.zeros(self.num_worlds, int(self.model.sensor(name).dim[0]))
            self._read_sensors()
            self._read_at_start(self._written.nonzero().squeeze(-1))
        return self._readings[name]

    def trace(self) -> StateView:
        raise ConfigError("the Isaac Gym backend does not tell of single physics steps, so sensors cannot be late")

    def view(self, qpos: Tensor, qvel: Tensor) -> StateView:
        return StateView(self.model, self._columns, qpos.to(self.qpos), qvel.to(self.qvel))

    def nominal(self, name: str) -> Tensor:
        return torch.from_numpy(attrgetter(name)(self.model).copy())  # such as opt.gravity

    def model_field(self, name: str) -> Tensor:
        if name not in FIELDS:
            raise ConfigError(f"Isaac Gym cannot change {name!r} per world; valid: {', '.join(FIELDS)}")
        if name == "dof_frictionloss":
            _warn_of_frictionloss()
        if name not in self._fields:
            nominal = self.nominal(name)
            self._fields[name] = nominal.expand(self.num_worlds, *nominal.shape).clone()
        return self._fields[name]

    def apply_model(self, worlds: Tensor) -> None:
        self._write_properties(worlds)
        self._connection.request("properties", worlds.tolist())

    @property
    def any_failed(self) -> bool:
        return bool(self.failed.any())

    def set_state(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        self.write_state(worlds, qpos, qvel)
        self.refresh(worlds)

    def write_state(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        self.qpos[worlds] = qpos.to(self.qpos)
        self.qvel[worlds] = qvel.to(self.qvel)
        self.joint_effort[worlds] = 0.0
        self.failed[worlds] = False
        self._written[worlds] = True

    def refresh(self, worlds: Tensor) -> None:
        self._read_at_start(worlds)

    def step(self, ctrl: Tensor) -> None:
        per_step = ctrl if ctrl.dim() == 3 else ctrl.unsqueeze(1)
        self._arrays["target"].copy_(per_step.transpose(0, 1).expand(self.substeps, -1, -1))
        for seen, now in zip(self._seen, (self.qpos, self.qvel), strict=True):
            self._written |= (seen != now).any(1)
        sound = self._sound()
        worlds = (self._written & sound).nonzero().squeeze(-1)  # what is not finite would not leave PhysX again
        self._write_states(worlds)
        self._connection.request("step", worlds.tolist())
        self._read_states()
        self._written.zero_()
        self.failed |= ~(sound & self._sound())

    def state_dict(self) -> dict[str, Tensor]:
        fields = {f"model/{name}": field.clone() for name, field in self._fields.items()}
        return {name: getattr(self, name).clone() for name in _STATE} | fields

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        expected = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        given = {name: tuple(value.shape) for name, value in state.items()}
        if given != expected:
            raise CheckpointError(f"physics state does not fit: expected {expected}, got {given}")
        for name, field in self._fields.items():
            field.copy_(state[f"model/{name}"])
        everyone = torch.arange(self.num_worlds)
        if self._fields:
            self.apply_model(everyone)
        for name in _STATE:
            getattr(self, name).copy_(state[name])
        self._written.fill_(True)
        self._read_at_start(everyone)

    def snapshot(self, world: int) -> mujoco.MjData:
        """One world's state as an MjData of `model`, forwarded: to render, or to inspect."""
        data = mujoco.MjData(self.model)
        data.qpos[:], data.qvel[:] = self.qpos[world].numpy(), self.qvel[world].numpy()
        data.ctrl[:] = self.joint_pos[world].numpy()
        mujoco.mj_forward(self.model, data)
        return data

    def _sound(self) -> Tensor:
        """(n,) bool: finite, and not beyond what can be. Written so that NaN is not."""
        return (self.qpos.abs() < mujoco.mjMAXVAL).all(1) & (self.qvel.abs() < MAX_SPEED).all(1)

    def _configuration(self, actors: list[Actor], physx: str) -> dict[str, Any]:
        """What the worker needs to build the scene; the MJCF files are written."""
        model, filters = self.model, collision_filters(self.model)
        folder = Path(self._files.name)
        described, owner = [], {}
        for i, actor in enumerate(actors):
            (folder / f"actor{i}.xml").write_text(actor.mjcf)
            w, *xyz = model.body_quat[actor.root].tolist()
            moving = actor.bodies[1:] if actor.free else actor.bodies
            joints = [model.joint(j).name for body in moving for j in joints_of(model, body)]
            owner |= dict.fromkeys(joints, i)
            described.append({
                "name": actor.name, "file": f"actor{i}.xml", "free": actor.free, "joints": joints,
                "pos": model.body_pos[actor.root].tolist(), "quat_xyzw": [*xyz, w],
                "bodies": [body_name(model, b) for b in actor.bodies],
                "shapes": [len(shapes_of(model, b)) for b in actor.bodies],
            })  # fmt: skip
        sizes = {
            "worlds": self.num_worlds, "substeps": self.substeps, "actors": len(actors),
            "dofs": self.joint_pos.shape[1], "bodies": len(self._bodies), "shapes": len(self._geoms),
            "watched": len(self._watched),
        }  # fmt: skip
        return {
            "device": physx, "dt": float(model.opt.timestep), "gravity": model.opt.gravity.tolist(),
            "ground_friction": ground(model), "max_speed": MAX_SPEED, "folder": str(folder),
            "shared": str(folder / "shared"), "sizes": sizes, "actors": described,
            "origins": self._origins.tolist(), "filters": filters[self._geoms].tolist(),
            "joints": [[owner[name], name] for name in self._joint_names],
            "watched": [self._bodies.index(body) for body in self._watched],
        }  # fmt: skip

    def _write_properties(self, worlds: Tensor) -> None:
        def values(name: str) -> Tensor:
            nominal = self.nominal(name)
            given = self._fields.get(name)
            return nominal.expand(len(worlds), *nominal.shape) if given is None else given[worlds]

        gain, bias = values("actuator_gainprm")[..., 0], values("actuator_biasprm")
        if not torch.allclose(gain, -bias[..., 1]) or bias[..., 0].any():
            raise ConfigError(
                "Isaac Gym's drives are PD servos, whose actuator_gainprm is kp and actuator_biasprm (0, -kp, -kd): of "
                "the motor models, the ideal one"
            )
        dofs = slice(self._first_dof, self._first_dof + gain.shape[1])
        mass = values("body_mass")[:, self._bodies]
        empty = (mass == 0).double()  # the world, and frames without substance, get some: see the assets
        inertia = torch.diag_embed(values("body_inertia")[:, self._bodies] + empty.unsqueeze(-1))
        limited = self.nominal("actuator_forcelimited").bool()
        effort = torch.where(limited, values("actuator_forcerange")[..., 1], UNLIMITED)
        written = {
            "stiffness": gain,
            "damping": values("dof_damping")[:, dofs] - bias[..., 2],
            "armature": values("dof_armature")[:, dofs],
            "effort": effort,
            "gravity": values("opt.gravity") - self.nominal("opt.gravity"),
            "mass": mass + empty,
            "com": values("body_ipos")[:, self._bodies],
            "inertia": self._principal @ inertia @ self._principal.mT,
            "friction": values("geom_friction")[:, self._geoms, 0],
        }
        for name, value in written.items():
            self._arrays[name][worlds] = value.float()

    def _com(self, worlds: Tensor, body: int) -> Tensor:
        """Centre of mass (k, 3) of a body in its own frame."""
        if "body_ipos" in self._fields:
            return self._fields["body_ipos"][worlds, body].float()
        return self.nominal("body_ipos")[body].float().expand(len(worlds), 3)

    def _write_states(self, worlds: Tensor) -> None:
        for i, body, q, v in self._free:
            pose, velocity = self.qpos[worlds, q : q + 7], self.qvel[worlds, v : v + 6]
            quat = torch.nn.functional.normalize(pose[:, 3:], dim=-1)
            spin = rotate(velocity[:, 3:], quat)
            lever = rotate(self._com(worlds, body), quat)
            linear = velocity[:, :3] + torch.linalg.cross(spin, lever)
            position = pose[:, :3] + self._origins[worlds]
            self._arrays["root"][worlds, i] = torch.cat((position, quat.roll(-1, 1), linear, spin), dim=1)
        dofs = torch.stack((self.joint_pos[worlds], self.joint_vel[worlds]), dim=-1)
        self._arrays["dof"][worlds] = dofs

    def _read_sensors(self) -> None:
        everyone = torch.arange(self.num_worlds)
        gravity = self._fields.get("opt.gravity", self.nominal("opt.gravity").expand(self.num_worlds, 3)).float()
        for name, reading in self._readings.items():
            sensor = self._sensors[name]
            before, after = self._arrays["watched"][:, self._watched.index(sensor.body)].unbind(1)
            before = torch.cat((before[:, :3] - self._origins, before[:, 3:]), dim=1)
            com = self._com(everyone, sensor.body)
            reading.copy_(sensor.read(before, after, com, gravity, self.model.opt.timestep))

    def _read_at_start(self, worlds: Tensor) -> None:
        """Sensors of worlds that have not moved yet, whose bodies Isaac Gym has not moved yet: by MuJoCo."""
        for world in worlds.tolist() if self._readings else ():
            data = self.snapshot(world)
            for name, reading in self._readings.items():
                at = self._sensors[name].address
                reading[world] = torch.from_numpy(data.sensordata[at : at + reading.shape[1]])

    def _read_states(self) -> None:
        everyone = torch.arange(self.num_worlds)
        for i, body, q, v in self._free:
            position, xyzw, linear, spin = self._arrays["root"][:, i].split((3, 4, 3, 3), dim=1)
            quat = xyzw.roll(1, 1)
            lever = rotate(self._com(everyone, body), quat)
            self.qpos[:, q : q + 7] = torch.cat((position - self._origins, quat), dim=1)
            self.qvel[:, v : v + 3] = linear - torch.linalg.cross(spin, lever)
            self.qvel[:, v + 3 : v + 6] = in_body(spin, quat)
        self.joint_pos.copy_(self._arrays["dof"][..., 0])
        self.joint_vel.copy_(self._arrays["dof"][..., 1])
        self.joint_effort.copy_(self._arrays["force"])
        self._read_sensors()
        for seen, now in zip(self._seen, (self.qpos, self.qvel), strict=True):
            seen.copy_(now)


def _warn_of_frictionloss() -> None:
    warnings.warn("Isaac Gym has no joint friction in N m: frictionloss is left out", stacklevel=3)


def _grid(n: int) -> Tensor:
    """Origins (n, 3) of the worlds in a square around 0, where single precision is finest, m."""
    side = math.ceil(math.sqrt(n))
    i, middle = torch.arange(n), (side - 1) / 2
    return SPACING_M * torch.stack((i % side - middle, i // side - middle, torch.zeros(n)), dim=1)
