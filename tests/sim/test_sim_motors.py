"""Motors against closed forms: the torque-speed line, a second-order step response, the run-up of a free motor."""

import math

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.contract import JointSpec
from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec, SafetyProfile
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.models import add_motors
from robot_rl_sim.motors import MotorConfig, Motors, set_motors

INERTIA, KP, KD, EFFORT, SPEED = 0.02, 20.0, 0.5, 2.0, 10.0
ROTOR = RobotSpec(
    name="rotor",
    variant="test",
    joints=(JointSpec("spin", -30.0, 30.0, SPEED, EFFORT, 0.0, KP, KD),),
    armature_kg_m2=(INERTIA,),
    root_body="base",
    floating_base=False,
    safety=SafetyProfile(damping_kd_nms_rad=(0.05,), target_rate_limit_rad_s=(10.0,), joint_vel_trip_rad_s=(100.0,)),
    state_fields=("joint_pos", "joint_vel"),
)
XML = """
<mujoco><option gravity="0 0 0" integrator="implicitfast"/><worldbody><body name="base"><body>
  <joint name="spin" type="hinge" axis="0 0 1"/>
  <inertial pos="0 0 0" mass="1e-6" diaginertia="1e-9 1e-9 1e-9"/>
</body></body></worldbody></mujoco>
"""
DC = MotorConfig("dc_motor", stall_torque_scale=1.5, no_load_speed_scale=0.8)
STALL, NO_LOAD = 1.5 * EFFORT, 0.8 * SPEED


def rotor(config: MotorConfig, timestep_s: float = 1e-4) -> tuple[mujoco.MjModel, mujoco.MjData]:
    spec = mujoco.MjSpec.from_string(XML)
    spec.option.timestep = timestep_s
    add_motors(spec, ROTOR)
    set_motors(spec, ROTOR, config)
    model = spec.compile()
    return model, mujoco.MjData(model)


def line(commanded: float, speed: float) -> float:
    """The torque of the motor DC, by hand."""
    highest, lowest = STALL * (1 - speed / NO_LOAD), -STALL * (1 + speed / NO_LOAD)
    return max(-EFFORT, min(EFFORT, max(lowest, min(highest, commanded))))


@pytest.mark.parametrize("speed", [-12.0, -8.0, -5.0, 0.0, 3.0, 6.0, 8.0, 12.0])
@pytest.mark.parametrize("target", [-1.0, -0.05, 0.0, 0.05, 0.3, 1.0])
def test_the_torque_speed_line_in_mujoco_and_in_closed_form(target: float, speed: float) -> None:
    commanded = KP * target - KD * speed
    for config, expected in ((DC, line(commanded, speed)), (MotorConfig(), float(np.clip(commanded, -EFFORT, EFFORT)))):
        model, data = rotor(config)
        data.ctrl[0], data.qvel[0] = target, speed
        mujoco.mj_forward(model, data)
        assert data.actuator_force[0] == pytest.approx(expected, abs=1e-9)
        motors = Motors.of(ROTOR, config)
        assert motors.torque(np.array([commanded]), np.array([speed]))[0] == pytest.approx(expected, abs=1e-12)
        halved = motors.torque(np.array([commanded]), np.array([speed]), strength=0.5)
        assert halved[0] == pytest.approx(0.5 * expected, abs=1e-12)


@pytest.mark.parametrize("config", [MotorConfig(), MotorConfig("dc_motor", 10.0, 10.0)])
def test_a_motor_within_its_limits_answers_a_step_as_a_second_order_system(config: MotorConfig) -> None:
    """I q'' + kd q' + kp (q - target) = 0 from rest: under-damped, ζ = 0.4."""
    model, data = rotor(config)
    data.ctrl[0] = 0.05
    sigma = KD / (2 * INERTIA)
    omega = math.sqrt(KP / INERTIA - sigma**2)
    for step in range(1, 6001):
        mujoco.mj_step(model, data)
        if step % 100 == 0:
            t = step * 1e-4
            expected = 0.05 * (1 - math.exp(-sigma * t) * (math.cos(omega * t) + sigma / omega * math.sin(omega * t)))
            assert data.qpos[0] == pytest.approx(expected, abs=1e-4)  # a first-order integrator: dt × speed


@pytest.mark.parametrize("timestep_s", [1e-4, 5e-3])
def test_a_free_motor_runs_up_to_its_no_load_speed(timestep_s: float) -> None:
    """At full voltage with no load: ω(t) = ω_0 (1 - exp(-t τ_stall / (I ω_0))), to the first order in the time step.

    Long steps are stable and a little slow: the implicit integrator takes the servo's kd to damp also at full voltage.
    """
    config = MotorConfig("dc_motor", 1.0, 1.0)  # stall torque is the effort limit: the line alone limits
    model, data = rotor(config, timestep_s)
    data.ctrl[0] = 25.0
    for step in range(1, round(0.8 / timestep_s) + 1):
        mujoco.mj_step(model, data)
        expected = SPEED * (1 - math.exp(-step * timestep_s * EFFORT / (INERTIA * SPEED)))
        assert data.qvel[0] == pytest.approx(expected, abs=140 * timestep_s)
    assert data.qvel[0] == pytest.approx(SPEED, rel=0.01)


def test_an_ideal_motor_would_be_faster() -> None:
    model, data = rotor(MotorConfig())
    data.ctrl[0] = 25.0
    mujoco.mj_step(model, data, 5000)
    assert data.qvel[0] > 2 * SPEED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "stepper"}, "pd, dc_motor"),
        ({"stall_torque_scale": 0.0}, "stall"),
        ({"no_load_speed_scale": -1.0}, "no_load"),
    ],
)
def test_impossible_motors_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MotorConfig(**change)


def test_a_dc_motor_is_the_same_in_warp() -> None:
    """From rest to near the no-load speed and, by a target behind it, back: the line limits most of the way."""
    pytest.importorskip("warp")
    from robot_rl_sim.backends.mujoco_warp import MujocoWarpSim

    model, _ = rotor(DC, 2e-3)
    sims = (MujocoCpuSim(model, ROTOR, 2, 5, 1), MujocoWarpSim(model, ROTOR, 2, 5, "cpu"))
    speeds = []
    for step in range(60):
        for sim in sims:
            sim.step(torch.tensor([[25.0], [25.0 if step < 30 else -5.0]]))
        torch.testing.assert_close(sims[0].qvel.float(), sims[1].qvel, rtol=1e-4, atol=1e-4)
        speeds.append(sims[0].qvel[:, 0].clone())
    fastest = torch.stack(speeds).amax(0)
    assert fastest.max() > 0.8 * NO_LOAD
    assert speeds[-1][1] < 0
