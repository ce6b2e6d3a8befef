"""What every backend must do, against truths that need no simulator: closed forms of small systems.

The scene has no contacts: a cart on a rail, a pendulum, and a ball in the air. Integration is semi-implicit Euler,
v += dt a(q, v), q += dt v, so trajectories of cart and ball are known exactly, step by step.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import mujoco
import pytest
import torch
from torch import Tensor

from robot_rl.contract import JointSpec
from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.robots import RobotSpec
from robot_rl.robots.spec import SafetyProfile
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim

N, SUBSTEPS, DT = 4, 5, 0.002
ALL = torch.arange(N)
GRAVITY = 9.81
CART_KG, CART_KP = 2.0, 50.0
BOB_KG, LENGTH_M, BOB_INERTIA = 1.0, 0.5, 2 / 5 * 1.0 * 0.05**2

SCENE = f"""
<mujoco>
  <option timestep="{DT}" gravity="0 0 -{GRAVITY}"/>
  <default><geom contype="0" conaffinity="0"/></default>
  <worldbody>
    <body name="cart"><joint name="slide" type="slide" axis="1 0 0"/>
      <geom type="box" size=".1 .1 .1" mass="{CART_KG}"/><site name="imu"/></body>
    <body name="bob" pos="0 2 1"><joint name="swing" axis="0 1 0"/>
      <geom type="sphere" size=".05" pos="0 0 -{LENGTH_M}" mass="{BOB_KG}"/></body>
    <body name="ball" pos="0 -2 100"><freejoint/><geom type="sphere" size=".1" mass=".5"/></body>
  </worldbody>
  <actuator>
    <position name="slide" joint="slide" kp="{CART_KP}"/>
    <position name="swing" joint="swing" kp="1e-6"/>
  </actuator>
  <sensor><accelerometer name="imu_acc" site="imu"/></sensor>
