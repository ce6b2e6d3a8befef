# ruff: noqa: PT018
"""One environment of the double: its actors in a MuJoCo model, seen through Isaac Gym's conventions."""

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch


@dataclass(eq=False)
class Actor:
    asset: Any
    pose: Any
    prefix: str
    bodies: list
    shapes: list
    dofs: np.ndarray
    reports_force: bool = False


class Env:
    def __init__(self, sim) -> None:
        self.sim = sim
        self.actors: list[Actor] = []
        self.model: Any = None
        self.data: Any = None

    def add(self, asset, pose, name, bodies, shapes, dofs) -> None:
        self.actors.append(Actor(asset, pose, f"{len(self.actors)}:{name}:", bodies, shapes, dofs))

    def build(self) -> None:
        """The actors, each from its own file, in one MuJoCo model."""
        spec = mujoco.MjSpec()
        spec.option.timestep = self.sim.params.dt
        spec.option.gravity = _xyz(self.sim.params.gravity)
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        # Where MuJoCo would start afresh, PhysX goes on with NaN.
        spec.option.disableflags = int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        if self.sim.ground is not None:
            assert self.sim.ground.distance == 0 and _xyz(self.sim.ground.normal) == [0, 0, 1]
            friction = [self.sim.ground.static_friction, 0.005, 0.0001]
            spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], friction=friction)
        for actor in self.actors:
            asset = mujoco.MjSpec.from_file(actor.asset.path)
            rotation = actor.pose.r
            frame = spec.worldbody.add_frame(
                pos=_xyz(actor.pose.p), quat=[rotation.w, rotation.x, rotation.y, rotation.z]
            )
            frame.attach_body(asset.worldbody.first_body(), actor.prefix, "")
            for joint in self._joint_names(actor):
                servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
                servo.set_to_position(kp=1.0, kv=1.0)
                servo.forcelimited = True
                servo.forcerange = (-1.0, 1.0)
        self._exclude(spec)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.apply()

    def apply(self) -> None:
        """Properties as they are now, into the model."""
        if self.model is None:
            return
        for actor in self.actors:
            for name, body in zip(self._body_names(actor), actor.bodies, strict=True):
                self._apply_body(self.model.body(name).id, body)
            geoms = [g for name in self._body_names(actor) for g in self._geoms(name)]
            self.model.geom_friction[geoms, 0] = [shape.friction for shape in actor.shapes]
            for name, dof in zip(self._joint_names(actor), actor.dofs, strict=True):
                servo = self.model.actuator(name).id
                self.model.actuator_gainprm[servo, 0] = dof["stiffness"]
                self.model.actuator_biasprm[servo, 1:3] = -dof["stiffness"], -dof["damping"]
                self.model.actuator_forcerange[servo] = -dof["effort"], dof["effort"]
                self.model.dof_armature[self.model.joint(name).dofadr[0]] = dof["armature"]
        scratch = mujoco.MjData(self.model)
        mujoco.mj_setConst(self.model, scratch)

    def step(self) -> None:
        mujoco.mj_step(self.model, self.data)
        for values in (self.data.qpos, self.data.qvel):
            values[:] = values.astype(np.float32)  # which is all that PhysX keeps
        self.data.xfrc_applied[:] = 0  # forces are for one step

    def body_states(self, actor: int) -> torch.Tensor:
        """(bodies, 13): position, xyzw, velocity of the centre of mass and angular velocity, in the world."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_comVel(self.model, self.data)
        states = []
        for body in self._body_ids(actor):
            w, x, y, z = self.data.xquat[body]
            twist = np.zeros(6)  # rotation first; mjOBJ_BODY is the frame at the centre of mass
            mujoco.mj_objectVelocity(self.model, self.data, mujoco.mjtObj.mjOBJ_BODY, body, twist, 0)
            states.append([*self.data.xpos[body], x, y, z, w, *twist[3:], *twist[:3]])
        return torch.tensor(states, dtype=torch.float32)

    def contact_forces(self, actor: int) -> torch.Tensor:
        """(bodies, 3) N on each body, as the solver found them in the last step."""
        force, wrench = np.zeros((self.model.nbody, 3)), np.zeros(6)
        for i, contact in enumerate(self.data.contact):
            mujoco.mj_contactForce(self.model, self.data, i, wrench)
            # From the first geom to the second, in the contact's frame.
            world = contact.frame.reshape(3, 3).T @ wrench[:3]
            for sign, geom in zip((-1, 1), contact.geom, strict=True):
                force[self.model.geom_bodyid[geom]] += sign * world
        return torch.from_numpy(force[self._body_ids(actor)]).float()

    def push(self, actor: int, forces: torch.Tensor) -> None:
        self.data.xfrc_applied[self._body_ids(actor), :3] = forces.double().numpy()

    def set_root_state(self, actor: int, state: torch.Tensor) -> None:
        body = self._body_ids(actor)[0]
        joint = int(self.model.body_jntadr[body])
        at, dof = int(self.model.jnt_qposadr[joint]), int(self.model.jnt_dofadr[joint])
        x, y, z, w = state[3:7].double().tolist()
        self.data.qpos[at : at + 7] = [*state[:3].double().tolist(), w, x, y, z]
        self.data.qvel[dof : dof + 6] = 0
        mujoco.mj_kinematics(self.model, self.data)
        linear, angular = state[7:10].double().numpy(), state[10:].double().numpy()
        to_origin = self.data.xpos[body] - self.data.xipos[body]
        self.data.qvel[dof : dof + 3] = linear + np.cross(angular, to_origin)
        self.data.qvel[dof + 3 : dof + 6] = self.data.xmat[body].reshape(3, 3).T @ angular

    def dof_state(self, actor: int) -> torch.Tensor:
        qpos, dofs = self._joint_addresses(actor)
        return torch.from_numpy(np.stack((self.data.qpos[qpos], self.data.qvel[dofs]), axis=-1)).float()

    def set_dof_state(self, actor: int, state: torch.Tensor) -> None:
        qpos, dofs = self._joint_addresses(actor)
        self.data.qpos[qpos], self.data.qvel[dofs] = state.double().numpy().T

    def dof_force(self, actor: int) -> torch.Tensor:
        servos = [self.model.actuator(name).id for name in self._joint_names(self.actors[actor])]
        force = torch.from_numpy(self.data.actuator_force[servos]).float()
        return force if self.actors[actor].reports_force else torch.zeros_like(force)

    def set_targets(self, actor: int, targets: torch.Tensor) -> None:
        for name, target in zip(self._joint_names(self.actors[actor]), targets.tolist(), strict=True):
            self.data.ctrl[self.model.actuator(name).id] = target

    def _exclude(self, spec) -> None:
        """Shapes that share a bit of their filters do not collide. Only whole bodies can be told so here."""
        bodies = [(name, {s.filter for s in shapes}) for a in self.actors for name, shapes in self._body_shapes(a)]
        for i, (first, filters) in enumerate(bodies):
            for second, others in bodies[:i]:
                shared = {bool(a & b) for a in filters for b in others}
                assert len(shared) < 2, f"of {first} and {second} some shapes collide and some do not"
                if True in shared:
                    spec.add_exclude(bodyname1=first, bodyname2=second)

    def _apply_body(self, body: int, properties) -> None:
        rows = (properties.inertia.x, properties.inertia.y, properties.inertia.z)
        inertia = np.array([_xyz(row) for row in rows])
        np.testing.assert_allclose(inertia, inertia.T, atol=1e-7 * inertia.max())
        values, axes = np.linalg.eigh(inertia)
        axes[:, 2] *= np.linalg.det(axes)
        self.model.body_mass[body] = properties.mass
        self.model.body_ipos[body] = _xyz(properties.com)
        self.model.body_inertia[body] = values
        mujoco.mju_mat2Quat(self.model.body_iquat[body], axes.flatten())

    def _body_ids(self, actor: int) -> list[int]:
        return [self.model.body(name).id for name in self._body_names(self.actors[actor])]

    def _joint_addresses(self, actor: int) -> tuple[list[int], list[int]]:
        joints = [self.model.joint(name) for name in self._joint_names(self.actors[actor])]
        return [int(j.qposadr[0]) for j in joints], [int(j.dofadr[0]) for j in joints]

    def _joint_names(self, actor: Actor) -> list[str]:
        return [actor.prefix + actor.asset.model.joint(j).name for j in actor.asset.joints]

    def _body_names(self, actor: Actor) -> list[str]:
        return [actor.prefix + actor.asset.model.body(b).name for b in range(1, actor.asset.model.nbody)]

    def _body_shapes(self, actor: Actor) -> list[tuple[str, list]]:
        model, found = actor.asset.model, []
        for body, name in enumerate(self._body_names(actor), start=1):
            first = int(model.body_geomadr[body])
            found.append((name, actor.shapes[first : first + int(model.body_geomnum[body])] if first >= 0 else []))
        return found

    def _geoms(self, body: str) -> list[int]:
        at, count = int(self.model.body(body).geomadr[0]), int(self.model.body(body).geomnum[0])
        return list(range(at, at + count))


def _xyz(vector) -> list[float]:
    return [vector.x, vector.y, vector.z]
