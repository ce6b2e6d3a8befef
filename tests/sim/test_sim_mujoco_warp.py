"""What only the MuJoCo Warp backend does: single precision, graphs, bounded room, constants per world."""

import re
import sys
import time
import warnings
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
import warp as wp

from robot_rl.contract import JointSpec
from robot_rl.env import VecEnv, get_task
from robot_rl.errors import ConfigError, EnvError, MissingDependencyError
from robot_rl.robots import LEAP_HAND, RobotSpec, get_robot
from robot_rl.robots.spec import SafetyProfile
from robot_rl_sim.backends import warp_kernels
from robot_rl_sim.backends.addresses import joint_columns
from robot_rl_sim.backends.inertia import DERIVED, SOURCES, InertiaConstants
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.backends.mujoco_warp import MujocoWarpSim
from robot_rl_sim.models import load_model
from robot_rl_sim.tasks.assemble import make_sim

N = 4
ALL = torch.arange(N)
CPU = torch.device("cpu")


def leap_poses(n: int = N) -> torch.Tensor:
    default = torch.tensor([j.default_pos_rad for j in LEAP_HAND.joints])
    return default + 0.1 * torch.rand(n, 16, generator=torch.Generator().manual_seed(0))


def leap(substeps: int = 4) -> MujocoWarpSim:
    sim = MujocoWarpSim(load_model("leap_hand"), LEAP_HAND, N, substeps, "cpu")
    sim.set_state(ALL, leap_poses(), torch.zeros(N, 16))
    return sim


BALL_AND_TENDON = """
<mujoco>
  <worldbody>
    <body><joint type="ball"/><geom size=".1" pos=".2 0 0"/>
      <body pos=".3 0 0"><joint type="slide" axis="1 0 0"/><geom type="box" size=".1 .2 .05" euler="10 20 30"/></body>
    </body>
    <body pos="2 0 0"><joint type="slide"/><joint type="hinge"/><geom size=".1" pos=".1 .1 0"/><site name="a"/></body>
    <body pos="0 3 0"><freejoint/><geom type="capsule" size=".1 .2" pos="0 .1 0"/><geom size=".05" pos=".3 0 0"/></body>
    <site name="b" pos="3 1 0"/>
  </worldbody>
  <tendon><spatial armature=".2"><site site="a"/><site site="b"/></spatial></tendon>
</mujoco>
"""


@pytest.mark.parametrize("name", ["leap_hand", "unitree_g1", "ball, free and slide joints, and a tendon"])
def test_constants_of_changed_masses_are_those_of_mujoco(name: str) -> None:
    """Against mj_setConst on a model with the same masses, for two worlds at once."""
    known = name in ("leap_hand", "unitree_g1")
    models = [load_model(name) if known else mujoco.MjModel.from_xml_string(BALL_AND_TENDON) for _ in range(2)]
    constants = InertiaConstants(models[0], CPU)
    random = np.random.default_rng(0)
    for model in models:
        scale = random.uniform(0.6, 1.5, model.nbody)
        model.body_mass[:] *= scale
        model.body_inertia[:] *= scale[:, None]
        model.dof_armature[:] = random.uniform(0.01, 0.1, model.nv)
        # Where the file puts a body's frame into its centre of mass, MuJoCo takes it to be there always.
        model.body_ipos[:] += random.normal(0, 0.01, model.body_ipos.shape) * (model.body_sameframe == 0)[:, None]
    derived = constants(*(torch.stack([torch.from_numpy(getattr(m, field)) for m in models]) for field in SOURCES))
    for i, model in enumerate(models):
        mujoco.mj_setConst(model, mujoco.MjData(model))
        for field in DERIVED:
            np.testing.assert_allclose(derived[field][i], getattr(model, field), rtol=1e-9, atol=1e-12)


