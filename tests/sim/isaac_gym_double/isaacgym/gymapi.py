# ruff: noqa: PT018
"""Structures and the Gym object. Attributes that the library does not have cannot be set."""

import numpy as np
import torch
from isaacgym.scene import Env

UP_AXIS_Z, SIM_PHYSX, DOMAIN_SIM, DOF_MODE_POS, GLOBAL_SPACE = 1, 1, 2, 1, 2
DOF_FIELDS = ("lower", "upper", "velocity", "effort", "stiffness", "damping", "friction", "armature")
DOF_DTYPE = np.dtype([("hasLimits", "?"), ("driveMode", "i4"), *((name, "f4") for name in DOF_FIELDS)])
CALLS: list[str] = []
"""Names of the Gym's methods, as they were called."""


def _structure(name: str, **defaults):
    """A class with these attributes only; a default that is a class makes one per object."""

    def init(self, *values, **named):
        given = dict(zip(defaults, values, strict=False)) | named
        for key, default in defaults.items():
            setattr(self, key, given.get(key, default() if isinstance(default, type) else default))

    return type(name, (), {"__slots__": tuple(defaults), "__init__": init})


Vec3 = _structure("Vec3", x=0.0, y=0.0, z=0.0)
Quat = _structure("Quat", x=0.0, y=0.0, z=0.0, w=1.0)
Mat33 = _structure("Mat33", x=Vec3, y=Vec3, z=Vec3)
Transform = _structure("Transform", p=Vec3, r=Quat)
PhysXParams = _structure(
    "PhysXParams", use_gpu=False, solver_type=1, num_position_iterations=4, num_velocity_iterations=1,
    contact_offset=0.02, rest_offset=0.001, bounce_threshold_velocity=0.2, max_depenetration_velocity=100.0,
    num_threads=0, max_gpu_contact_pairs=2**20, default_buffer_size_multiplier=2.0,
)  # fmt: skip
SimParams = _structure(
    "SimParams", dt=1 / 60, substeps=2, up_axis=0, gravity=Vec3, use_gpu_pipeline=False, physx=PhysXParams
)
PlaneParams = _structure(
    "PlaneParams", normal=Vec3, distance=0.0, static_friction=1.0, dynamic_friction=1.0, restitution=0.0
)
AssetOptions = _structure(
    "AssetOptions", fix_base_link=False, default_dof_drive_mode=0, collapse_fixed_joints=False, linear_damping=0.0,
    angular_damping=0.5, max_linear_velocity=1000.0, max_angular_velocity=64.0, disable_gravity=False, armature=0.0,
    density=1000.0, thickness=0.02,
)  # fmt: skip
RigidBodyProperties = _structure("RigidBodyProperties", mass=1.0, com=Vec3, inertia=Mat33, invMass=1.0, flags=0)
RigidShapeProperties = _structure("RigidShapeProperties", friction=1.0, filter=0, restitution=0.0, thickness=0.0)
IndexRange = _structure("IndexRange", start=0, count=0)


class Tensor:
    """A descriptor: where numbers are, and in what shape."""

    def __init__(self, data: torch.Tensor) -> None:
        self.data = data


class Asset:
    def __init__(self, path: str, options) -> None:
        import mujoco

        self.path, self.options = path, options
        self.model = mujoco.MjModel.from_xml_path(path)
        free = int(mujoco.mjtJoint.mjJNT_FREE)
        self.joints = [j for j in range(self.model.njnt) if int(self.model.jnt_type[j]) != free]
        assert (len(self.joints) == self.model.njnt) == options.fix_base_link, "a free joint, and a base that is fixed"
        assert not options.fix_base_link or not int(self.model.body_jntnum[1]), "a base that is fixed, and turns"


class Sim:
    def __init__(self, params) -> None:
        self.params = params
        self.gpu = params.use_gpu_pipeline
        self.ground = None
        self.envs: list[Env] = []
        self.actors: list[tuple[Env, int]] = []
        self.prepared = False
        self.waits_for_results = False
        self.set_since_simulate: set[str] = set()
        self.root = self.dof = self.force = self.body = self.contact = torch.zeros(0)


def acquire_gym():
    return Gym()


