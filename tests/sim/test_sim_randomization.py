"""Each randomised term changes the fields it names, within its range, and no other; and physics follows."""

import dataclasses
import math

import mujoco
import pytest
import torch

from robot_rl.contract import JointSpec
from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec, SafetyProfile
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.draws import Draws
from robot_rl_sim.models import add_motors, load_model
from robot_rl_sim.motors import MotorConfig, set_motors
from robot_rl_sim.randomization import NOMINAL, RandomizationConfig
from robot_rl_sim.randomizer import Randomizer

EVERYTHING = RandomizationConfig(
    inertia_scale=(0.8, 1.2),
    payload_kg=(-0.05, 0.2),
    com_shift_m=(-0.02, 0.02),
    terrain_friction=(0.3, 1.0),
    joint_friction_share=(0.0, 0.02),
    gravity_shift_m_s2=(-1.0, 1.0),
)
SCALES = {
    "link_mass_scale": {"body_mass", "body_inertia"},
    "inertia_scale": {"body_inertia"},
    "friction_scale": {"geom_friction"},
    "motor_strength_scale": {"actuator_gainprm", "actuator_biasprm", "actuator_forcerange"},
    "all_motors_scale": {"actuator_gainprm", "actuator_biasprm", "actuator_forcerange"},
    "kp_scale": {"actuator_gainprm", "actuator_biasprm"},
    "kd_scale": {"actuator_biasprm"},
    "joint_damping_scale": {"dof_damping"},
    "joint_frictionloss_scale": {"dof_frictionloss"},
    "armature_scale": {"dof_armature"},
}
SHIFTS = {
    "payload_kg": {"body_mass"},
    "com_shift_m": {"body_ipos"},
    "joint_friction_share": {"dof_frictionloss"},
    "gravity_shift_m_s2": {"opt.gravity"},
    "terrain_friction": {"geom_friction"},
}
FIELDS = sorted(set().union(*SCALES.values(), *SHIFTS.values()))

G = 9.81
LENGTH, MASS, INERTIA = 0.4, 0.5, 0.01
PENDULUM = RobotSpec(
    name="pendulum",
    variant="test",
    joints=(JointSpec("swing", -3.0, 3.0, 100.0, 50.0, 0.0, 200.0, 2.0),),
    armature_kg_m2=(0.0,),
    root_body="base",
    floating_base=False,
    safety=SafetyProfile(damping_kd_nms_rad=(0.05,), target_rate_limit_rad_s=(10.0,), joint_vel_trip_rad_s=(100.0,)),
    state_fields=("joint_pos", "joint_vel"),
)
XML = f"""
<mujoco><option timestep="0.001" integrator="RK4"/><worldbody><body name="base"><body name="rod">
  <inertial pos="0 0 -{LENGTH}" mass="{MASS}" diaginertia="{INERTIA} {INERTIA} {INERTIA}"/>
  <joint name="swing" type="hinge" axis="0 1 0"/><geom size="0.01" contype="0" conaffinity="0" mass="0"/>
</body></body></worldbody></mujoco>
"""


def leap(num_worlds: int) -> MujocoCpuSim:
    return MujocoCpuSim(load_model("leap_hand"), LEAP_HAND, num_worlds, 10, 1)


def randomize(sim: MujocoCpuSim, config: RandomizationConfig, robot: RobotSpec = LEAP_HAND) -> tuple[Randomizer, Draws]:
    """Every world, drawn with seed 0."""
    draws = Draws()
    randomizer = Randomizer(sim, robot, config, draws)
    draws.allocate(sim.num_worlds, sim.device)
    everyone = torch.arange(sim.num_worlds)
    draws.draw(everyone, torch.Generator().manual_seed(0))
    randomizer.reset(everyone)
    return randomizer, draws


def changed(sim: MujocoCpuSim) -> set[str]:
    return {f for f in FIELDS if not (sim.model_field(f) == sim.nominal(f)).all()}


@pytest.mark.parametrize("term", SCALES)
def test_a_scale_multiplies_its_fields_and_only_those(term: str) -> None:
    sim = leap(50)
    randomize(sim, dataclasses.replace(NOMINAL, **{term: (0.5, 2.0)}))
    assert changed(sim) == SCALES[term]
    for field in SCALES[term]:
        nominal, values = sim.nominal(field), sim.model_field(field)
        ratio = (values / nominal)[:, nominal.abs() > 0]
        touched = ratio[ratio != 1]
        assert touched.min() >= 0.5 - 1e-6
        assert touched.max() <= 2.0 + 1e-6
        assert touched.max() > 1.8
        assert not torch.equal(values[0], values[1])


