"""The simulated robot against hand-computed dynamics: a pendulum-free rotor whose motion has a closed form."""

import dataclasses
import math

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.contract import JointCommand, JointSpec, damping_command
from robot_rl.errors import ConfigError, ContractError
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec, SafetyProfile
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.draws import Draws
from robot_rl_sim.models import load_model
from robot_rl_sim.sensors import Sensors
from robot_rl_sim.sim_robot import SimRobot
from robot_rl_sim.sim_robot_config import MISMATCHED, NOMINAL, SimRobotConfig

INERTIA = 0.01
LIMIT = 0.5

ROTOR = RobotSpec(
    name="rotor",
    variant="test",
    joints=(JointSpec("spin", -3.0, 3.0, 100.0, LIMIT, 0.0, 2.0, 0.1),),
    armature_kg_m2=(0.0,),
    root_body="base",
    floating_base=False,
    safety=SafetyProfile(damping_kd_nms_rad=(0.05,), target_rate_limit_rad_s=(10.0,), joint_vel_trip_rad_s=(100.0,)),
    state_fields=("joint_pos", "joint_vel", "joint_effort"),
)

XML = f"""
<mujoco><option gravity="0 0 0"/><worldbody><body name="base"><body name="arm">
  <inertial pos="0 0 0" mass="1" diaginertia="{INERTIA} {INERTIA} {INERTIA}"/>
  <joint name="spin" type="hinge" axis="0 0 1" damping="0.02" armature="0.002"/>
  <geom size="0.01" contype="0" conaffinity="0" mass="0"/>
</body></body></worldbody>
<actuator><position joint="spin" kp="50" kv="5"/></actuator></mujoco>
"""


class StepClock:
    def __init__(self) -> None:
        self.time_s = 100.0

    def now(self) -> float:
        return self.time_s

    def sleep_until(self, deadline_s: float) -> None:
        self.time_s = max(self.time_s, deadline_s)


def rotor(seed: int = 0, **changes: float | str) -> tuple[SimRobot, StepClock]:
    clock = StepClock()
    config = SimRobotConfig(**{"timestep_s": 1e-4, "state_period_s": 1e-3, "catch_up_s": 10.0, **changes})
    robot = SimRobot(ROTOR, config, seed=seed, clock=clock, model=mujoco.MjModel.from_xml_string(XML))
    robot.connect()
    return robot, clock


def command(clock: StepClock, *, position=0.0, velocity=0.0, effort=0.0, kp=0.0, kd=0.0, ttl=1e3) -> JointCommand:
    values = (np.array([float(x)]) for x in (position, velocity, effort, kp, kd))
    return JointCommand(*values, clock.now(), clock.now() + ttl)


def spring_response(t: np.ndarray, target: float, inertia: float, kp: float, kd: float) -> np.ndarray:
    """Step response from rest of I q'' + kd q' + kp (q - target) = 0, under-damped."""
    sigma, omega = kd / (2 * inertia), np.sqrt(kp / inertia - (kd / (2 * inertia)) ** 2)
    return target * (1 - np.exp(-sigma * t) * (np.cos(omega * t) + sigma / omega * np.sin(omega * t)))


@pytest.mark.parametrize("scale", [1.0, 1.15])
def test_the_gains_of_the_command_are_obeyed_and_not_the_models(scale: float) -> None:
    robot, clock = rotor(mass_scale=scale)
    robot.write(command(clock, position=0.1, kp=2.0, kd=0.1))
    times, positions = np.arange(1, 60) * 5e-3, []
    for t in times:
        clock.time_s = 100.0 + t
        robot.advance()
        positions.append(robot.joint_pos[0])
    expected = spring_response(times, 0.1, scale * INERTIA + 0.002, 2.0, 0.1 + 0.02)
    np.testing.assert_allclose(positions, expected, atol=2e-4)