class Gym:
    """Every method notes its name in CALLS."""

    def __getattribute__(self, name):
        method = super().__getattribute__(name)
        if not name.startswith("_"):
            CALLS.append(name)
        return method

    # Building

    def create_sim(self, compute_device, graphics_device, engine, params):
        assert isinstance(compute_device, int) and isinstance(graphics_device, int) and engine == SIM_PHYSX
        assert isinstance(params, SimParams) and params.up_axis == UP_AXIS_Z
        assert params.use_gpu_pipeline == params.physx.use_gpu
        return Sim(params)

    def add_ground(self, sim, plane):
        assert isinstance(plane, PlaneParams) and not sim.prepared
        sim.ground = plane

    def load_asset(self, sim, root, file, options):
        assert not sim.prepared and isinstance(options, AssetOptions)
        return Asset(f"{root}/{file}", options)

    def get_asset_rigid_body_names(self, asset):
        return [asset.model.body(b).name for b in range(1, asset.model.nbody)]

    def get_asset_dof_names(self, asset):
        return [asset.model.joint(j).name for j in asset.joints]

    def get_asset_rigid_body_shape_indices(self, asset):
        counts = asset.model.body_geomnum[1:].tolist()
        return [IndexRange(sum(counts[:i]), n) for i, n in enumerate(counts)]

    def create_env(self, sim, lower, upper, per_row):
        assert not sim.prepared and isinstance(lower, Vec3) and isinstance(upper, Vec3) and isinstance(per_row, int)
        sim.envs.append(Env(sim))
        return sim.envs[-1]

    def create_actor(self, env, asset, pose, name, group, filter):
        assert not env.sim.prepared and isinstance(pose, Transform)
        assert group == env.sim.envs.index(env), "environments would feel each other"
        shapes = [RigidShapeProperties(friction=f) for f in asset.model.geom_friction[:, 0].tolist()]
        bodies = [RigidBodyProperties(mass=m) for m in asset.model.body_mass[1:].tolist()]
        dofs = np.zeros(len(asset.joints), DOF_DTYPE)
        dofs["hasLimits"] = asset.model.jnt_limited[asset.joints]
        dofs["lower"], dofs["upper"] = asset.model.jnt_range[asset.joints].T
        dofs["driveMode"] = asset.options.default_dof_drive_mode
        env.add(asset, pose, name, bodies, shapes, dofs)
        env.sim.actors.append((env, len(env.actors) - 1))
        return len(env.actors) - 1

    def enable_actor_dof_force_sensors(self, env, actor):
        env.actors[actor].reports_force = True

    def get_actor_index(self, env, actor, domain):
        assert domain == DOMAIN_SIM
        return env.sim.actors.index((env, actor))

    def get_actor_dof_index(self, env, actor, dof, domain):
        assert domain == DOMAIN_SIM and dof < len(env.actors[actor].dofs)
        return dof + sum(len(e.actors[a].dofs) for e, a in env.sim.actors[: env.sim.actors.index((env, actor))])

    def get_actor_rigid_body_index(self, env, actor, body, domain):
        assert domain == DOMAIN_SIM and body < len(env.actors[actor].bodies)
        return body + sum(len(e.actors[a].bodies) for e, a in env.sim.actors[: env.sim.actors.index((env, actor))])

    def prepare_sim(self, sim):
        assert not sim.prepared
        for env in sim.envs:
            env.build()
        sim.prepared = True
        dofs = sum(len(env.actors[a].dofs) for env, a in sim.actors)
        bodies = sum(len(env.actors[a].bodies) for env, a in sim.actors)
        sim.root, sim.dof, sim.force = torch.zeros(len(sim.actors), 13), torch.zeros(dofs, 2), torch.zeros(dofs)
        sim.body, sim.contact = torch.zeros(bodies, 13), torch.zeros(bodies, 3)
        return True

    # Properties

    def get_actor_rigid_body_properties(self, env, actor):
        return env.actors[actor].bodies

    def set_actor_rigid_body_properties(self, env, actor, properties, recomputeInertia=True):
        assert all(isinstance(p, RigidBodyProperties) and p.mass > 0 for p in properties) and not recomputeInertia
        env.actors[actor].bodies = list(properties)
        env.apply()
        return True

    def get_actor_rigid_shape_properties(self, env, actor):
        return env.actors[actor].shapes

    def set_actor_rigid_shape_properties(self, env, actor, properties):
        assert all(isinstance(p, RigidShapeProperties) and isinstance(p.filter, int) for p in properties)
        env.actors[actor].shapes = list(properties)
        env.apply()
        return True

    def get_actor_dof_properties(self, env, actor):
        return env.actors[actor].dofs.copy()

    def set_actor_dof_properties(self, env, actor, properties):
        assert properties.dtype == DOF_DTYPE and properties.shape == env.actors[actor].dofs.shape
        assert (properties["driveMode"] == DOF_MODE_POS).all()
        env.actors[actor].dofs = properties.copy()
        env.apply()
        return True

    # Tensors

    def acquire_actor_root_state_tensor(self, sim):
        assert sim.prepared
        return Tensor(sim.root)

    def acquire_dof_state_tensor(self, sim):
        assert sim.prepared
        return Tensor(sim.dof)

    def acquire_dof_force_tensor(self, sim):
        assert sim.prepared
        return Tensor(sim.force)

    def acquire_rigid_body_state_tensor(self, sim):
        assert sim.prepared
        return Tensor(sim.body)

    def acquire_net_contact_force_tensor(self, sim):
        assert sim.prepared
        return Tensor(sim.contact)

    def refresh_rigid_body_state_tensor(self, sim):
        assert sim.prepared and not sim.waits_for_results
        sim.body.copy_(torch.cat([env.body_states(a) for env, a in sim.actors]))
        return True

    def refresh_net_contact_force_tensor(self, sim):
        assert sim.prepared and not sim.waits_for_results
        sim.contact.copy_(torch.cat([env.contact_forces(a) for env, a in sim.actors]))
        return True

    def refresh_actor_root_state_tensor(self, sim):
        assert sim.prepared and not sim.waits_for_results
        sim.root.copy_(torch.stack([env.body_states(a)[0] for env, a in sim.actors]))
        return True

    def refresh_dof_state_tensor(self, sim):
        assert sim.prepared and not sim.waits_for_results
        sim.dof.copy_(torch.cat([env.dof_state(a) for env, a in sim.actors]))
        return True

    def refresh_dof_force_tensor(self, sim):
        assert sim.prepared and not sim.waits_for_results
        sim.force.copy_(torch.cat([env.dof_force(a) for env, a in sim.actors]))
        return True

    def set_actor_root_state_tensor_indexed(self, sim, state, indices, count):
        for env, actor in self._indexed("root", sim, state, sim.root, indices, count):
            assert not env.actors[actor].asset.options.fix_base_link, "what is fixed cannot be moved"
            env.set_root_state(actor, state.data[sim.actors.index((env, actor))])
        return True

    def set_dof_state_tensor_indexed(self, sim, state, indices, count):
        first = np.cumsum([0, *(len(env.actors[a].dofs) for env, a in sim.actors)])
        for env, actor in self._indexed("dof", sim, state, sim.dof, indices, count):
            at, n = int(first[sim.actors.index((env, actor))]), len(env.actors[actor].dofs)
            assert n, "an actor without joints"
            env.set_dof_state(actor, state.data[at : at + n])
        return True

    def set_dof_position_target_tensor(self, sim, targets):
        assert sim.prepared and targets.data.dtype == torch.float32 and targets.data.numel() == len(sim.force)
        start = 0
        for env, actor in sim.actors:
            n = len(env.actors[actor].dofs)
            env.set_targets(actor, targets.data.flatten()[start : start + n])
            start += n
        return True

    def apply_rigid_body_force_tensors(self, sim, forces, torques, space):
        assert sim.prepared and torques is None and space == GLOBAL_SPACE
        assert forces.data.dtype == torch.float32 and forces.data.shape == sim.contact.shape
        start = 0
        for env, actor in sim.actors:
            n = len(env.actors[actor].bodies)
            env.push(actor, forces.data[start : start + n])
            start += n
        return True

    def simulate(self, sim):
        assert sim.prepared and not sim.waits_for_results
        for env in sim.envs:
            env.step()
        sim.set_since_simulate.clear()
        sim.waits_for_results = not sim.gpu

    def fetch_results(self, sim, wait):
        assert wait
        sim.waits_for_results = False

    def _indexed(self, what, sim, state, own, indices, count):
        """Environments and actors that a setter is for."""
        ids = indices.data
        assert sim.prepared and not sim.waits_for_results
        assert state.data.dtype == torch.float32 and state.data.shape == own.shape
        assert state.data.device == own.device == ids.device
        assert ids.dtype == torch.int32 and ids.shape == (count,) and len(set(ids.tolist())) == count
        assert what not in sim.set_since_simulate, "of two calls in one step the last one would count"
        sim.set_since_simulate.add(what)
        return [sim.actors[i] for i in ids.tolist()]