def test_constants_reach_the_physics_of_their_world_alone() -> None:
    sim = leap()
    before = [w.clone() for w in (torch.from_numpy(sim._model.dof_invweight0.numpy()),)]
    sim.model_field("body_mass")[2] *= 2.0
    sim.apply_model(torch.tensor([2]))
    after = torch.from_numpy(sim._model.dof_invweight0.numpy())
    assert after.shape == (N, 16)
    assert torch.equal(after[[0, 1, 3]], before[0].expand(3, -1))
    assert (after[2] != before[0][0]).all()


def test_replayed_graph_does_what_single_launches_do() -> None:
    replayed, launched = leap(), leap()
    launched._launch = lambda name, run: run()
    for i in range(5):
        targets = leap_poses() + 0.05 * i
        for sim in (replayed, launched):
            sim.step(targets)
        assert torch.equal(replayed.qpos, launched.qpos)
        assert torch.equal(replayed.qvel, launched.qvel)
    assert replayed._graphs.keys() == {"period"}
    assert not launched._graphs


def test_own_values_of_a_field_asked_for_late_are_in_force() -> None:
    """The graph goes by the arrays that were there when it was captured."""
    sim, other = leap(), leap()
    for s in (sim, other):
        s.step(leap_poses())
    sim.model_field("actuator_gainprm")[1, :, 0] = 0.0
    for s in (sim, other):
        s.step(leap_poses() + 0.1)
    assert torch.equal(sim.qpos[[0, 2, 3]], other.qpos[[0, 2, 3]])
    assert (sim.qpos[1] - other.qpos[1]).abs().max() > 1e-3


def test_tensors_are_warps_own_memory() -> None:
    sim = leap()
    assert sim.qpos.data_ptr() == sim._data.qpos.ptr
    assert sim.model_field("geom_friction").data_ptr() == sim._model.geom_friction.ptr
    assert sim.model_field("opt.gravity").data_ptr() == sim._model.opt.gravity.ptr


def test_efforts_after_a_reset_are_computed_when_someone_asks() -> None:
    sim = leap()
    sim.step(leap_poses() + 0.3)
    assert (sim.joint_effort.abs() > 1e-3).any()
    others = sim.joint_effort[1:].clone()
    sim.set_state(torch.tensor([0]), leap_poses(1), torch.zeros(1, 16))
    assert "forward" not in sim._graphs
    assert (sim.joint_effort[0].abs() < 1e-6).all()
    assert torch.equal(sim.joint_effort[1:], others)
    assert "forward" in sim._graphs


@pytest.mark.parametrize(
    ("name", "tolerance_rad"),
    [
        ("leap_hand", 1e-6),
        ("unitree_g1", 1e-5),
        ("shadow_hand", 1e-6),
        ("franka_panda", 5e-6),
    ],
)
def test_agrees_with_mujoco_without_contact(name: str, tolerance_rad: float) -> None:
    """200 physics steps from random poses to random targets, G1 in free fall; single against double precision."""
    robot, model = get_robot(name), load_model(name)
    model.geom_conaffinity[:] = model.geom_contype[:] = 0
    sims = [warp_of(model, robot), cpu_of(model, robot)]
    generator = torch.Generator().manual_seed(1)
    default = torch.tensor([j.default_pos_rad for j in robot.joints])
    qpos = torch.from_numpy(model.qpos0).float().repeat(N, 1)
    columns, _ = joint_columns(model, robot)
    qpos[:, columns] = default + 0.1 * torch.randn(N, len(default), generator=generator)
    for sim in sims:
        sim.set_state(ALL, qpos, torch.zeros(N, model.nv))
    for _ in range(20):
        targets = default + 0.1 * torch.randn(N, len(default), generator=generator)
        for sim in sims:
            sim.step(targets)
        assert (sims[0].qpos - sims[1].qpos).abs().max() < tolerance_rad
    assert (sims[1].joint_pos - qpos[:, columns]).abs().max() > 0.05