def test_torque_is_limited_scaled_and_reported() -> None:
    robot, clock = rotor(strength_scale=0.9, damping_scale=0.0)
    robot.write(command(clock, effort=10 * LIMIT))
    clock.time_s += 0.05
    state = robot.read()
    assert state is not None
    assert state.joint_effort is not None
    assert state.joint_effort[0, 0] == pytest.approx(0.9 * LIMIT)
    assert robot.joint_vel[0] == pytest.approx(0.9 * LIMIT / (INERTIA + 0.002) * 0.05, rel=1e-3)


def test_an_expired_command_is_replaced_by_the_robots_own_damping_at_once() -> None:
    robot, clock = rotor(damping_scale=0.0)
    robot.write(command(clock, effort=0.1, ttl=0.1))
    clock.time_s += 0.1
    robot.advance()
    at_expiry = robot.joint_vel[0]
    assert at_expiry == pytest.approx(0.1 / 0.012 * 0.1, rel=1e-3)
    assert not robot.damping
    clock.time_s += 0.2
    robot.advance()
    assert robot.damping
    assert robot.joint_vel[0] == pytest.approx(at_expiry * np.exp(-0.05 / 0.012 * 0.2), rel=1e-2)


def test_it_damps_before_the_first_command_on_a_damping_command_and_after_stop() -> None:
    robot, clock = rotor()
    clock.time_s += 0.01
    robot.advance()
    assert robot.damping
    robot.write(command(clock, kp=1.0))
    clock.time_s += 0.01
    robot.advance()
    assert not robot.damping
    robot.write(damping_command(np.array([0.05]), clock.now(), 1.0))
    clock.time_s += 0.01
    robot.advance()
    assert robot.damping
    robot.write(command(clock, kp=1.0))
    robot.stop()
    robot.stop()
    clock.time_s += 0.01
    robot.advance()
    assert robot.damping


def test_state_arrives_late_with_the_time_of_its_measurement() -> None:
    robot, clock = rotor(state_latency_s=0.02)
    clock.time_s += 0.0195
    assert robot.read() is None
    clock.time_s += 0.01
    state = robot.read()
    assert state is not None
    age = clock.now() - state.stamp_s[0]
    assert 0.02 <= age < 0.0212


def test_jitter_never_hands_out_an_older_state_after_a_newer() -> None:
    robot, clock = rotor(latency_jitter_s=0.02)
    stamps = []
    for _ in range(300):
        clock.time_s += 0.001
        if (state := robot.read()) is not None:
            stamps.append(state.stamp_s[0])
    assert len(set(stamps)) > 50
    assert stamps == sorted(stamps)


def test_drops_noise_and_bias_have_the_configured_size() -> None:
    robot, clock = rotor(drop_probability=0.3, joint_pos_noise_rad=0.01, joint_vel_noise_rad_s=0.2)
    stamps, positions, velocities = [], [], []
    for _ in range(4000):
        clock.time_s += 0.001
        state = robot.read()
        if state is not None and (not stamps or state.stamp_s[0] > stamps[-1]):
            stamps.append(state.stamp_s[0])
            positions.append(state.joint_pos[0, 0])
            velocities.append(state.joint_vel[0, 0])
    assert len(stamps) / 4000 == pytest.approx(0.7, abs=0.03)
    assert np.std(positions) == pytest.approx(0.01, rel=0.1)
    assert np.std(velocities) == pytest.approx(0.2, rel=0.1)
    assert abs(np.mean(positions)) < 0.001


def test_an_encoder_offset_shifts_the_measurement_and_the_regulated_position_alike() -> None:
    robot, clock = rotor(seed=1, joint_bias_rad=0.05)
    first = clock.time_s
    clock.time_s += 0.002
    state = robot.read()
    assert state is not None
    bias = state.joint_pos[0, 0]
    assert 0.001 < abs(bias) < 0.2
    robot.write(command(clock, position=0.3, kp=2.0, kd=0.2))
    clock.time_s = first + 3.0
    state = robot.read()
    assert state is not None
    assert state.joint_pos[0, 0] == pytest.approx(0.3, abs=1e-3)
    assert robot.joint_pos[0] == pytest.approx(0.3 - bias, abs=1e-3)


