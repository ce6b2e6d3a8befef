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
        self._fields = tuple(dict.fromkeys(("joint_pos", "joint_vel", *fields)))
        self._views = [readings[f][0] for f in self._fields]
        self._sizes = [view().shape[1] for view in self._views]
        # Half the angle added to each number turns a unit quaternion by about that angle, once normalised.
        half_widths = [readings[f][1] * (0.5 if f == "imu_quat_wxyz" else 1.0) for f in self._fields]
        self._half_width = torch.tensor(half_widths).repeat_interleave(torch.tensor(self._sizes))
        self._tilted = noise.tilt_rad > 0
        self._bias_rad = noise.joint_bias_rad
        self.state = {"joint_bias": torch.zeros_like(sim.joint_pos)}

    def reset(self, worlds: Tensor, generator: torch.Generator) -> None:
        """Draw the joint offsets of new episodes."""
        bias = self.state["joint_bias"]
        drawn = torch.rand(len(worlds), bias.shape[1], generator=generator, dtype=bias.dtype)
        bias.index_copy_(0, worlds, self._bias_rad * (2 * drawn - 1))

    def read(self, generator: torch.Generator, worlds: Tensor | None = None) -> RobotState[Tensor]:
        """State of `worlds` (k,), or of all, in float32."""
        true = [view() for view in self._views]
        true[0] = true[0] + self.state["joint_bias"]
        values = torch.cat(true, dim=1)
        values = (values if worlds is None else values[worlds]).float()
        # One draw for all: as many numbers in one call cost a fraction of what they do in several.
        noise = torch.empty_like(values).uniform_(-1.0, 1.0, generator=generator)
        fields = dict(
            zip(self._fields, torch.addcmul(values, noise, self._half_width).split(self._sizes, 1), strict=True)
        )
        if self._tilted and "imu_quat_wxyz" in fields:
            fields["imu_quat_wxyz"] = normalize(fields["imu_quat_wxyz"], dim=-1)
        return RobotState(stamp_s=torch.zeros(len(values)), **fields)
