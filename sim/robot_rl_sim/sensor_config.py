"""What is wrong with a robot's sensors, as data; robot_rl_sim.sensors does it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

from robot_rl.errors import ConfigError

ORIENTATIONS = ("imu_quat_wxyz", "object_quat_wxyz")


@dataclass(frozen=True, slots=True)
class SensorConfig:
    """One sensor; the defaults are a perfect one. Errors are in the unit of what it measures, for an orientation in rad
    about each axis of the body."""

    noise: float = 0.0
    """Error of each number, drawn anew for every sample."""
    bias: float = 0.0
    """Error of each number, drawn once for an episode."""
    distribution: Literal["uniform", "gaussian"] = "uniform"
    """Of both: `noise` and `bias` are half-widths of uniform errors, or standard deviations of gaussian ones."""
    resolution: float = 0.0
    """Numbers come as multiples of this; 0: as they are."""
    period_s: float = 0.0
    """From one sample to the next; in between, the last one is held. 0: a sample in every physics step."""
    delay_s: tuple[float, float] = (0.0, 0.0)
    """From a sample until it can be read, drawn once for an episode, and rounded to physics steps."""
    jitter_s: float = 0.0
    """Further delay, uniform in [0, this], drawn anew at every reading. A newer sample never gives way to an older."""
    drop_probability: float = 0.0
    """Share of the samples that never arrive; the last that did is held."""

    def __post_init__(self) -> None:
        for name in ("noise", "bias", "resolution", "period_s", "jitter_s", "drop_probability"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"sensor {name} must be finite and not negative, got {value}")
        if self.distribution not in ("uniform", "gaussian"):
            raise ConfigError(f"unknown sensor distribution {self.distribution!r}; valid: uniform, gaussian")
        if not 0 <= self.delay_s[0] <= self.delay_s[1] < math.inf:
            raise ConfigError(f"sensor delay_s must be an increasing pair of at least 0, got {self.delay_s}")
        if self.drop_probability >= 1:
            raise ConfigError(f"sensor drop_probability must be below 1, got {self.drop_probability}")

    @property
    def holds(self) -> bool:
        """Whether a reading may be the one before."""
        return self.period_s > 0 or self.jitter_s > 0 or self.drop_probability > 0

    @property
    def late(self) -> bool:
        """Whether a reading may be of another time than the present."""
        return self.holds or self.delay_s[1] > 0


@dataclass(frozen=True, slots=True)
class SensorsConfig:
    """All sensors of a robot, each by the field of RobotState that it fills.

    The defaults are the widths of field-proven stacks (Isaac Lab, unitree_rl_lab and mjlab share those of the joints
    and the IMU). Joints and IMU come in one message and the object's pose in another, so that fields of one message
    with the same timing are late, dropped and held together.
    """

    joint_pos: SensorConfig = SensorConfig(noise=0.01, bias=0.02)
    joint_vel: SensorConfig = SensorConfig(noise=0.5)
    joint_effort: SensorConfig = SensorConfig()
    imu_quat_wxyz: SensorConfig = SensorConfig(noise=0.05)
    imu_ang_vel_b: SensorConfig = SensorConfig(noise=0.2)
    imu_lin_acc_b: SensorConfig = SensorConfig()
    object_pos: SensorConfig = SensorConfig(noise=0.005)
    object_quat_wxyz: SensorConfig = SensorConfig(noise=0.05)

    def __post_init__(self) -> None:
        for name in ORIENTATIONS:
            if getattr(self, name).resolution:
                raise ConfigError(f"sensor {name}: an orientation has no resolution; make it noise")

    def timed(self, **timing: object) -> SensorsConfig:
        """The same, with these settings (period_s, delay_s, ...) for every sensor: as from one message."""
        changed = {f.name: replace(getattr(self, f.name), **timing) for f in fields(self)}  # type: ignore[arg-type]
        return SensorsConfig(**changed)


PERFECT = SensorsConfig(*[SensorConfig()] * len(fields(SensorsConfig)))