def test_a_command_acts_after_its_latency_and_those_on_their_way_keep_their_order() -> None:
    """Torque 0.1 N m from 20 ms on, and then -0.1 N m: velocity by hand."""
    robot, clock = rotor(command_latency_s=0.02, damping_scale=0.0)
    robot.write(command(clock, effort=0.1))
    clock.time_s += 0.01
    robot.write(command(clock, effort=-0.1))
    for at_s, expected in ((0.0199, 0.0), (0.03, 0.1 * 0.01), (0.04, 0.0), (0.05, -0.1 * 0.01)):
        clock.time_s = 100.0 + at_s
        robot.advance()
        assert robot.joint_vel[0] * 0.012 == pytest.approx(expected, abs=3e-5)
    robot.write(command(clock, effort=0.1))
    robot.stop()
    speed = robot.joint_vel[0]
    clock.time_s += 0.05
    robot.advance()
    assert abs(robot.joint_vel[0]) < abs(speed)
    assert robot.damping


def test_a_dc_motor_runs_up_to_its_no_load_speed() -> None:
    """At full torque: ω(t) = ω_0 (1 - exp(-t τ / (I ω_0))), ω_0 a tenth of the velocity limit of 100 rad/s."""
    robot, clock = rotor(motor="dc_motor", no_load_speed_scale=0.1, damping_scale=0.0)
    robot.write(command(clock, effort=100 * LIMIT))
    for _ in range(40):
        clock.time_s += 0.02
        state = robot.read()
        assert state is not None
        t = clock.time_s - 100.0
        expected = 10.0 * (1 - math.exp(-t * LIMIT / (0.012 * 10.0)))
        assert robot.joint_vel[0] == pytest.approx(expected, abs=0.01)
        assert state.joint_effort[0, 0] == pytest.approx(LIMIT * (1 - robot.joint_vel[0] / 10.0), abs=0.01)


def test_torque_noise_is_drawn_for_each_command_within_its_share_of_the_limit() -> None:
    robot, clock = rotor(torque_noise_share=0.1)
    efforts = []
    for _ in range(300):
        robot.write(command(clock, effort=0.1, ttl=1.0))
        clock.time_s += 0.002
        state = robot.read()
        assert state is not None
        efforts.append(state.joint_effort[0, 0] - 0.1)
    assert 0.095 * LIMIT < np.abs(efforts).max() <= 0.1 * LIMIT + 1e-6
    assert len(set(efforts)) == 300


def test_encoders_come_in_steps() -> None:
    robot, clock = rotor(joint_pos_resolution_rad=0.01)
    robot.write(command(clock, effort=0.1))
    seen = set()
    for _ in range(100):
        clock.time_s += 0.002
        state = robot.read()
        assert state is not None
        seen.add(round(float(state.joint_pos[0, 0]), 7))
        assert state.joint_pos[0, 0] == pytest.approx(0.01 * round(robot.joint_pos[0] / 0.01), abs=1e-6)
    assert len(seen) > 5


