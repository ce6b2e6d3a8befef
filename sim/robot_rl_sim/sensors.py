"""From simulation state to RobotState: which quantity each sensor reads, and how wrong it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from robot_rl.contract import RobotState
from robot_rl.errors import ConfigError
from robot_rl_sim.backends.batch_sim import BatchSim


@dataclass(frozen=True, slots=True)
class SensorNoise:
    """Half-widths of uniform noise, drawn anew at every reading, and of a joint offset kept for an episode."""

    joint_pos_rad: float = 0.01
    joint_vel_rad_s: float = 0.5
    ang_vel_rad_s: float = 0.2
    tilt_rad: float = 0.05
    """Error of the estimated orientation about each axis."""
    joint_bias_rad: float = 0.02
    """Wrong zero of each encoder."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 0:
                raise ConfigError(f"sensor noise {name} must not be negative, got {getattr(self, name)}")


NO_NOISE = SensorNoise(0.0, 0.0, 0.0, 0.0, 0.0)


class Sensors:
    """Reads RobotState from a BatchSim. The IMU is that of the base, and its frame is the base's."""

    def __init__(self, sim: BatchSim, fields: tuple[str, ...], noise: SensorNoise) -> None:
        """`fields` of RobotState are read; the others stay None, but for the joints, which always are."""
        readings: dict[str, tuple[Callable[[], Tensor], float]] = {
            "joint_pos": (lambda: sim.joint_pos, noise.joint_pos_rad),
            "joint_vel": (lambda: sim.joint_vel, noise.joint_vel_rad_s),
            "joint_effort": (lambda: sim.joint_effort, 0.0),
            "imu_quat_wxyz": (lambda: sim.qpos[:, 3:7], noise.tilt_rad),
            "imu_ang_vel_b": (lambda: sim.qvel[:, 3:6], noise.ang_vel_rad_s),
            "imu_lin_acc_b": (lambda: sim.sensor("imu_acc"), 0.0),
        }
        unknown = [f for f in fields if f not in readings]
        if unknown:
            raise ConfigError(f"no sensor for {unknown}; valid: {', '.join(readings)}")
        self._readings = {f: readings[f] for f in dict.fromkeys(("joint_pos", "joint_vel", *fields))}
        self._bias_rad = noise.joint_bias_rad
        self.state = {"joint_bias": torch.zeros_like(sim.joint_pos)}

    def reset(self, worlds: Tensor, generator: torch.Generator) -> None:
        """Draw the joint offsets of new episodes."""
        bias = self.state["joint_bias"]
        bias[worlds] = _uniform((len(worlds), bias.shape[1]), self._bias_rad, generator).to(bias.dtype)

    def read(self, generator: torch.Generator, worlds: Tensor | None = None) -> RobotState[Tensor]:
        """State of `worlds` (k,), or of all, in float32."""
        values: dict[str, Tensor] = {}
        for field, (view, half_width) in self._readings.items():
            true = view() + self.state["joint_bias"] if field == "joint_pos" else view()
            value = (true if worlds is None else true[worlds]).float()
            if half_width and field == "imu_quat_wxyz":
                # Half the angle added to each number turns a unit quaternion by about that angle, once normalised.
                value = normalize(value + _uniform(value.shape, half_width / 2, generator), dim=-1)
            elif half_width:
                value = value + _uniform(value.shape, half_width, generator)
            values[field] = value
        return RobotState(stamp_s=torch.zeros(len(values["joint_pos"])), **values)


def _uniform(shape: tuple[int, ...], half_width: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-half_width, half_width, generator=generator)
