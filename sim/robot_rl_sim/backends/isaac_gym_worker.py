# ruff: noqa: B905 (Python 3.6)
"""Isaac Gym's side of IsaacGymSim: a process in the Python that NVIDIA's library runs in, 3.6 to 3.8.

It imports only isaacgym, numpy and torch, and nothing of this project. It knows no convention but Isaac Gym's own: what
is in the shared arrays is what the tensor API takes and gives. Requests come as lines of JSON; the answer to each is a
line, "done" or what went wrong.

Run as: python isaac_gym_worker.py SOCKET_FD CONFIG_FILE
"""

import importlib
import json
import mmap
import socket
import sys

import numpy as np

# Array -> its shape, from the sizes in the configuration. All are float32, one behind the other in the shared file.
# root: position, quaternion (xyzw), linear velocity of the centre of mass, angular velocity, all in the world.
# watched: the same of some bodies and the force of contacts on them, before and after the last physics step.
# gravity: what a world has more than the scene.
ARRAYS = {
    "root": ("worlds", "actors", 13),
    "dof": ("worlds", "dofs", 2),
    "force": ("worlds", "dofs"),
    "target": ("substeps", "worlds", "dofs"),
    "watched": ("worlds", "watched", 2, 16),
    "stiffness": ("worlds", "dofs"),
    "damping": ("worlds", "dofs"),
    "armature": ("worlds", "dofs"),
    "effort": ("worlds", "dofs"),
    "gravity": ("worlds", 3),
    "mass": ("worlds", "bodies"),
    "com": ("worlds", "bodies", 3),
    "inertia": ("worlds", "bodies", 3, 3),
    "friction": ("worlds", "shapes"),
}


def shared_arrays(path, sizes):
    """Name -> array in the shared file at `path`, which both processes map."""
    shapes = {name: tuple(sizes.get(s, s) for s in shape) for name, shape in ARRAYS.items()}
    lengths = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    with open(path, "r+b") as file:
        file.truncate(max(4 * sum(lengths.values()), 1))
        memory = np.frombuffer(mmap.mmap(file.fileno(), 0), np.float32)
    arrays, start = {}, 0
    for name, shape in shapes.items():
        arrays[name] = memory[start : start + lengths[name]].reshape(shape)
        start += lengths[name]
    return arrays