@pytest.mark.parametrize("term", SHIFTS)
def test_a_shift_adds_to_its_fields_and_only_those(term: str) -> None:
    sim = leap(200)
    randomize(sim, dataclasses.replace(NOMINAL, **{term: (0.02, 0.06)}, trunk_body="palm"))
    assert changed(sim) == SHIFTS[term]
    (field,) = SHIFTS[term]
    difference = sim.model_field(field) - sim.nominal(field)
    if term == "terrain_friction":
        floor = load_model("leap_hand").geom_bodyid == 0
        difference = sim.model_field(field)[:, floor, 0]
    if term == "joint_friction_share":
        difference = difference / torch.tensor([j.effort_limit_nm for j in LEAP_HAND.joints])
    touched = difference[difference.abs() > 1e-9]
    assert 0.02 - 1e-6 <= touched.min() < 0.022
    assert 0.058 < touched.max() <= 0.06 + 1e-6


def test_mass_and_inertia_of_a_body_scale_together() -> None:
    sim = leap(5)
    randomize(sim, RandomizationConfig())
    mass = (sim.model_field("body_mass") / sim.nominal("body_mass"))[:, 1:]
    inertia = (sim.model_field("body_inertia") / sim.nominal("body_inertia"))[:, 1:]
    torch.testing.assert_close(inertia, mass.unsqueeze(-1).expand_as(inertia))


def test_a_servo_stays_a_servo() -> None:
    """Gain and bias must carry the same kp, or a scaled servo would pull towards another target than the one given."""
    sim = leap(5)
    randomize(sim, RandomizationConfig())
    gain, bias = sim.model_field("actuator_gainprm"), sim.model_field("actuator_biasprm")
    torch.testing.assert_close(gain[..., 0], -bias[..., 1], rtol=0, atol=0)
    assert (bias[..., 0] == 0).all()


def test_only_the_worlds_asked_for_change() -> None:
    sim = leap(4)
    randomizer, draws = randomize(sim, EVERYTHING)
    before, rows = {f: sim.model_field(f).clone() for f in FIELDS}, draws.values.clone()
    draws.draw(torch.tensor([2]), torch.Generator().manual_seed(1))
    randomizer.reset(torch.tensor([2]))
    for field, old in (before | {"draws": rows}).items():
        new = draws.values if field == "draws" else sim.model_field(field)
        assert torch.equal(new[[0, 1, 3]], old[[0, 1, 3]])
        assert not torch.equal(new[2], old[2])


def test_nominal_touches_nothing_and_draws_nothing() -> None:
    sim = leap(2)
    _, draws = randomize(sim, NOMINAL)
    assert set(sim.state_dict()) == {"rows", "joint_effort", "sensordata"}
    assert draws.values.shape == (2, 0)


