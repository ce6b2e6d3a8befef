"""The Isaac Gym backend on a double of the library that moves the bodies with MuJoCo.

The double takes Isaac Gym's conventions (quaternion order, velocities of centres of mass, inertia matrices, drives,
filters) from its documentation, so that equal trajectories mean that the backend keeps to them.
"""

import ast
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from isaac_gym_double import FOLDER, make_sim

from robot_rl.errors import CheckpointError, ConfigError, EnvError, MissingDependencyError
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl_sim.backends import isaac_gym_worker
from robot_rl_sim.backends.isaac_gym import FIELDS, IsaacGymSim
from robot_rl_sim.backends.isaac_gym_assets import body_name, collision_filters, split
from robot_rl_sim.backends.isaac_gym_process import ENVIRONMENT_VARIABLE
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.models import load_model, load_spec
from robot_rl_sim.randomization import RandomizationConfig
from robot_rl_sim.tasks.g1_velocity.feet import add_foot_sensors
from robot_rl_sim.tasks.reach.hands import LEAP
from robot_rl_sim.tasks.reach.mdp import Reach, ReachConfig

WORLDS = 3


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def model_of(robot: RobotSpec) -> mujoco.MjModel:
    """Without what PhysX does otherwise: see the module's docstring."""
    return compiled(load_spec(robot.name))