</mujoco>
"""


def joint(name: str, kp: float) -> JointSpec:
    return JointSpec(name, -10.0, 10.0, 100.0, 1000.0, 0.0, kp, 1e-9)


ROBOT = RobotSpec(
    name="cart_and_pendulum",
    variant="test",
    joints=(joint("slide", CART_KP), joint("swing", 1e-6)),
    armature_kg_m2=(0.0, 0.0),
    root_body="cart",
    floating_base=False,
    safety=SafetyProfile((1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
    state_fields=("joint_pos", "joint_vel"),
)
QPOS = torch.tensor([[0.0, 0.0, 0.0, -2.0, 100.0, 1.0, 0.0, 0.0, 0.0]]).expand(N, -1)
QVEL = torch.zeros(N, 8)
SLIDE, SWING, BALL_Z = 0, 1, 4


def mujoco_cpu(model: mujoco.MjModel, robot: RobotSpec, num_worlds: int, substeps: int) -> BatchSim:
    return MujocoCpuSim(model, robot, num_worlds, substeps, num_threads=2)


def warp_cpu(model: mujoco.MjModel, robot: RobotSpec, num_worlds: int, substeps: int) -> BatchSim:
    from robot_rl_sim.backends.mujoco_warp import MujocoWarpSim

    return MujocoWarpSim(model, robot, num_worlds, substeps, "cpu")


def warp_gpu(model: mujoco.MjModel, robot: RobotSpec, num_worlds: int, substeps: int) -> BatchSim:
    from robot_rl_sim.backends.mujoco_warp import MujocoWarpSim

    return MujocoWarpSim(model, robot, num_worlds, substeps, "cuda")


def isaac_gym_double(model: mujoco.MjModel, robot: RobotSpec, num_worlds: int, substeps: int) -> BatchSim:
    """The backend is ours; the Isaac Gym under it is a double."""
    from isaac_gym_double import make_sim

    return make_sim(model, robot, num_worlds, substeps)


Factory = Callable[[mujoco.MjModel, RobotSpec, int, int], BatchSim]
BACKENDS: dict[str, Factory] = {"mujoco": mujoco_cpu, "warp": warp_cpu, "isaacgym": isaac_gym_double}


@pytest.fixture(params=[*BACKENDS, pytest.param("warp on a GPU", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Iterator[Factory]:
    if request.param in BACKENDS:
        yield BACKENDS[request.param]
    else:
        with torch.device("cuda"):
            yield warp_gpu


@pytest.fixture
def make(backend: Factory) -> Callable[[], BatchSim]:
    return lambda: started(backend(mujoco.MjModel.from_xml_string(SCENE), ROBOT, N, SUBSTEPS))


@pytest.fixture
def sim(make: Callable[[], BatchSim]) -> BatchSim:
    return make()


def started(sim: BatchSim) -> BatchSim:
    sim.set_state(ALL, QPOS, QVEL)
    return sim


def targets(seed: int) -> Tensor:
    return torch.rand(N, 2, generator=torch.Generator().manual_seed(seed), device="cpu") - 0.5


def everything(sim: BatchSim, worlds: list[int]) -> Tensor:
    """All that can be seen of `worlds`."""
    parts = (sim.qpos, sim.qvel, sim.joint_effort, sim.sensor("imu_acc"))
    return torch.cat([part[worlds].double() for part in parts], dim=1)


def assert_near(values: Tensor, expected: Tensor, digits: float = 5) -> None:
    torch.testing.assert_close(values.double().cpu(), expected.double().cpu(), rtol=10**-digits, atol=10**-digits)


def test_shapes(sim: BatchSim) -> None:
    assert (sim.num_worlds, sim.substeps) == (N, SUBSTEPS)
    assert sim.qpos.shape == (N, 9)
    assert sim.qvel.shape == (N, 8)
    for view in (sim.joint_pos, sim.joint_vel, sim.joint_effort):
        assert view.shape == (N, 2)
    assert sim.sensor("imu_acc").shape == (N, 3)
    assert sim.failed.tolist() == [False] * N
    assert all(view.device == sim.device for view in (sim.qpos, sim.joint_effort, sim.failed, sim.sensor("imu_acc")))


def test_views_are_live(sim: BatchSim) -> None:
    qpos, joint_pos, effort, acc = sim.qpos, sim.joint_pos, sim.joint_effort, sim.sensor("imu_acc")
    before = [view.clone() for view in (qpos, joint_pos, effort, acc)]
    sim.step(torch.ones(N, 2))
    assert all((view != old).any() for view, old in zip((qpos, joint_pos, effort, acc), before, strict=True))
    assert torch.equal(joint_pos, qpos[:, :2])
    sim.set_state(ALL, QPOS, QVEL)
    assert_near(qpos, QPOS)
    assert (sim.joint_effort == 0).all(), "a servo that holds the pose it is in pushes nothing"
    assert torch.equal(effort, sim.joint_effort)


def test_state_can_be_written(sim: BatchSim) -> None:
    sim.joint_pos[2, SLIDE] = 0.25
    sim.qvel[3, SLIDE] = 0.5
    sim.step(torch.zeros(N, 2))
    start = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.25, 0.0], [0.0, 0.5]])
    assert_near(sim.qpos[:, SLIDE], torch.tensor([cart(x, v, [0.0] * SUBSTEPS)[0] for x, v in start.tolist()]))


def test_a_state_that_is_written_is_as_one_that_is_set_but_for_what_it_reads(make: Callable[[], BatchSim]) -> None:
    written, whole = make(), make()
    worlds, qpos, qvel = torch.tensor([1, 3]), QPOS[:2].clone(), QVEL[:2].clone()
    qpos[:, SLIDE], qvel[:, SWING] = torch.tensor([0.2, -0.3]), torch.tensor([1.0, 2.0])
    for sim in (written, whole):
        sim.step(targets(0))
    whole.set_state(worlds, qpos, qvel)
    written.write_state(worlds, qpos, qvel)
    assert torch.equal(written.qpos, whole.qpos)
    assert torch.equal(written.qvel, whole.qvel)
    written.refresh(worlds)
    assert torch.equal(everything(written, [0, 1, 2, 3]), everything(whole, [0, 1, 2, 3]))
    written.write_state(worlds, qpos, qvel)
    for sim in (written, whole):
        sim.step(targets(1))
    assert torch.equal(everything(written, [0, 1, 2, 3]), everything(whole, [0, 1, 2, 3]))


def test_any_state_can_be_seen_as_the_worlds_are(sim: BatchSim) -> None:
    qpos, qvel = torch.rand(3, 9).to(sim.qpos), torch.rand(3, 8).to(sim.qvel)
    view = sim.view(qpos.double(), qvel.double())
    assert view.qpos.dtype is view.joint_pos.dtype is sim.qpos.dtype
    assert view.qvel.dtype is sim.qvel.dtype
    assert torch.equal(view.joint_pos, qpos[:, :2])
    assert torch.equal(view.joint_vel, qvel[:, :2])
    pose, speed = view.free_joint("ball")
    assert torch.equal(pose, qpos[:, 2:])
    assert torch.equal(speed, qvel[:, 2:])


def cart(x: float, v: float, ctrl: list[float], mass: float = CART_KG, damping: float = 0.0) -> tuple[float, float]:
    """The cart after one physics step for each target. Damping is integrated implicitly."""
    for u in ctrl:
        v = (v + DT * CART_KP * (u - x) / mass) / (1 + DT * damping / mass)
        x += DT * v
    return x, v


def test_one_target_for_a_period_and_one_for_each_physics_step(sim: BatchSim) -> None:
    sim.step(torch.tensor([0.3, -0.2]).expand(N, 2))
    x, v = cart(0.0, 0.0, [0.3] * SUBSTEPS)
    assert_near(sim.qpos[:, SLIDE], torch.full((N,), x))
    assert_near(sim.qvel[:, SLIDE], torch.full((N,), v))
    each = [[0.1 * (world + 1) * (step - 2) for step in range(SUBSTEPS)] for world in range(N)]
    plan = torch.zeros(N, SUBSTEPS, 2)
    plan[:, :, SLIDE] = torch.tensor(each)
    sim.step(plan)
    assert_near(sim.qpos[:, SLIDE], torch.tensor([cart(x, v, ctrl)[0] for ctrl in each]), digits=6)
    assert_near(sim.qvel[:, SLIDE], torch.tensor([cart(x, v, ctrl)[1] for ctrl in each]))


def test_effort_and_sensors_are_those_of_the_last_physics_step(sim: BatchSim) -> None:
    sim.step(torch.tensor([0.4, 0.0]).expand(N, 2))
    x, _ = cart(0.0, 0.0, [0.4] * (SUBSTEPS - 1))
    force = CART_KP * (0.4 - x)
    assert_near(sim.joint_effort[:, SLIDE], torch.full((N,), force))
    assert_near(sim.sensor("imu_acc"), torch.tensor([force / CART_KG, 0.0, GRAVITY]).expand(N, 3), digits=4)


def test_physics_steps_can_be_traced(sim: BatchSim, backend: Factory) -> None:
    """Each step's state, against the closed form; those of a period are overwritten by the next."""
    if backend is isaac_gym_double:
        with pytest.raises(ConfigError, match="does not tell of single physics steps"):
            sim.trace()
        return
    trace = sim.trace()
    sim.step(torch.tensor([0.3, 0.0]).expand(N, 2))
    sim.step(torch.tensor([-0.2, 0.0]).expand(N, 2))
    plan = [0.3] * SUBSTEPS + [-0.2] * SUBSTEPS
    assert trace.joint_pos.shape == (N, SUBSTEPS, 2)
    for step in range(SUBSTEPS):
        x, v = cart(0.0, 0.0, plan[: SUBSTEPS + step + 1])
        before, _ = cart(0.0, 0.0, plan[: SUBSTEPS + step])
        assert_near(trace.joint_pos[:, step, SLIDE], torch.full((N,), x))
        assert_near(trace.joint_vel[:, step, SLIDE], torch.full((N,), v))
        assert_near(trace.joint_effort[:, step, SLIDE], torch.full((N,), CART_KP * (-0.2 - before)))
        fallen = torch.full((N,), 100.0 - fallen_m(SUBSTEPS + step + 1))
        assert_near(trace.free_joint("ball")[0][:, step, 2], fallen, digits=6)
    assert trace.sensor("imu_acc").shape == (N, SUBSTEPS, 3)
    assert_near(trace.sensor("imu_acc")[:, -1], sim.sensor("imu_acc"))
    assert_near(trace.qpos[:, -1], sim.qpos)