def test_draws_are_uniform_and_say_what_was_written() -> None:
    """Of every column, the number in [-1, 1] is where the value lies in its range."""
    sim = leap(400)
    _, draws = randomize(sim, EVERYTHING)
    assert draws.values.abs().max() <= 1
    assert draws.values.mean(0).abs().max() < 0.15
    assert (draws.values.std(0) - 1 / math.sqrt(3)).abs().max() < 0.06
    columns = dict(zip([n for n, _ in draws.layout], draws.values.split([k for _, k in draws.layout], 1), strict=True))
    low, high = EVERYTHING.armature_scale
    armature = (sim.model_field("dof_armature") / sim.nominal("dof_armature")).float()
    torch.testing.assert_close(columns["armature_scale"], 2 * (armature - low) / (high - low) - 1, atol=1e-4, rtol=0)
    assert columns["gravity_shift_m_s2"].shape == (400, 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kp_scale": (1.2, 0.8)}, r"kp_scale.*\(1.2, 0.8\)"),
        ({"friction_scale": (-0.1, 0.8)}, "friction_scale"),
        ({"gravity_shift_m_s2": (float("nan"), 0.8)}, "gravity_shift_m_s2"),
        ({"torque_noise_share": 1.5}, "torque_noise_share"),
    ],
)
def test_bad_ranges_are_refused(config: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RandomizationConfig(**config)


def test_unknown_trunks_and_payloads_that_leave_no_mass_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'tail'; valid: .*palm"):
        randomize(leap(1), dataclasses.replace(NOMINAL, payload_kg=(0, 1), trunk_body="tail"))
    with pytest.raises(ConfigError, match="leaves no mass to 'palm'"):
        randomize(leap(1), dataclasses.replace(NOMINAL, payload_kg=(-5, 1)))


def pendulum(num_worlds: int, config: RandomizationConfig, *, limp: bool = False) -> tuple[MujocoCpuSim, Draws]:
    spec = mujoco.MjSpec.from_string(XML)
    add_motors(spec, PENDULUM)
    set_motors(spec, PENDULUM, config.motor)
    model = spec.compile()
    if limp:
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
    sim = MujocoCpuSim(model, PENDULUM, num_worlds, 5, 1)
    return sim, randomize(sim, config, PENDULUM)[1]


def period_s(sim: MujocoCpuSim, rest: torch.Tensor) -> torch.Tensor:
    """(n,) of free swings by 0.02 rad about `rest` (n,): twice the time between two crossings of it, interpolated."""
    n = sim.num_worlds
    sim.set_state(torch.arange(n), (rest + 0.02).unsqueeze(1), torch.zeros(n, 1))
    angles = []
    for _ in range(500):
        sim.step(torch.zeros(n, 1))
        angles.append(sim.qpos[:, 0] - rest)
    times = []
    for a in torch.stack(angles, 1):
        crossings = ((a[:-1] * a[1:]) < 0).nonzero()[:2, 0].tolist()
        first, second = (0.005 * (i + float(a[i] / (a[i] - a[i + 1]))) for i in crossings)
        times.append(2 * (second - first))
    return torch.tensor(times)


def expected_period_s(g: torch.Tensor, mass: torch.Tensor, inertia: torch.Tensor, arm: torch.Tensor) -> torch.Tensor:
    return 2 * math.pi * torch.sqrt((inertia + mass * arm**2) / (mass * g * arm))


def test_a_pendulum_swings_by_the_gravity_of_its_world() -> None:
    config = dataclasses.replace(NOMINAL, gravity_shift_m_s2=(-2.0, 2.0))
    sim, _ = pendulum(8, config, limp=True)
    gravity = sim.model_field("opt.gravity")
    # Sideways gravity along the axis of rotation does nothing; along x it shifts the rest angle.
    gravity[:, 0] = 0.0
    expected = expected_period_s(-gravity[:, 2], torch.tensor(MASS), torch.tensor(INERTIA), torch.tensor(LENGTH))
    assert expected.std() > 0.02
    torch.testing.assert_close(period_s(sim, torch.zeros(8)), expected.float(), rtol=2e-3, atol=0)


def test_a_pendulum_swings_by_the_inertia_and_the_centre_of_mass_of_its_world() -> None:
    config = dataclasses.replace(
        NOMINAL, inertia_scale=(0.5, 3.0), link_mass_scale=(0.5, 2.0), com_shift_m=(0.0, 0.1), trunk_body="rod"
    )
    sim, draws = pendulum(8, config, limp=True)
    drawn = dict(zip([n for n, _ in draws.layout], draws.values.split([k for _, k in draws.layout], 1), strict=True))
    mass = MASS * (1.25 + 0.75 * drawn["link_mass_scale"][:, 1])
    inertia = INERTIA * mass / MASS * (1.75 + 1.25 * drawn["inertia_scale"][:, 1])
    x, z = 0.05 + 0.05 * drawn["com_shift_m"][:, 0], 0.05 + 0.05 * drawn["com_shift_m"][:, 2] - LENGTH
    expected = expected_period_s(torch.tensor(G), mass, inertia, torch.sqrt(x**2 + z**2))
    # It hangs off the vertical by the angle of its centre of mass.
    torch.testing.assert_close(period_s(sim, torch.atan2(x, -z)), expected, rtol=2e-3, atol=0)


def test_a_payload_and_a_link_weigh_what_they_should() -> None:
    """A stiff servo holds the rod level: its torque is weight times arm."""
    config = dataclasses.replace(NOMINAL, payload_kg=(-0.2, 2.0), link_mass_scale=(0.8, 1.2), trunk_body="rod")
    sim, draws = pendulum(6, config)
    drawn = dict(zip([n for n, _ in draws.layout], draws.values.split([k for _, k in draws.layout], 1), strict=True))
    mass = MASS * (1 + 0.2 * drawn["link_mass_scale"][:, 1]) + (0.9 + 1.1 * drawn["payload_kg"][:, 0])
    target = torch.full((6, 1), -math.pi / 2)
    sim.set_state(torch.arange(6), target, torch.zeros(6, 1))
    for _ in range(1500):
        sim.step(target)
    angle = sim.qpos[:, 0].float()
    assert sim.qvel.abs().max() < 1e-6
    expected = mass * G * LENGTH * angle.sin()
    torch.testing.assert_close(sim.joint_effort[:, 0].float(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("motor", [MotorConfig(), MotorConfig("dc_motor", 1.0, 1.0)])
def test_a_weak_motor_delivers_its_share_of_torque_and_of_its_limit(motor: MotorConfig) -> None:
    config = dataclasses.replace(NOMINAL, motor_strength_scale=(0.5, 1.5), motor=motor)
    sim, draws = pendulum(6, config)
    strength = 1 + 0.5 * draws.values[:, :1]
    everyone = torch.arange(6)
    for target, speed, torque in (
        (0.1, 0.0, 20.0),  # kp × error
        (0.1, 4.0, 20.0 - 8.0),  # less kd × speed
        (3.0, 0.0, 50.0),  # the effort limit
        (3.0, 60.0, 50.0 if motor.kind == "pd" else 20.0),  # the torque-speed line at 0.6 of the no-load speed
    ):
        sim.set_state(everyone, torch.zeros(6, 1), torch.full((6, 1), speed))
        sim._ctrl[:] = target
        sim._batch.forward()
        torch.testing.assert_close(sim.joint_effort.float(), strength * torque, rtol=1e-5, atol=0)


def test_all_motors_of_a_robot_are_as_strong_as_each_other_and_differ_between_episodes() -> None:
    sim = leap(20)
    randomize(sim, dataclasses.replace(NOMINAL, all_motors_scale=(0.5, 1.5)))
    strength = sim.model_field("actuator_forcerange")[..., 1] / sim.nominal("actuator_forcerange")[..., 1]
    gain = sim.model_field("actuator_gainprm")[..., 0] / sim.nominal("actuator_gainprm")[..., 0]
    torch.testing.assert_close(gain, strength)
    torch.testing.assert_close(strength, strength[:, :1].expand_as(strength))
    assert strength[:, 0].std() > 0.15


def test_dry_friction_holds_against_a_torque_below_it_in_every_world() -> None:
    """Gravity, turned to pull sideways, is 0.8 and then 1.5 times the friction that the world drew."""
    config = dataclasses.replace(NOMINAL, joint_friction_share=(0.01, 0.05))
    sim, draws = pendulum(8, config, limp=True)
    friction = (50.0 * (0.03 + 0.02 * draws.values[:, 0])).double()
    inertia = INERTIA + MASS * LENGTH**2
    speeds = []
    for factor in (0.8, 1.5):
        gravity = sim.model_field("opt.gravity")
        gravity[:, 2] = 0.0
        gravity[:, 0] = -factor * friction / (MASS * LENGTH)
        sim.set_state(torch.arange(8), torch.zeros(8, 1), torch.zeros(8, 1))
        for _ in range(10):
            sim.step(torch.zeros(8, 1))
        speeds.append(sim.qvel[:, 0].abs())
    held, moving = speeds
    # MuJoCo's friction is a little soft: it lets a joint creep, here by less than a tenth of what it would fall.
    assert (held < 0.1 * 0.8 * friction / inertia * 0.05).all()
    torch.testing.assert_close(moving, 0.5 * friction / inertia * 0.05, rtol=0.1, atol=0)


def test_a_humanoids_bodies_change_sides_as_its_joints_do() -> None:
    sim = MujocoCpuSim(load_model("unitree_g1"), UNITREE_G1, 3, 4, 1)
    _, draws = randomize(sim, dataclasses.replace(NOMINAL, link_mass_scale=(0.5, 2.0)), UNITREE_G1)
    names = [sim.model.body(i).name for i in range(1, sim.model.nbody)]
    for name, (image, sign) in zip(names, draws.mirror, strict=True):
        assert names[image] == name.replace("left", "?").replace("right", "left").replace("?", "right")
        assert sign == 1
