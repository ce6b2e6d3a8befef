"""Domain randomisation as data: which parts of dynamics, motors and sensors differ between episodes, by how much."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from robot_rl.errors import ConfigError
from robot_rl_sim.motors import PD, MotorConfig
from robot_rl_sim.sensor_config import PERFECT, SensorsConfig

Range = tuple[float, float]

_SIGNED = {"payload_kg", "com_shift_m", "gravity_shift_m_s2"}


@dataclass(frozen=True, slots=True)
class RandomizationConfig:
    """Every episode draws its own values, uniformly, from these ranges; None is off. A scale multiplies the nominal.

    The widths are those of field-proven humanoid and hand stacks (holosoma, unitree_rl_lab, ASAP, walk-these-ways);
    friction of servo gears is known least, hence its wide range.
    """

    link_mass_scale: Range | None = (0.9, 1.1)
    """Mass and inertia of each body, together."""
    inertia_scale: Range | None = None
    """Inertia of each body besides."""
    payload_kg: Range | None = None
    """Point mass added at the centre of mass of `trunk_body`; usual: -1 to 3 kg on a humanoid."""
    com_shift_m: Range | None = None
    """Shift of the centre of mass of `trunk_body` along each of its axes; usual: ±0.05 m on a humanoid."""
    trunk_body: str = ""
    """Empty: the robot's root body."""
    friction_scale: Range | None = (0.6, 1.4)
    """Sliding friction, the same for all surfaces of a world."""
    terrain_friction: Range | None = None
    """Sliding friction of what does not move. MuJoCo takes the larger one of two surfaces; usual: 0.3 to 1.25."""
    motor_strength_scale: Range | None = (0.9, 1.1)
    """Torque delivered over torque commanded, and limits, of each motor."""
    all_motors_scale: Range | None = None
    """The same of all motors of a robot together, as with a battery's voltage, besides what each draws for itself."""
    kp_scale: Range | None = (0.9, 1.1)
    kd_scale: Range | None = (0.9, 1.1)
    joint_damping_scale: Range | None = (0.7, 1.3)
    joint_frictionloss_scale: Range | None = (0.5, 2.0)
    joint_friction_share: Range | None = None
    """Dry friction added to each joint, as a share of its effort limit."""
    armature_scale: Range | None = (0.9, 1.1)
    gravity_shift_m_s2: Range | None = None
    """Added to gravity along each axis of the world; walk-these-ways: ±1."""
    action_latency_steps: Range | None = (0.0, 1.0)
    """Delay between a decision and its target reaching the servos, in control steps, rounded to physics steps."""
    torque_noise_share: float = 0.05
    """Random torque at each joint, drawn for each control period, uniform within ± this share of its effort limit
    (random force injection, Campanaro et al., arXiv 2209.12878). It counts towards the motor's limit. ASAP takes 0.1,
    drawn for each of four physics steps, which moves a joint as much as half of that, held for all four, does."""
    push_speed_m_s: Range | None = None
    """Pushes of the base instead of those that the task has."""
    push_interval_steps: tuple[int, int] | None = None
    """Control steps between them; None: 75 to 150."""
    motor: MotorConfig = field(default_factory=MotorConfig)
    """Kind of the motors; nothing of it is drawn."""
    sensors: SensorsConfig = field(default_factory=SensorsConfig)
    privileged: bool = False
    """Whether critics see what was drawn, as numbers in [-1, 1] behind the task's own privileged ones."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not isinstance(value, tuple):
                continue
            if len(value) != 2 or not all(math.isfinite(end) for end in value) or value[0] > value[1]:
                raise ConfigError(f"randomization {f.name} must be an increasing pair of numbers, got {value}")
            if f.name not in _SIGNED and value[0] < 0:
                raise ConfigError(f"randomization {f.name} must be an increasing pair of at least 0, got {value}")
        if not 0 <= self.torque_noise_share <= 1:
            raise ConfigError(f"randomization torque_noise_share must lie in [0, 1], got {self.torque_noise_share}")


NOMINAL = RandomizationConfig(
    link_mass_scale=None,
    friction_scale=None,
    motor_strength_scale=None,
    kp_scale=None,
    kd_scale=None,
    joint_damping_scale=None,
    joint_frictionloss_scale=None,
    armature_scale=None,
    action_latency_steps=None,
    torque_noise_share=0.0,
    motor=PD,
    sensors=PERFECT,
)
"""The robot as modelled, measured perfectly."""


def chosen(randomize: bool | RandomizationConfig, default: RandomizationConfig) -> RandomizationConfig:
    """What `randomize` of an EnvFactory asks for, of a task whose own ranges are `default`."""
    if isinstance(randomize, RandomizationConfig):
        return randomize
    return default if randomize else NOMINAL