def fallen_m(steps: int, gravity: float = GRAVITY) -> float:
    return gravity * DT**2 * steps * (steps + 1) / 2


def test_free_joint(sim: BatchSim) -> None:
    pose, velocity = sim.free_joint("ball")
    velocity[:, :3] = torch.tensor([1.0, 2.0, 0.0])
    for _ in range(20):
        sim.step(torch.zeros(N, 2))
    time = 20 * SUBSTEPS * DT
    expected = torch.tensor([time, -2.0 + 2.0 * time, 100.0 - fallen_m(20 * SUBSTEPS)]).expand(N, 3)
    assert_near(pose[:, :3], expected, digits=5)
    assert_near(velocity[:, 2], torch.full((N,), -GRAVITY * time))
    with pytest.raises(ConfigError, match=r"'cart'.*valid: ball"):
        sim.free_joint("cart")


def test_gravity_of_each_world(sim: BatchSim) -> None:
    gravity = sim.model_field("opt.gravity")
    gravity[:, 2] = torch.tensor([-9.81, -1.62, -20.0, 0.0])
    sim.apply_model(ALL)
    for _ in range(10):
        sim.step(torch.zeros(N, 2))
    expected = [100.0 - fallen_m(10 * SUBSTEPS, g) for g in (9.81, 1.62, 20.0, 0.0)]
    assert_near(sim.qpos[:, BALL_Z], torch.tensor(expected), digits=6)
    assert_near(sim.nominal("opt.gravity"), torch.tensor([0.0, 0.0, -9.81]))


