"""How a simulated robot differs from the model of training, and the MuJoCo model that follows."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields, replace
from typing import Literal

import mujoco

from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec
from robot_rl_sim.models import load_model
from robot_rl_sim.motors import MotorConfig
from robot_rl_sim.sensor_config import PERFECT, SensorConfig, SensorsConfig

Integrator = Literal["euler", "rk4", "implicitfast"]

_INTEGRATORS = {
    "euler": mujoco.mjtIntegrator.mjINT_EULER,
    "rk4": mujoco.mjtIntegrator.mjINT_RK4,
    "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
}


@dataclass(frozen=True, slots=True)
class SimRobotConfig:
    """How this robot differs from the model of training. The defaults differ in nothing."""

    timestep_s: float = 0.002
    integrator: Integrator = "implicitfast"
    state_period_s: float = 0.002
    """Time between two measurements, at least one physics step."""
    state_latency_s: float = 0.0
    """From measurement until the state can be read."""
    latency_jitter_s: float = 0.0
    """Further latency, uniform in [0, this], drawn anew at every reading."""
    drop_probability: float = 0.0
    """Share of measurements that never arrive."""
    joint_pos_noise_rad: float = 0.0
    """Standard deviation, as of the four below."""
    joint_vel_noise_rad_s: float = 0.0
    tilt_noise_rad: float = 0.0
    """About each axis of the IMU's orientation."""
    ang_vel_noise_rad_s: float = 0.0
    lin_acc_noise_m_s2: float = 0.0
    joint_bias_rad: float = 0.0
    """Standard deviation of each encoder's constant offset, drawn once. The motor regulates the offset position too."""
    joint_pos_resolution_rad: float = 0.0
    """Step of the encoders; 0: none."""
    object_pos_noise_m: float = 0.0
    """Half-width of the camera's error in each coordinate, as of the next, about each axis: uniform, as in training."""
    object_turn_noise_rad: float = 0.0
    camera_period_s: float = 0.0
    """Time between two pictures; 0: one for every measurement."""
    camera_latency_s: float = 0.0
    """From a picture until the object's pose can be read."""
    camera_drop_probability: float = 0.0
    """Share of the pictures in which the object is not found."""
    command_latency_s: float = 0.0
    """From `write` until the motors act on the command."""
    motor: Literal["pd", "dc_motor"] = "pd"
    """As in MotorConfig, as the two below."""
    stall_torque_scale: float = 1.0
    no_load_speed_scale: float = 1.0
    torque_noise_share: float = 0.0
    """Random torque of each motor, uniform within ± this share of its limit, drawn for each command."""
    strength_scale: float = 1.0
    """Torque delivered over torque commanded, at the torque limit too."""
    mass_scale: float = 1.0
    friction_scale: float = 1.0
    """Of contact friction."""
    damping_scale: float = 1.0
    armature_scale: float = 1.0
    joint_friction_scale: float = 0.0
    """Dry friction added to each joint, as a fraction of its torque limit."""
    payload_kg: float = 0.0
    payload_body: str = ""
    """Body whose mass the payload adds to."""
    catch_up_s: float = 0.25
    """A clock further ahead of physics than this is not caught up with: simulated time slips instead."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise ConfigError(f"{field.name} must be a finite number, not negative; got {value!r}")
        for name in ("timestep_s", "state_period_s", "strength_scale", "mass_scale", "armature_scale", "catch_up_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if self.integrator not in _INTEGRATORS:
            raise ConfigError(f"unknown integrator {self.integrator!r}; valid: {', '.join(_INTEGRATORS)}")
        if self.timestep_s > 0.02:
            raise ConfigError(f"timestep_s must be at most 0.02, got {self.timestep_s}")
        if self.state_period_s < self.timestep_s:
            raise ConfigError(f"state_period_s {self.state_period_s} must not be below timestep_s {self.timestep_s}")
        for name in ("drop_probability", "camera_drop_probability"):
            if getattr(self, name) >= 1:
                raise ConfigError(f"{name} must be below 1, got {getattr(self, name)}")
        if self.payload_kg and not self.payload_body:
            raise ConfigError("payload_kg needs payload_body, the name of the body that carries it")
        _ = self.motors, self.sensors  # which check what is theirs

    @property
    def motors(self) -> MotorConfig:
        return MotorConfig(self.motor, self.stall_torque_scale, self.no_load_speed_scale)

    @property
    def sensors(self) -> SensorsConfig:
        """Joints and IMU in one message, the object's pose in another."""
        encoder = SensorConfig(
            self.joint_pos_noise_rad, self.joint_bias_rad, "gaussian", resolution=self.joint_pos_resolution_rad
        )
        own = replace(
            PERFECT,
            joint_pos=encoder,
            joint_vel=SensorConfig(self.joint_vel_noise_rad_s, distribution="gaussian"),
            imu_quat_wxyz=SensorConfig(self.tilt_noise_rad, distribution="gaussian"),
            imu_ang_vel_b=SensorConfig(self.ang_vel_noise_rad_s, distribution="gaussian"),
            imu_lin_acc_b=SensorConfig(self.lin_acc_noise_m_s2, distribution="gaussian"),
        ).timed(
            period_s=self.state_period_s,
            delay_s=(self.state_latency_s, self.state_latency_s),
            jitter_s=self.latency_jitter_s,
            drop_probability=self.drop_probability,
        )
        camera = SensorConfig(
            period_s=max(self.camera_period_s, self.state_period_s),
            delay_s=(self.camera_latency_s, self.camera_latency_s),
            drop_probability=self.camera_drop_probability,
        )
        return replace(
            own,
            object_pos=replace(camera, noise=self.object_pos_noise_m),
            object_quat_wxyz=replace(camera, noise=self.object_turn_noise_rad),
        )


