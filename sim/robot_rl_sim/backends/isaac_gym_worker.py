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
ARRAYS = {
    "root": ("worlds", "actors", 13),
    "dof": ("worlds", "dofs", 2),
    "force": ("worlds", "dofs"),
    "target": ("substeps", "worlds", "dofs"),
    "stiffness": ("worlds", "dofs"),
    "damping": ("worlds", "dofs"),
    "armature": ("worlds", "dofs"),
    "effort": ("worlds", "dofs"),
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
        self.joints = self.places[0]["joints"]
        self.worlds = [self._create_world(i) for i in range(config["sizes"]["worlds"])]
        self.set_properties(range(len(self.worlds)))
        self.gym.prepare_sim(self.sim)
        self._acquire_tensors()

    def step(self, worlds):
        """Write the states of `worlds` from the arrays, make one control period, and read all states back."""
        if worlds:
            self._write_states(worlds)
        targets = self.torch.from_numpy(self.arrays["target"]).to(self.device)
        for target in targets.unbind():
            self.target[:, self.joints] = target
            self.gym.set_dof_position_target_tensor(self.sim, self.gymtorch.unwrap_tensor(self.target))
            self.gym.simulate(self.sim)
            if not self.gpu:
                self.gym.fetch_results(self.sim, True)
        self.gym.refresh_actor_root_state_tensor(self.sim)
        self.gym.refresh_dof_state_tensor(self.sim)
        self.gym.refresh_dof_force_tensor(self.sim)
        self.arrays["root"][...] = self.root[self.actor_ids].cpu().numpy()
        self.arrays["dof"][...] = self.dof[:, self.joints].cpu().numpy()
        self.arrays["force"][...] = self.force[:, self.joints].cpu().numpy()

    def set_properties(self, worlds):
        """Masses, inertia, friction and gains of `worlds`, from the arrays."""
        for i in worlds:
            env, handles = self.worlds[i]
            body = shape = 0
            for place, handle in zip(self.places, handles):
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
            dofs = self.gym.get_actor_dof_properties(env, handles[0])
            dofs["driveMode"].fill(self.gymapi.DOF_MODE_POS)
            dofs["velocity"].fill(self.config["max_speed"])
            dofs["friction"].fill(0.0)
            for name in ("stiffness", "damping", "armature", "effort"):
                dofs[name][self.joints] = self.arrays[name][i]
            self.gym.set_actor_dof_properties(env, handles[0], dofs)

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
        return {"bodies": body_at, "shapes": shape_at, "joints": [joints.index(name) for name in actor["joints"]]}

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
        self.gym.enable_actor_dof_force_sensors(env, handles[0])
        return env, handles

    def _set_body(self, properties, world, body):
        vec3 = self.gymapi.Vec3
        properties.mass = float(self.arrays["mass"][world, body])
        properties.com = vec3(*self.arrays["com"][world, body].tolist())
        inertia = self.gymapi.Mat33()
        inertia.x, inertia.y, inertia.z = (vec3(*row) for row in self.arrays["inertia"][world, body].tolist())
        properties.inertia = inertia

    def _acquire_tensors(self):
        gym, sim, wrap, domain = self.gym, self.sim, self.gymtorch.wrap_tensor, self.gymapi.DOMAIN_SIM
        self.root = wrap(gym.acquire_actor_root_state_tensor(sim))
        self.device = self.root.device
        # Robots alone have joints, and come world by world.
        self.dof_state = wrap(gym.acquire_dof_state_tensor(sim))
        self.dof = self.dof_state.view(len(self.worlds), -1, 2)
        self.force = wrap(gym.acquire_dof_force_tensor(sim)).view(len(self.worlds), -1)
        self.target = self.torch.zeros_like(self.force)
        ids = [[gym.get_actor_index(env, handle, domain) for handle in handles] for env, handles in self.worlds]
        self.actor_ids = self._indices(ids)
        self.free = [i for i, actor in enumerate(self.config["actors"]) if actor["free"]]

    def _write_states(self, worlds):
        """Each setter only once per step, with all the actors it is for: of two calls the last one would count."""
        unwrap, rows = self.gymtorch.unwrap_tensor, self._indices(worlds)
        if self.free:
            actors = self.actor_ids[rows][:, self.free].flatten()
            given = self.arrays["root"][worlds][:, self.free].reshape(-1, 13)
            self.root[actors] = self.torch.from_numpy(given).to(self.device)
            ids = actors.to(self.torch.int32)
            self.gym.set_actor_root_state_tensor_indexed(self.sim, unwrap(self.root), unwrap(ids), len(ids))
        if self.joints:
            given = self.torch.from_numpy(self.arrays["dof"][worlds]).to(self.device)
            self.dof[rows.unsqueeze(1), self._indices(self.joints)] = given
            ids = self.actor_ids[rows, 0].to(self.torch.int32)
            self.gym.set_dof_state_tensor_indexed(self.sim, unwrap(self.dof_state), unwrap(ids), len(ids))

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