def compiled(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Without passive joints, and pairs of links that touch."""
    for pair in list(spec.pairs):
        spec.delete(pair)
    model = spec.compile()
    model.dof_frictionloss[:] = 0
    model.dof_damping[:] = 0
    return model


def hand_and_cube() -> mujoco.MjModel:
    """A cube in the hand whose centre of mass is not its origin."""
    spec = load_spec("leap_hand")
    cube = spec.worldbody.add_body(name="cube", pos=[0.03, 0.02, 0.15], quat=[0.8, 0.6, 0, 0])
    cube.add_freejoint(name="cube")
    cube.mass, cube.ipos, cube.explicitinertial = 0.1, [0.005, 0.002, -0.003], True
    cube.inertia, cube.iquat = [6e-5, 5e-5, 4e-5], [0.9, 0.1, 0.3, 0.3]
    cube.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.03, 0.03, 0.03])
    return compiled(spec)


def pair(model: mujoco.MjModel, robot: RobotSpec, substeps: int, device: str = "cpu"):
    """The same worlds in Isaac Gym's double and in MuJoCo."""
    return make_sim(model, robot, WORLDS, substeps, device), MujocoCpuSim(model, robot, WORLDS, substeps, 1)


def start(model: mujoco.MjModel, robot: RobotSpec, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions near the default pose, free bodies turned at random, and velocities."""
    qpos = torch.from_numpy(model.qpos0).float().repeat(WORLDS, 1)
    qpos += 0.1 * torch.rand(qpos.shape, generator=generator)
    for joint in range(model.njnt):
        if int(model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_FREE):
            at = int(model.jnt_qposadr[joint])
            qpos[:, at + 2] += 0.4
            qpos[:, at + 3 : at + 7] = torch.randn(WORLDS, 4, generator=generator)
            qpos[:, at + 3 : at + 7] /= torch.linalg.vector_norm(qpos[:, at + 3 : at + 7], dim=1, keepdim=True)
    return qpos, 0.5 * torch.randn(WORLDS, model.nv, generator=generator)


def compare(ours, reference, steps: int, generator: torch.Generator, atol: float = 2e-4) -> None:
    joints = ours.joint_pos.shape[1]
    for _ in range(steps):
        ctrl = 0.2 * torch.rand(WORLDS, joints, generator=generator)
        for sim in (ours, reference):
            sim.step(ctrl)
        torch.testing.assert_close(ours.qpos.double(), reference.qpos, rtol=0, atol=atol)
        torch.testing.assert_close(ours.qvel.double(), reference.qvel, rtol=0, atol=50 * atol)
        torch.testing.assert_close(ours.joint_effort.double(), reference.joint_effort, rtol=0, atol=50 * atol)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize(
    ("make", "robot"),
    [(lambda: model_of(LEAP_HAND), LEAP_HAND), (lambda: model_of(UNITREE_G1), UNITREE_G1), (hand_and_cube, LEAP_HAND)],
    ids=["hand", "humanoid", "hand and cube"],
)
def test_conventions_are_translated_both_ways(make, robot: RobotSpec, device: str, generator) -> None:
    """Fixed and floating bases and objects, turned at random, moving, falling: as MuJoCo itself moves them."""
    model = make()
    ours, reference = pair(model, robot, 4, device)
    qpos, qvel = start(model, robot, generator)
    for sim in (ours, reference):
        sim.set_state(torch.arange(WORLDS), qpos, qvel)
    compare(ours, reference, 5, generator)


def test_a_fall_onto_the_ground(generator) -> None:
    """With contacts, and with velocities written by a push in the middle."""
    model = model_of(UNITREE_G1)
    model.geom_priority[:] = 0  # which PhysX does not know
    ours, reference = pair(model, UNITREE_G1, 4)
    qpos, _ = start(model, UNITREE_G1, generator)
    qpos[:, 2] = 0.7
    qpos[:, 3:7] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    for sim in (ours, reference):
        sim.set_state(torch.arange(WORLDS), qpos, torch.zeros(WORLDS, model.nv))
    compare(ours, reference, 5, generator)
    for sim in (ours, reference):
        sim.qvel[1, :2] += 0.5
    compare(ours, reference, 10, generator)
    assert (ours.qpos[1, :2] - ours.qpos[0, :2]).norm() > 0.03


def test_pairs_are_left_out_not_unsaid() -> None:
    with pytest.warns(UserWarning, match="leaves out 33 explicit contact pairs"):
        make_sim(load_model("unitree_g1"), UNITREE_G1, 1, 4)


def test_one_target_per_physics_step(generator) -> None:
    model = model_of(LEAP_HAND)
    ours, reference = pair(model, LEAP_HAND, 4)
    qpos, qvel = start(model, LEAP_HAND, generator)
    ctrl = torch.rand(WORLDS, 4, 16, generator=generator)
    for sim in (ours, reference):
        sim.set_state(torch.arange(WORLDS), qpos, qvel)
        sim.step(ctrl)
    torch.testing.assert_close(ours.qpos.double(), reference.qpos, rtol=0, atol=1e-5)


@pytest.mark.parametrize("field", [f for f in FIELDS if f not in ("dof_frictionloss", "actuator_forcerange")])
def test_model_fields_differ_per_world(field: str, generator) -> None:
    """The same field, changed in one world, changes the motion as it does in MuJoCo, and that of no other world."""
    model = model_of(UNITREE_G1)
    ours, reference = pair(model, UNITREE_G1, 4)
    names = (field,) if not field.startswith("actuator") else ("actuator_gainprm", "actuator_biasprm")
    qpos, qvel = start(model, UNITREE_G1, generator)
    qpos[:], qvel[:] = qpos[:1], qvel[:1]
    for sim in (ours, reference):
        for name in names:
            values = sim.model_field(name)
            values[1] *= 1.3
            if name == "dof_damping":
                values[1, 6:] += 0.02  # of joints: a free body has none in Isaac Gym
        sim.apply_model(torch.tensor([1]))
        sim.set_state(torch.arange(WORLDS), qpos, qvel)
        sim.step(qpos[:, 7:] + 0.02)  # near enough that no motor is at its limit
    torch.testing.assert_close(ours.qpos.double(), reference.qpos, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.qpos[0], ours.qpos[2], rtol=0, atol=1e-6)
    if field != "geom_friction":  # nothing is touched in the air
        assert not torch.allclose(ours.qpos[0], ours.qpos[1], rtol=0, atol=1e-5)


def test_strength_limits_the_effort() -> None:
    sim = make_sim(model_of(LEAP_HAND), LEAP_HAND, 2, 4)
    sim.model_field("actuator_forcerange")[1] *= 0.5
    sim.apply_model(torch.tensor([1]))
    sim.step(torch.full((2, 16), 2.0))
    limit = torch.tensor([j.effort_limit_nm for j in LEAP_HAND.joints])
    assert (sim.joint_effort[0].abs() <= limit + 1e-6).all()
    assert (sim.joint_effort[1].abs() <= 0.5 * limit + 1e-6).all()
    assert (sim.joint_effort[1].abs() > 0.49 * limit).any()


def test_friction_reaches_the_shapes() -> None:
    sim = make_sim(model_of(UNITREE_G1), UNITREE_G1, 2, 4)
    sim.model_field("geom_friction")[1, :, 0] *= 2
    sim.apply_model(torch.tensor([1]))
    nominal, doubled = (env.model.geom_friction[1:, 0] for env in sim._connection.worlds.sim.envs)
    np.testing.assert_allclose(doubled, 2 * nominal, rtol=1e-6)


def test_sensors_read_what_those_of_the_model_do(generator) -> None:
    """In the air, at the start and on the move; then on the ground, whether the feet touch it."""
    spec = load_spec("unitree_g1")
    add_foot_sensors(spec)
    model = compiled(spec)
    ours, reference = pair(model, UNITREE_G1, 4)
    qpos, qvel = start(model, UNITREE_G1, generator)
    names = [model.sensor(i).name for i in range(model.nsensor)]
    for sim in (ours, reference):
        gravity = sim.model_field("opt.gravity")
        gravity[1, 0] = 3.0
        sim.apply_model(torch.tensor([1]))
        sim.set_state(torch.arange(WORLDS), qpos, qvel)
    for target in (None, 0.0, 0.02):
        for sim in (ours, reference) if target is not None else ():
            sim.step(qpos[:, 7:] + target)
        for name in names:
            if name == "imu_acc" and target is None:
                continue  # at the start, gravity there is the scene's
            atol = 0.3 if name == "imu_acc" else 1e-4  # the mean over a step, and MuJoCo's at its start; 1 g is 9.81
            torch.testing.assert_close(ours.sensor(name).double(), reference.sensor(name), rtol=0, atol=atol)
    for sim in (ours, reference):
        qpos[:, 2], qpos[:, 3:7] = 0.75, torch.tensor([1.0, 0.0, 0.0, 0.0])
        sim.set_state(torch.arange(WORLDS), qpos, 0 * qvel)
    touched = torch.zeros(WORLDS, 2, dtype=torch.bool)
    for _ in range(15):
        both = []
        for sim in (ours, reference):
            sim.step(qpos[:, 7:])
            both.append(torch.cat([sim.sensor(f"{side}_sole_contact") for side in ("left", "right")], 1) > 0)
        touched |= both[0]
        assert (both[0] == both[1]).float().mean() > 0.8  # one is of the last step, the other of the state before
    assert touched.any()


def test_fields_that_isaac_gym_has_not_are_refused() -> None:
    sim = make_sim(model_of(LEAP_HAND), LEAP_HAND, 2, 4)
    with pytest.raises(ConfigError, match=r"'geom_size'.*body_mass"):
        sim.model_field("geom_size")
    sim.model_field("actuator_biasprm")[0, 3, 1] *= 2
    with pytest.raises(ConfigError, match="biasprm"):
        sim.apply_model(torch.arange(2))
    with pytest.raises(ConfigError, match="'imu_acc'; it can: none"):
        sim.sensor("imu_acc")


def test_friction_in_joints_is_said_to_be_left_out() -> None:
    with pytest.warns(UserWarning, match="frictionloss is left out"):
        make_sim(load_model("leap_hand"), LEAP_HAND, 1, 4)
    sim = make_sim(model_of(LEAP_HAND), LEAP_HAND, 1, 4)
    with pytest.warns(UserWarning, match="frictionloss is left out"):
        sim.model_field("dof_frictionloss")


def test_only_the_chosen_worlds_start_afresh(generator) -> None:
    model = model_of(LEAP_HAND)
    ours, reference = pair(model, LEAP_HAND, 4)
    qpos, qvel = start(model, LEAP_HAND, generator)
    for sim in (ours, reference):
        sim.set_state(torch.arange(WORLDS), qpos, qvel)
        sim.step(torch.zeros(WORLDS, 16))
        sim.set_state(torch.tensor([1]), qpos[1:2], qvel[1:2])
    torch.testing.assert_close(ours.qpos[1], qpos[1], rtol=0, atol=0)
    compare(ours, reference, 3, generator)


def test_diverged_world_is_marked_and_can_start_afresh(generator) -> None:
    model = model_of(UNITREE_G1)
    sim = make_sim(model, UNITREE_G1, WORLDS, 4)
    qpos, qvel = start(model, UNITREE_G1, generator)
    sim.set_state(torch.arange(WORLDS), qpos, qvel)
    sim.qvel[2, 8] = float("nan")
    sim.step(torch.zeros(WORLDS, 29))
    assert sim.failed.tolist() == [False, False, True]
    assert torch.isfinite(sim.qpos[:2]).all()
    sim.set_state(torch.tensor([2]), qpos[2:], torch.zeros(1, model.nv))
    assert not sim.failed.any()
    sim.step(torch.zeros(WORLDS, 29))
    assert not sim.failed.any()


def test_state_dict_goes_on(generator) -> None:
    model = model_of(UNITREE_G1)
    first, second = (make_sim(model, UNITREE_G1, WORLDS, 4) for _ in range(2))
    for sim in (first, second):
        sim.model_field("body_mass")
    qpos, qvel = start(model, UNITREE_G1, generator)
    first.set_state(torch.arange(WORLDS), qpos, qvel)
    first.model_field("body_mass")[1] *= 1.5
    first.apply_model(torch.tensor([1]))
    first.step(torch.zeros(WORLDS, 29))
    second.load_state_dict(first.state_dict())
    for sim in (first, second):
        sim.step(torch.ones(WORLDS, 29))
    torch.testing.assert_close(first.qpos, second.qpos, rtol=0, atol=1e-5)
    with pytest.raises(CheckpointError, match="does not fit"):
        make_sim(model, UNITREE_G1, 2, 4).load_state_dict(first.state_dict())


def test_a_task_runs_on_it() -> None:
    """Randomised, over episode ends: nothing that a task does asks for more than the backend has."""
    mdp = Reach(LEAP, seed=0, config=ReachConfig(pool_size=16, max_episode_steps=3))
    model = mdp.model_spec().compile()
    with pytest.warns(UserWarning, match="frictionloss"):
        sim = make_sim(model, LEAP_HAND, 2, mdp.substeps)
    with pytest.warns(UserWarning, match="frictionloss"):
        env = SimVecEnv(mdp, sim, 0, RandomizationConfig())
    for _ in range(7):
        step = env.step(torch.zeros(2, 16))
    assert step.info["episode_length"].tolist() == [1, 1]
    assert torch.isfinite(step.obs).all()


# What is written for Isaac Gym to read


@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1], ids=lambda r: r.name)
def test_exported_files_are_the_model(robot: RobotSpec, generator) -> None:
    """Compiled by MuJoCo again: the same masses, and the same places of all bodies and geoms in a random pose."""
    model = load_model(robot.name)
    (actor,) = split(model)
    exported = mujoco.MjModel.from_xml_string(actor.mjcf)
    data, again = mujoco.MjData(model), mujoco.MjData(exported)
    data.qpos[:] = again.qpos[:] = torch.rand(model.nq, generator=generator).numpy() * 0.5
    if not robot.floating_base:  # a fixed root is placed by its pose as an actor
        exported.body_pos[1], exported.body_quat[1] = model.body_pos[actor.root], model.body_quat[actor.root]
    for m, d in ((model, data), (exported, again)):
        mujoco.mj_kinematics(m, d)
    for body in range(1, model.nbody):
        twin = exported.body(body_name(model, body)).id
        np.testing.assert_allclose(again.xpos[twin], data.xpos[body], atol=1e-6)
        np.testing.assert_allclose(again.ximat[twin], data.ximat[body], atol=1e-6)
        np.testing.assert_allclose(exported.body_mass[twin], model.body_mass[body], rtol=1e-6)
        np.testing.assert_allclose(exported.body_inertia[twin], model.body_inertia[body], rtol=1e-6)
    for geom in range(exported.ngeom):
        twin = model.geom(exported.geom(geom).name).id
        np.testing.assert_allclose(again.geom_xpos[geom], data.geom_xpos[twin], atol=1e-6)
        np.testing.assert_allclose(exported.geom_size[geom], model.geom_size[twin], atol=1e-6)
    np.testing.assert_allclose(exported.jnt_range, model.jnt_range, rtol=1e-6)


@pytest.mark.parametrize("make", [lambda: load_model("leap_hand"), lambda: load_model("unitree_g1"), hand_and_cube])
def test_filters_say_what_collides(make) -> None:
    """Geoms grown until all of them overlap: MuJoCo then lists every pair that may collide."""
    model = make()
    plane = int(mujoco.mjtGeom.mjGEOM_PLANE)
    solid = [g for g in range(model.ngeom) if int(model.geom_type[g]) != plane]
    solid = [g for g in solid if int(model.geom_contype[g]) or int(model.geom_conaffinity[g])]
    model.geom_size[solid] = 1.0
    model.geom_rbound[solid] = 10.0
    model.geom_aabb[solid, 3:] = 10.0
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_collision(model, data)
    touching = {tuple(sorted(c.geom.tolist())) for c in data.contact}
    bits = collision_filters(model)
    for a in solid:
        for b in solid:
            if a < b:
                assert ((a, b) in touching) == (not bits[a] & bits[b]), (model.geom(a).name, model.geom(b).name)


@pytest.mark.parametrize(
    ("body", "rest", "message"),
    [
        ("<joint name='j' axis='1 0 0'/><joint name='k' axis='0 1 0'/>", "", "'j'"),
        ("<joint name='j' type='ball'/>", "", "'j'"),
        ("<joint name='j' pos='0 0 .1'/>", "", "'j'"),
        ("<joint name='j'/><geom name='e' type='ellipsoid' size='.1 .1 .2'/>", "", "'e'"),
        ("<joint name='j'/>", "<tendon><fixed><joint joint='j' coef='1'/></fixed></tendon>", "1 tendons"),
        ("<joint name='j'/>", "<equality><joint joint1='j'/></equality>", "1 equality"),
    ],
)
def test_what_isaac_gym_cannot_do_is_said(body: str, rest: str, message: str) -> None:
    xml = f"<mujoco><worldbody><body name='b'>{body}<geom size='.1'/></body></worldbody>{rest}</mujoco>"
    with pytest.raises(ConfigError, match=f"{message}.*take backend"):
        split(mujoco.MjModel.from_xml_string(xml))


def test_joints_that_are_not_of_the_robot_are_refused() -> None:
    spec = load_spec("leap_hand")
    door = spec.worldbody.add_body(name="door")
    door.add_joint(name="hinge")
    door.add_geom(size=[0.1, 0, 0])
    with pytest.raises(ConfigError, match="not of robot 'leap_hand'"):
        make_sim(spec.compile(), LEAP_HAND, 1, 4)


# The process


def test_worker_is_written_in_the_python_that_isaac_gym_runs_in() -> None:
    source = Path(isaac_gym_worker.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert imported <= {"importlib", "json", "mmap", "socket", "sys", "numpy"}
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]


def test_a_process_does_the_same(monkeypatch, generator) -> None:
    """Through shared memory, with the library imported before torch, or the double would refuse."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    model = model_of(LEAP_HAND)
    ours = IsaacGymSim(model, LEAP_HAND, WORLDS, 4, "cpu")
    reference = make_sim(model, LEAP_HAND, WORLDS, 4)
    qpos, qvel = start(model, LEAP_HAND, generator)
    for sim in (ours, reference):
        sim.model_field("body_mass")[2] *= 2
        sim.apply_model(torch.tensor([2]))
        sim.set_state(torch.arange(WORLDS), qpos, qvel)
        for _ in range(3):
            sim.step(torch.zeros(WORLDS, 16))
    assert torch.equal(ours.qpos, reference.qpos)
    process = ours._connection._process
    with pytest.raises(EnvError, match=r"Isaac Gym's process failed: IndexError"):
        ours._connection.request("properties", [WORLDS])
    with pytest.raises(EnvError, match="it ended"):
        ours.step(torch.zeros(WORLDS, 16))
    assert process.wait(timeout=60) == 1


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (None, f"{ENVIRONMENT_VARIABLE} is not set"),
        ("/nowhere/python3.8", "cannot be run"),
        (sys.executable, "No module named 'isaacgym'"),
    ],
)
def test_without_isaac_gym_it_is_said_what_to_do(monkeypatch, python: str | None, message: str) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if python:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, python)
    with pytest.raises(MissingDependencyError, match=message) as caught:
        IsaacGymSim(model_of(LEAP_HAND), LEAP_HAND, 1, 4)
    for word in ("3.6 to 3.8", "download", "backend 'warp'", "'mujoco'"):
        assert word in str(caught.value)