NOMINAL = SimRobotConfig()
"""The model itself, measured perfectly."""

MISMATCHED = SimRobotConfig(
    timestep_s=0.001,
    integrator="euler",
    state_latency_s=0.008,
    latency_jitter_s=0.002,
    drop_probability=0.01,
    joint_pos_noise_rad=0.001,
    joint_vel_noise_rad_s=0.05,
    ang_vel_noise_rad_s=0.02,
    lin_acc_noise_m_s2=0.1,
    joint_bias_rad=0.003,
    object_pos_noise_m=0.005,
    object_turn_noise_rad=0.05,
    camera_period_s=0.017,
    camera_latency_s=0.02,
    camera_drop_probability=0.01,
    strength_scale=0.9,
    mass_scale=1.15,
    friction_scale=1.5,
    damping_scale=1.2,
    joint_friction_scale=0.02,
)
"""A robot that training has not seen: a stand-in for the gap between simulation and hardware."""


def make_model(spec: RobotSpec, config: SimRobotConfig, model: mujoco.MjModel | None = None) -> mujoco.MjModel:
    """A model of its own for `spec`, changed as `config` says, whose actuators do nothing: commands act as torques."""
    changed: mujoco.MjModel = load_model(spec.name) if model is None else copy.deepcopy(model)
    changed.opt.timestep = config.timestep_s
    changed.opt.integrator = int(_INTEGRATORS[config.integrator])
    changed.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
    changed.body_mass[:] *= config.mass_scale
    changed.body_inertia[:] *= config.mass_scale
    changed.geom_friction[:] *= config.friction_scale
    changed.dof_damping[:] *= config.damping_scale
    changed.dof_armature[:] *= config.armature_scale
    # End stops as stiff as the time step bears: training's soft ones let a limp joint sink past its limit.
    changed.jnt_solref[:] = (max(4 * config.timestep_s, 0.004), 1.0)
    for joint in spec.joints:
        dof = changed.joint(joint.name).dofadr[0]
        changed.dof_frictionloss[dof] += config.joint_friction_scale * joint.effort_limit_nm
    if config.payload_kg:
        names = [changed.body(i).name for i in range(1, changed.nbody)]
        if config.payload_body not in names:
            raise ConfigError(f"unknown payload_body {config.payload_body!r}; valid: {', '.join(names)}")
        changed.body_mass[changed.body(config.payload_body).id] += config.payload_kg
    mujoco.mj_setConst(changed, mujoco.MjData(changed))
    return changed