def test_it_senses_what_training_senses_and_moves_as_training_moves() -> None:
    """The same targets for the same hand in a training environment without flaws and in the robot without flaws."""
    sim = MujocoCpuSim(load_model("leap_hand"), LEAP_HAND, 1, 10, 1)
    start = torch.tensor([[j.default_pos_rad for j in LEAP_HAND.joints]])
    sim.set_state(torch.zeros(1, dtype=torch.int64), start, torch.zeros_like(start))
    draws, clock = Draws(), StepClock()
    sensors = Sensors(sim, LEAP_HAND, ("joint_pos", "joint_vel"), NOMINAL.sensors, draws)
    draws.allocate(1, torch.device("cpu"))
    sensors.reset(torch.arange(1))
    config = dataclasses.replace(NOMINAL, timestep_s=sim.model.opt.timestep, state_period_s=0.005)
    robot = SimRobot(LEAP_HAND, config, clock=clock)
    robot.connect()
    kp, kd = (np.array([getattr(j, name) for j in LEAP_HAND.joints]) for name in ("kp_nm_rad", "kd_nms_rad"))
    zero, rng = np.zeros(16), np.random.default_rng(0)
    target = robot.joint_pos.copy()
    for _ in range(20):
        target += 0.1 * rng.uniform(-1, 1, 16)
        robot.write(JointCommand(target.copy(), zero, zero, kp, kd, clock.now(), clock.now() + 1.0))
        clock.time_s += 10 * sim.model.opt.timestep
        theirs = robot.read()
        sim.trace()
        sim.step(torch.from_numpy(target).unsqueeze(0))
        sensors.update(sim.trace())
        ours = sensors.read(torch.Generator())
        assert theirs is not None
        np.testing.assert_allclose(theirs.joint_pos, ours.joint_pos, atol=0.02)
    np.testing.assert_allclose(theirs.joint_pos, robot.joint_pos[None], atol=1e-6)


def test_a_robot_that_is_only_written_to_keeps_no_endless_record() -> None:
    robot, clock = rotor(timestep_s=1e-3)
    for _ in range(50):
        robot.write(command(clock, effort=0.01))
        clock.time_s += 0.1
    robot.advance()
    assert len(robot._rows) < 1000
    state = robot.read()
    assert state is not None
    assert clock.now() - state.stamp_s[0] < 0.002


def test_equal_seeds_give_equal_robots_and_other_seeds_do_not() -> None:
    def run(seed: int) -> np.ndarray:
        clock = StepClock()
        robot = SimRobot(LEAP_HAND, MISMATCHED, seed=seed, clock=clock)
        robot.connect()
        clock.time_s += 0.05
        state = robot.read()
        assert state is not None
        return state.joint_pos

    np.testing.assert_array_equal(run(3), run(3))
    assert np.abs(run(3) - run(4)).max() > 1e-4


def test_a_clock_that_runs_away_makes_simulated_time_slip() -> None:
    robot, clock = rotor(catch_up_s=0.25)
    clock.time_s += 5.0
    state = robot.read()
    assert robot.slipped_s == pytest.approx(4.75)
    assert state is not None
    assert clock.now() - state.stamp_s[0] < 0.01


def test_dry_friction_holds_against_a_torque_below_it() -> None:
    robot, clock = rotor(joint_friction_scale=0.2)
    robot.write(command(clock, effort=0.15 * LIMIT))
    clock.time_s += 0.2
    robot.advance()
    held = robot.joint_vel[0]
    robot.write(command(clock, effort=0.25 * LIMIT))
    clock.time_s += 0.2
    robot.advance()
    assert abs(held) < 0.01
    assert robot.joint_vel[0] > 10 * abs(held)


def test_the_hand_tracks_a_pose_and_its_own_model_is_left_alone() -> None:
    clock = StepClock()
    robot = SimRobot(LEAP_HAND, dataclasses.replace(NOMINAL, catch_up_s=5.0), clock=clock)
    robot.connect()
    kp, kd = (np.array([getattr(j, name) for j in LEAP_HAND.joints]) for name in ("kp_nm_rad", "kd_nms_rad"))
    target = np.array([j.default_pos_rad for j in LEAP_HAND.joints]) + 0.1
    zero = np.zeros(16)
    robot.write(JointCommand(target, zero, zero, kp, kd, clock.now(), clock.now() + 10.0))
    clock.time_s += 1.5
    state = robot.read()
    assert state is not None
    assert state.joint_effort is not None
    # A proportional servo sags by gravity torque over stiffness, and by no more.
    np.testing.assert_allclose(state.joint_pos[0] - target, -state.joint_effort[0] / kp, atol=2e-3)
    assert np.abs(state.joint_pos[0] - target).max() < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_a_limp_hand_at_its_stops_is_not_measured_beyond_the_limits_that_trip(seed: int) -> None:
    clock = StepClock()
    robot = SimRobot(LEAP_HAND, MISMATCHED, seed=seed, clock=clock)
    robot.connect()
    lower, upper = (np.array([getattr(j, name) for j in LEAP_HAND.joints]) for name in ("lower_rad", "upper_rad"))
    zero, excess, touched = np.zeros(16), 0.0, False
    for _ in range(150):
        robot.write(JointCommand(zero, zero, zero, zero, zero, clock.now(), clock.now() + 1.0))
        clock.time_s += 0.01
        if (state := robot.read()) is not None:
            excess = max(excess, float(np.maximum(lower - state.joint_pos, state.joint_pos - upper).max()))
            touched |= bool((robot.joint_pos < lower + 1e-3).any())
    assert touched
    assert excess < LEAP_HAND.safety.hard_margin_rad