def test_mass_and_damping_of_each_world(sim: BatchSim) -> None:
    masses, dampings = (2.0, 1.0, 3.0, 2.5), (0.0, 4.0, 0.0, 9.0)
    sim.model_field("body_mass")[:, 1] = torch.tensor(masses)
    sim.model_field("dof_damping")[:, SLIDE] = torch.tensor(dampings)
    sim.apply_model(ALL)
    for _ in range(10):
        sim.step(torch.tensor([0.4, 0.0]).expand(N, 2))
    ends = [cart(0.0, 0.0, [0.4] * 10 * SUBSTEPS, m, d)[0] for m, d in zip(masses, dampings, strict=True)]
    assert_near(sim.qpos[:, SLIDE], torch.tensor(ends))
    assert_near(sim.nominal("body_mass")[1], torch.tensor(CART_KG))


def test_gains_of_each_world(sim: BatchSim) -> None:
    factors = torch.tensor([1.0, 0.5, 2.0, 0.0])
    for name, column in (("actuator_gainprm", 0), ("actuator_biasprm", 1)):
        sim.model_field(name)[:, SLIDE, column] *= factors
    sim.apply_model(ALL)
    sim.step(torch.tensor([0.4, 0.0]).expand(N, 2))
    # A gain of kp f is a cart of mass m / f.
    ends = [cart(0.0, 0.0, [0.4] * SUBSTEPS, CART_KG / max(f, 1e-12))[0] for f in factors.tolist()]
    assert_near(sim.qpos[:, SLIDE], torch.tensor(ends), digits=6)


def test_pendulum_swings_with_the_period_of_its_gravity_and_inertia(sim: BatchSim) -> None:
    """T = 2 pi sqrt(I / (m g l)) for small swings; the discrete one lags by a tenth of a percent at most."""
    armature = (0.0, 0.1, 0.0, 0.3)
    gravity = (9.81, 9.81, 3.71, 5.0)
    sim.model_field("dof_armature")[:, SWING] = torch.tensor(armature)
    sim.model_field("opt.gravity")[:, 2] = -torch.tensor(gravity)
    sim.apply_model(ALL)
    qpos = QPOS.clone()
    qpos[:, SWING] = 0.01
    sim.set_state(ALL, qpos, QVEL)
    angles = [sim.qpos[:, SWING].clone()]
    for _ in range(400):
        sim.step(torch.zeros(N, 2))
        angles.append(sim.qpos[:, SWING].clone())
    inertia = BOB_KG * LENGTH_M**2 + BOB_INERTIA
    for world in range(N):
        theory = 2 * math.pi * math.sqrt((inertia + armature[world]) / (BOB_KG * gravity[world] * LENGTH_M))
        assert period_s([float(a[world]) for a in angles]) == pytest.approx(theory, rel=2e-3)