def warp_of(model: mujoco.MjModel, robot: RobotSpec) -> MujocoWarpSim:
    return MujocoWarpSim(model, robot, N, 10, "cpu")


def cpu_of(model: mujoco.MjModel, robot: RobotSpec) -> MujocoCpuSim:
    return MujocoCpuSim(model, robot, N, 10, 1)


ONE_JOINT = RobotSpec(
    name="one_joint",
    variant="test",
    joints=(JointSpec("hinge", -1.0, 1.0, 10.0, 10.0, 0.0, 1.0, 0.1),),
    armature_kg_m2=(0.0,),
    root_body="arm",
    floating_base=False,
    safety=SafetyProfile((1.0,), (1.0,), (1.0,)),
    state_fields=("joint_pos",),
)


def box_on_floor(extra: str = "", option: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(f"""
<mujoco>
  <option timestep="0.002" {option}/>
  <worldbody>
    <geom type="plane" size="10 10 1" friction="1"/>
    <body name="arm" pos="0 5 5"><joint name="hinge"/><geom size=".1" contype="0" conaffinity="0"/></body>
    <body name="box" pos="0 0 .05"><freejoint/><geom type="box" size=".1 .1 .05" mass="1" friction="1"/></body>
  </worldbody>
  <actuator><position name="hinge" joint="hinge" kp="1"/></actuator>
  {extra}
</mujoco>""")


def box_sim(model: mujoco.MjModel, heights_m: tuple[float, ...] = (0.05,) * N) -> MujocoWarpSim:
    sim = MujocoWarpSim(model, ONE_JOINT, N, 10, "cpu")
    qpos = torch.from_numpy(model.qpos0).float().repeat(N, 1)
    qpos[:, 3] = torch.tensor(heights_m)
    sim.set_state(ALL, qpos, torch.zeros(N, 7))
    return sim


def test_friction_of_each_world_stops_a_box_where_coulomb_says() -> None:
    """v² / (2 mu g), of a box that slides at 1 m/s."""
    sim = box_sim(box_on_floor())
    friction = torch.tensor([1.0, 0.5, 0.25, 0.1])
    sim.model_field("geom_friction")[:, :, 0] = friction.unsqueeze(1)
    pose, velocity = sim.free_joint("box")
    velocity[:, 0] = 1.0
    for _ in range(75):
        sim.step(torch.zeros(N, 1))
    torch.testing.assert_close(pose[:, 0], 1 / (2 * friction * 9.81), rtol=0.03, atol=0.0)


ROOM = '<custom><numeric name="contacts_per_world" data="{}"/></custom>'


def test_a_world_without_room_for_its_constraints_is_failed() -> None:
    """One world has four contacts, 16 rows, where there is room for 13; the others have none."""
    sim = box_sim(box_on_floor(ROOM.format(1)), (0.05, 1.0, 1.0, 1.0))
    sim.step(torch.zeros(N, 1))
    assert sim.failed.tolist() == [True, False, False, False]
    sim.set_state(torch.tensor([0]), sim.qpos[[1]], sim.qvel[[1]])
    assert not sim.failed.any()
    with pytest.warns(UserWarning, match=r"more constraints than fit.*contacts_per_world.*NEFC"):
        sim.step(torch.zeros(N, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sim.step(torch.zeros(N, 1))
        sim.step(torch.zeros(N, 1))


def test_contacts_that_do_not_fit_are_an_error() -> None:
    """Room for eight in all; four worlds have four each."""
    sim = box_sim(box_on_floor(ROOM.format(2)))
    sim.step(torch.zeros(N, 1))
    with pytest.raises(EnvError, match=r"did not fit.*contacts_per_world\" data=\"4\".*room for 2 \(NARROWPHASE\)"):
        sim.step(torch.zeros(N, 1))
    roomy = box_sim(box_on_floor(ROOM.format(4)))
    for _ in range(3):
        roomy.step(torch.zeros(N, 1))
    assert not roomy.failed.any()
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        box_sim(box_on_floor(ROOM.format(0)))


@pytest.mark.parametrize(
    ("extra", "option", "names"),
    [
        ("", 'solver="PGS"', 'no solver PGS; set <option solver="Newton"/>'),
        ("<option><flag sleep='enable'/></option>", "", "sleep"),
        ("<option><flag fwdinv='enable'/></option>", "", "mjENBL_FWDINV is unsupported.*backend 'mujoco'"),
    ],
)
def test_what_warp_does_not_have_is_named(extra: str, option: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        box_sim(box_on_floor(extra, option))


def test_field_that_would_be_inconsistent_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no 'geom_size' per world.*body_mass.*geom_friction"):
        leap().model_field("geom_size")


@pytest.mark.parametrize("device", ["cuda:99", "tpu"])
def test_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"device {device!r} cannot be used")):
        make_sim(load_model("leap_hand"), LEAP_HAND, N, 4, device, 0, "warp")


def test_our_kernel_compiles_for_a_gpu(tmp_path: Path) -> None:
    """Which needs none: Warp brings NVIDIA's compiler."""
    wp.compile_aot_module(warp_kernels, arch=80, module_dir=tmp_path, use_ptx=True)
    assert [file.suffix for file in tmp_path.glob("*.ptx")] == [".ptx"]


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mujoco_warp", "warp_kernels"):
        monkeypatch.delitem(sys.modules, f"robot_rl_sim.backends.{module}")
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    with pytest.raises(MissingDependencyError, match=r"is not installed.*pip install 'robot-rl\[warp\]'"):
        make_sim(load_model("leap_hand"), LEAP_HAND, N, 4, "cpu", 0, "warp")


@pytest.mark.parametrize("silent_s", [0.0, 60.0])
def test_building_kernels_is_announced_if_it_takes_long(
    silent_s: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warp_kernels, "SILENT_S", silent_s)
    with warp_kernels.while_compiling("cpu"):
        time.sleep(1.2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("preparing physics kernels for cpu" in shown.err) == (silent_s == 0.0)
    assert ("are ready" in shown.err) == (silent_s == 0.0)


@pytest.fixture(scope="module")
def leap_envs() -> list[VecEnv]:
    """Two of the randomised hand on Warp, and one on MuJoCo."""
    task = get_task("leap-reach")
    return [task.make_env(num_envs=N, seed=3, backend=backend) for backend in ("warp", "warp", "mujoco")]


def test_environment_goes_on_exactly_from_its_state(leap_envs: list[VecEnv]) -> None:
    first, second, _ = leap_envs
    actions = 2 * torch.rand(45, N, 16, generator=torch.Generator().manual_seed(0)) - 1
    first.reset(seed=1)
    second.reset(seed=2)
    for action in actions[:5]:
        first.step(action)
    second.load_state_dict(first.state_dict())
    for action in actions[5:]:  # through the end of an episode
        steps = [env.step(action) for env in (first, second)]
        assert torch.equal(steps[0].obs, steps[1].obs)
        assert torch.equal(steps[0].reward, steps[1].reward)


def test_environment_is_the_same_on_both_backends(leap_envs: list[VecEnv]) -> None:
    """Masses, gains, latency, noise and goals are drawn alike: what differs is precision."""
    warp, _, cpu = leap_envs
    torch.testing.assert_close(warp.reset(seed=5), cpu.reset(seed=5), rtol=0, atol=1e-4)
    actions = 2 * torch.rand(45, N, 16, generator=torch.Generator().manual_seed(0)) - 1
    for action in actions:
        single, double = warp.step(action), cpu.step(action)
        torch.testing.assert_close(single.obs, double.obs, rtol=0, atol=1e-3)
        torch.testing.assert_close(single.reward, double.reward, rtol=0, atol=1e-3)
        assert torch.equal(single.truncated, double.truncated)