class Worlds:
    """The simulation. `config` is what IsaacGymSim says of it; `arrays` are the shared ones."""

    def __init__(self, config, arrays):
        # Isaac Gym refuses to be imported after torch.
        self.gymapi = importlib.import_module("isaacgym.gymapi")
        self.gymtorch = importlib.import_module("isaacgym.gymtorch")
        self.torch = importlib.import_module("torch")
        self.config = config
        self.arrays = arrays
        self.gpu = config["device"] != "cpu"
        self.gym = self.gymapi.acquire_gym()
        self.sim = self._create_sim()
        self.assets = [self._load(actor) for actor in config["actors"]]
        self.places = [self._places(actor, asset) for actor, asset in zip(config["actors"], self.assets)]
        self.worlds = [self._create_world(i) for i in range(config["sizes"]["worlds"])]
        self.device = None
        self.set_properties(range(len(self.worlds)))
        self.gym.prepare_sim(self.sim)
        self._acquire_tensors()

    def step(self, worlds):
        """Write the states of `worlds` from the arrays, make one control period, and read all states back."""
        if worlds:
            self._write_states(worlds)
        targets = self.torch.from_numpy(self.arrays["target"]).to(self.device)
        for i, target in enumerate(targets.unbind()):
            self.target[self.dof_ids.flatten()] = target.flatten()
            self.gym.set_dof_position_target_tensor(self.sim, self.gymtorch.unwrap_tensor(self.target))
            if self.weight is not None:
                self.gym.apply_rigid_body_force_tensors(
                    self.sim, self.gymtorch.unwrap_tensor(self.weight), None, self.gymapi.GLOBAL_SPACE
                )
            if i == len(targets) - 1:
                self._watch(0)
            self.gym.simulate(self.sim)
            if not self.gpu:
                self.gym.fetch_results(self.sim, True)
        self._watch(1)
        self.gym.refresh_actor_root_state_tensor(self.sim)
        self.gym.refresh_dof_state_tensor(self.sim)
        self.gym.refresh_dof_force_tensor(self.sim)
        self.arrays["root"][...] = self.root[self.actor_ids].cpu().numpy()
        self.arrays["dof"][...] = self.dof[self.dof_ids].cpu().numpy()
        self.arrays["force"][...] = self.force[self.dof_ids].cpu().numpy()

    def set_properties(self, worlds):
        """Masses, inertia, friction, gains and gravity of `worlds`, from the arrays."""
        for i in worlds:
            env, handles = self.worlds[i]
            body = shape = 0
            for actor, (place, handle) in enumerate(zip(self.places, handles)):
                bodies = self.gym.get_actor_rigid_body_properties(env, handle)
                for at in place["bodies"]:
                    self._set_body(bodies[at], i, body)
                    body += 1
                # Nothing is to be derived: the inertia is given.
                self.gym.set_actor_rigid_body_properties(env, handle, bodies, False)
                shapes = self.gym.get_actor_rigid_shape_properties(env, handle)
                for at in place["shapes"]:
                    shapes[at].friction = float(self.arrays["friction"][i, shape])
                    shapes[at].filter = self.config["filters"][shape]
                    shape += 1
                self.gym.set_actor_rigid_shape_properties(env, handle, shapes)
                columns = [k for k, (owner, _) in enumerate(self.config["joints"]) if owner == actor]
                if columns:
                    self._set_dofs(env, handle, place, i, columns)
        if self.device is not None:
            self._set_weight()

    def _create_sim(self):
        gymapi, params = self.gymapi, self.gymapi.SimParams()
        params.dt = self.config["dt"]
        params.substeps = 1
        params.up_axis = gymapi.UP_AXIS_Z
        params.gravity = gymapi.Vec3(*self.config["gravity"])
        params.use_gpu_pipeline = self.gpu
        params.physx.use_gpu = self.gpu
        params.physx.solver_type = 1
        params.physx.num_position_iterations = 8
        params.physx.num_velocity_iterations = 1
        params.physx.contact_offset = 0.002
        params.physx.rest_offset = 0.0
        # What thousands of humanoids need; the defaults overflow, and contacts are lost.
        params.physx.max_gpu_contact_pairs = 2**23
        params.physx.default_buffer_size_multiplier = 5
        index = int(self.config["device"].partition(":")[2] or 0)
        sim = self.gym.create_sim(index, -1, gymapi.SIM_PHYSX, params)  # -1: no graphics
        if sim is None:
            raise RuntimeError("Isaac Gym could not create a simulation on " + self.config["device"])
        if self.config["ground_friction"] is not None:
            plane = gymapi.PlaneParams()
            plane.normal = gymapi.Vec3(0.0, 0.0, 1.0)
            plane.distance = 0.0
            plane.static_friction = plane.dynamic_friction = self.config["ground_friction"]
            self.gym.add_ground(sim, plane)
        return sim

    def _load(self, actor):
        options = self.gymapi.AssetOptions()
        options.fix_base_link = not actor["free"]
        options.default_dof_drive_mode = int(self.gymapi.DOF_MODE_POS)
        options.collapse_fixed_joints = False
        options.linear_damping = options.angular_damping = 0.0
        options.max_linear_velocity = options.max_angular_velocity = self.config["max_speed"]
        return self.gym.load_asset(self.sim, self.config["folder"], actor["file"], options)

    def _places(self, actor, asset):
        """Where Isaac Gym has the bodies, shapes and joints of an actor, in the order of its file."""
        bodies = list(self.gym.get_asset_rigid_body_names(asset))
        joints = list(self.gym.get_asset_dof_names(asset))
        ranges = self.gym.get_asset_rigid_body_shape_indices(asset)
        missing = [name for name in actor["bodies"] if name not in bodies]
        missing += [name for name in actor["joints"] if name not in joints]
        if missing or len(joints) != len(actor["joints"]):
            raise RuntimeError("of {} Isaac Gym has bodies {} and joints {}".format(actor["name"], bodies, joints))
        body_at = [bodies.index(name) for name in actor["bodies"]]
        counts = [ranges[at].count for at in body_at]
        if counts != actor["shapes"]:
            raise RuntimeError("of {} Isaac Gym has {} shapes per body".format(actor["name"], counts))
        shape_at = [ranges[at].start + k for at in body_at for k in range(ranges[at].count)]
        return {"bodies": body_at, "shapes": shape_at, "joints": {name: i for i, name in enumerate(joints)}}

    def _create_world(self, i):
        """Environment i: all at their places around its origin, seen by no other environment."""
        gymapi, zero = self.gymapi, self.gymapi.Vec3(0.0, 0.0, 0.0)
        env = self.gym.create_env(self.sim, zero, zero, max(int(len(self.config["origins"]) ** 0.5), 1))
        handles = []
        for actor, asset in zip(self.config["actors"], self.assets):
            pose = gymapi.Transform()
            pose.p = gymapi.Vec3(*[p + o for p, o in zip(actor["pos"], self.config["origins"][i])])
            pose.r = gymapi.Quat(*actor["quat_xyzw"])
            handles.append(self.gym.create_actor(env, asset, pose, actor["name"], i, 0))
            if actor["joints"]:
                self.gym.enable_actor_dof_force_sensors(env, handles[-1])
        return env, handles

    def _set_body(self, properties, world, body):
        vec3 = self.gymapi.Vec3
        properties.mass = float(self.arrays["mass"][world, body])
        properties.com = vec3(*self.arrays["com"][world, body].tolist())
        inertia = self.gymapi.Mat33()
        inertia.x, inertia.y, inertia.z = (vec3(*row) for row in self.arrays["inertia"][world, body].tolist())
        properties.inertia = inertia

    def _set_dofs(self, env, handle, place, world, columns):
        """Position drives of an actor's joints, which are `columns` of the arrays."""
        dofs = self.gym.get_actor_dof_properties(env, handle)
        dofs["driveMode"].fill(self.gymapi.DOF_MODE_POS)
        dofs["velocity"].fill(self.config["max_speed"])
        dofs["friction"].fill(0.0)
        at = [place["joints"][self.config["joints"][k][1]] for k in columns]
        for name in ("stiffness", "damping", "armature", "effort"):
            dofs[name][at] = self.arrays[name][world, columns]
        self.gym.set_actor_dof_properties(env, handle, dofs)

    def _acquire_tensors(self):
        gym, sim, wrap, domain = self.gym, self.sim, self.gymtorch.wrap_tensor, self.gymapi.DOMAIN_SIM
        self.root = wrap(gym.acquire_actor_root_state_tensor(sim))
        self.dof = wrap(gym.acquire_dof_state_tensor(sim))
        self.force = wrap(gym.acquire_dof_force_tensor(sim))
        self.body = wrap(gym.acquire_rigid_body_state_tensor(sim))
        self.contact = wrap(gym.acquire_net_contact_force_tensor(sim))
        self.device = self.root.device
        self.target = self.torch.zeros_like(self.force)
        joints = [(actor, self.places[actor]["joints"][name]) for actor, name in self.config["joints"]]
        bodies = [(a, at) for a, place in enumerate(self.places) for at in place["bodies"]]
        actors, dofs, parts = [], [], []
        for env, handles in self.worlds:
            actors.append([gym.get_actor_index(env, handle, domain) for handle in handles])
            dofs.append([gym.get_actor_dof_index(env, handles[a], at, domain) for a, at in joints])
            parts.append([gym.get_actor_rigid_body_index(env, handles[a], at, domain) for a, at in bodies])
        self.actor_ids, self.dof_ids, self.body_ids = (self._indices(ids) for ids in (actors, dofs, parts))
        self.free = [i for i, actor in enumerate(self.config["actors"]) if actor["free"]]
        self.jointed = sorted(set(actor for actor, _ in joints))
        self._set_weight()

    def _set_weight(self):
        """What gravity adds to all bodies, where it is not the scene's; the scene has only one."""
        self.weight = None
        if self.arrays["gravity"].any():
            weight = self.arrays["mass"][:, :, None] * self.arrays["gravity"][:, None]
            self.weight = self.torch.zeros(len(self.body), 3, device=self.device)
            self.weight[self.body_ids.flatten()] = self.torch.from_numpy(weight.reshape(-1, 3)).to(self.device)

    def _watch(self, when):
        """Note the states of the bodies that are watched, before (0) or after (1) the last physics step."""
        if self.config["watched"]:
            self.gym.refresh_rigid_body_state_tensor(self.sim)
            self.gym.refresh_net_contact_force_tensor(self.sim)
            ids = self.body_ids[:, self.config["watched"]]
            states = self.torch.cat((self.body[ids], self.contact[ids]), -1)
            self.arrays["watched"][:, :, when] = states.cpu().numpy()

    def _write_states(self, worlds):
        """Each setter only once per step, with all the actors it is for: of two calls the last one would count."""
        unwrap, rows = self.gymtorch.unwrap_tensor, self._indices(worlds)
        if self.free:
            actors = self.actor_ids[rows][:, self.free].flatten()
            given = self.arrays["root"][worlds][:, self.free].reshape(-1, 13)
            self.root[actors] = self.torch.from_numpy(given).to(self.device)
            ids = actors.to(self.torch.int32)
            self.gym.set_actor_root_state_tensor_indexed(self.sim, unwrap(self.root), unwrap(ids), len(ids))
        if self.jointed:
            self.dof[self.dof_ids[rows]] = self.torch.from_numpy(self.arrays["dof"][worlds]).to(self.device)
            ids = self.actor_ids[rows][:, self.jointed].flatten().to(self.torch.int32)
            self.gym.set_dof_state_tensor_indexed(self.sim, unwrap(self.dof), unwrap(ids), len(ids))

    def _indices(self, values):
        return self.torch.tensor(values, dtype=self.torch.int64, device=self.device)


def main():
    connection = socket.socket(fileno=int(sys.argv[1])).makefile("rw")
    with open(sys.argv[2]) as file:
        config = json.load(file)
    arrays = shared_arrays(config["shared"], config["sizes"])
    try:
        connection.readline()  # start: the arrays are filled
        worlds = Worlds(config, arrays)
        print("done", file=connection, flush=True)
        for line in connection:
            request = json.loads(line)
            {"step": worlds.step, "properties": worlds.set_properties}[request["do"]](request["worlds"])
            print("done", file=connection, flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=connection, flush=True)
        raise


if __name__ == "__main__":
    main()