def period_s(angles: list[float]) -> float:
    """Twice the time between the first two passages through zero, interpolated."""
    crossings = [i + a / (a - b) for i, (a, b) in enumerate(pairwise(angles)) if (a > 0) != (b > 0)]
    return 2 * (crossings[1] - crossings[0]) * SUBSTEPS * DT


def test_worlds_that_start_afresh_do_not_touch_the_others(make: Callable[[], BatchSim]) -> None:
    some, none = make(), make()
    for sim in (some, none):
        sim.model_field("body_mass")[:] *= torch.linspace(0.8, 1.2, N, device=sim.device).unsqueeze(1)
        sim.apply_model(ALL)
    for i in range(6):
        if i == 3:
            some.model_field("body_mass")[[1, 3]] *= 1.3
            some.apply_model(torch.tensor([1, 3]))
            some.set_state(torch.tensor([1, 3]), QPOS[:2] + 0.1, QVEL[:2])
        assert torch.equal(everything(some, [0, 2]), everything(none, [0, 2]))
        for sim in (some, none):
            sim.step(targets(i))
    assert torch.equal(everything(some, [0, 2]), everything(none, [0, 2]))
    assert not torch.equal(everything(some, [1, 3]), everything(none, [1, 3]))


def test_a_fresh_start_remembers_nothing(make: Callable[[], BatchSim]) -> None:
    used, new = make(), make()
    for i in range(3):
        used.step(targets(i))
    used.set_state(ALL, QPOS, QVEL)
    assert torch.equal(everything(used, [0, 1, 2, 3]), everything(new, [0, 1, 2, 3]))
    for i in range(3):
        for sim in (used, new):
            sim.step(targets(10 + i))
        assert torch.equal(everything(used, [0, 1, 2, 3]), everything(new, [0, 1, 2, 3]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e12])
@pytest.mark.parametrize("field", ["qpos", "qvel"])
def test_one_world_fails_alone(make: Callable[[], BatchSim], field: str, value: float, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning to a file in the working directory
    ill, well = make(), make()
    getattr(ill, field)[1, SWING if field == "qvel" else BALL_Z] = value
    for i in range(3):
        for sim in (ill, well):
            sim.step(targets(i))
        assert ill.failed.tolist() == [False, True, False, False]
        assert torch.equal(everything(ill, [0, 2, 3]), everything(well, [0, 2, 3]))
    for sim in (ill, well):
        sim.set_state(torch.tensor([1]), QPOS[:1], QVEL[:1])
    assert not ill.failed.any()
    for i in range(3):
        for sim in (ill, well):
            sim.step(targets(i))
        assert torch.equal(everything(ill, [0, 1, 2, 3]), everything(well, [0, 1, 2, 3]))


def test_state_dict_goes_on_exactly(make: Callable[[], BatchSim]) -> None:
    first, second = make(), make()
    for sim in (first, second):
        sim.model_field("body_mass")
    first.model_field("body_mass")[:] *= torch.linspace(0.7, 1.3, N, device=first.device).unsqueeze(1)
    first.apply_model(ALL)
    for i in range(4):
        first.step(targets(i))
    state = {name: value.clone() for name, value in first.state_dict().items()}
    first.step(targets(4))
    second.load_state_dict(state)
    second.step(targets(4))
    assert torch.equal(everything(second, [0, 1, 2, 3]), everything(first, [0, 1, 2, 3]))
    with pytest.raises(CheckpointError, match="does not fit"):
        second.load_state_dict({name: value[:-1] for name, value in state.items()})
    with pytest.raises(CheckpointError, match="does not fit"):
        make().load_state_dict(state)


def test_what_cannot_be_simulated_is_refused(backend: Factory) -> None:
    model = mujoco.MjModel.from_xml_string(SCENE)
    with pytest.raises(ConfigError, match="at least 1"):
        backend(model, ROBOT, 0, SUBSTEPS)
    swapped = dataclasses.replace(ROBOT, joints=ROBOT.joints[::-1])
    with pytest.raises(ConfigError, match="order"):
        backend(model, swapped, N, SUBSTEPS)