def test_a_hanging_humanoid_measures_gravity_upwards_and_falls_when_let_go() -> None:
    clock = StepClock()
    robot = SimRobot(UNITREE_G1, dataclasses.replace(NOMINAL, catch_up_s=5.0), clock=clock)
    robot.suspended = True
    robot.connect()
    start = robot.data.qpos[:3].copy()
    clock.time_s += 3.0
    state = robot.read()
    assert state is not None
    assert state.imu_lin_acc_b is not None
    assert state.imu_ang_vel_b is not None
    np.testing.assert_allclose(robot.data.qpos[:3], start, atol=0.02)
    assert np.linalg.norm(state.imu_lin_acc_b) == pytest.approx(9.81, abs=0.2)
    assert state.imu_lin_acc_b[0, 2] > 9.5
    assert np.abs(state.imu_ang_vel_b).max() < 0.1
    robot.suspended = False
    clock.time_s += 0.5
    robot.advance()
    assert robot.data.qpos[2] < start[2] - 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestep_s": 0.0}, "timestep_s"),
        ({"timestep_s": 0.1}, "timestep_s"),
        ({"state_latency_s": -0.1}, "state_latency_s"),
        ({"mass_scale": float("nan")}, "mass_scale"),
        ({"drop_probability": 1.0}, "drop_probability"),
        ({"state_period_s": 1e-4}, "state_period_s"),
        ({"integrator": "verlet"}, "implicitfast"),
        ({"payload_kg": 0.1}, "payload_body"),
        ({"motor": "stepper"}, "pd, dc_motor"),
        ({"stall_torque_scale": 0.0}, "stall_torque_scale"),
        ({"command_latency_s": -0.1}, "command_latency_s"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SimRobotConfig(**change)


def test_an_unknown_payload_body_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"valid: .*palm"):
        SimRobot(LEAP_HAND, SimRobotConfig(payload_kg=0.1, payload_body="trunk"))


def test_a_command_that_is_not_finite_or_of_the_wrong_length_is_refused() -> None:
    robot, clock = rotor()
    with pytest.raises(ContractError, match="kd"):
        robot.write(command(clock, kd=float("nan")))
    bad = dataclasses.replace(command(clock), effort=np.zeros(2))
    with pytest.raises(ContractError, match="effort"):
        robot.write(bad)


def test_a_hoisted_humanoid_hangs_clear_of_the_ground() -> None:
    clock = StepClock()
    robot = SimRobot(UNITREE_G1, NOMINAL, clock=clock)
    robot.connect()
    robot.hoist()
    start = robot.data.body("pelvis").xpos.copy()
    clock.time_s += 0.2
    robot.read()
    lowest = min(robot.data.geom_xpos[g][2] for g in range(robot.model.ngeom) if robot.model.geom_bodyid[g])
    assert lowest > 0.1
    np.testing.assert_allclose(robot.data.body("pelvis").xpos, start, atol=0.03)
    fixed = SimRobot(LEAP_HAND, NOMINAL, clock=clock)
    fixed.hoist()
    assert not fixed.suspended