# The double itself


def test_double_refuses_what_the_documentation_forbids() -> None:
    sim = make_sim(model_of(UNITREE_G1), UNITREE_G1, 2, 4)
    worlds = sim._connection.worlds
    gym, handle, unwrap = worlds.gym, worlds.sim, worlds.gymtorch.unwrap_tensor
    ids = torch.tensor([0], dtype=torch.int32)
    for wrong in (ids.long(), torch.tensor([0, 0], dtype=torch.int32), torch.tensor([], dtype=torch.int32)):
        with pytest.raises(AssertionError):
            gym.set_actor_root_state_tensor_indexed(handle, unwrap(worlds.root), unwrap(wrong), 1)
    gym.set_actor_root_state_tensor_indexed(handle, unwrap(worlds.root), unwrap(ids), 1)
    with pytest.raises(AssertionError, match="last one"):
        gym.set_actor_root_state_tensor_indexed(handle, unwrap(worlds.root), unwrap(ids), 1)
    gym.simulate(handle)
    with pytest.raises(AssertionError):
        gym.refresh_dof_state_tensor(handle)  # on the CPU, results must be fetched first
    with pytest.raises(AssertionError):
        gym.create_env(handle, worlds.gymapi.Vec3(), worlds.gymapi.Vec3(), 1)
    with pytest.raises(Exception, match="contiguous"):
        unwrap(worlds.root[:, :3])
    with pytest.raises(AttributeError):
        worlds.gymapi.SimParams().gravitation = 1
