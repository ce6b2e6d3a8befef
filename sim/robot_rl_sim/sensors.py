"""From simulation state to RobotState: which quantity each sensor reads, and how wrong it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import torch
from torch import Tensor
from torch.nn.functional import normalize

from robot_rl.contract import RobotState
from robot_rl.errors import ConfigError
from robot_rl.networks.rotation import conjugate, in_body, multiply
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
    object_pos_m: float = 0.005
    object_rot_rad: float = 0.05
    """Error of the camera's estimate about each axis."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 0:
                raise ConfigError(f"sensor noise {name} must not be negative, got {getattr(self, name)}")


QUATERNIONS = {"imu_quat_wxyz", "object_quat_wxyz"}
NO_NOISE = SensorNoise(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Sensors:
    """Reads RobotState from a BatchSim. The IMU is that of the base, and its frame is the base's."""

    def __init__(
        self,
        sim: BatchSim,
        fields: tuple[str, ...],
        noise: SensorNoise,
        root_body: str = "",
        object_body: str | None = None,
    ) -> None:
        """`fields` of RobotState are read; the others stay None, but for the joints, which always are.

        `object_body` is what the camera sees, a body with a free joint; `root_body`, which is fixed, is its frame.
        """
        readings: dict[str, tuple[Callable[[], Tensor], float]] = {
            "joint_pos": (lambda: sim.joint_pos, noise.joint_pos_rad),
            "joint_vel": (lambda: sim.joint_vel, noise.joint_vel_rad_s),
            "joint_effort": (lambda: sim.joint_effort, 0.0),
            "imu_quat_wxyz": (lambda: sim.qpos[:, 3:7], noise.tilt_rad),
            "imu_ang_vel_b": (lambda: sim.qvel[:, 3:6], noise.ang_vel_rad_s),
            "imu_lin_acc_b": (lambda: sim.sensor("imu_acc"), 0.0),
        }
        if object_body is not None:
            pose, _ = sim.free_joint(object_body)
            root_pos, root_quat = (x.to(pose) for x in _fixed_pose(sim.model, root_body))
            from_world = conjugate(root_quat)
            readings["object_pos"] = (lambda: in_body(pose[:, :3] - root_pos, root_quat), noise.object_pos_m)
            readings["object_quat_wxyz"] = (lambda: multiply(from_world, pose[:, 3:]), noise.object_rot_rad)
        unknown = [f for f in fields if f not in readings]
        if unknown:
            raise ConfigError(f"no sensor for {unknown}; valid: {', '.join(readings)}")
        self._fields = tuple(dict.fromkeys(("joint_pos", "joint_vel", *fields)))
        self._views = [readings[f][0] for f in self._fields]
        self._sizes = [view().shape[1] for view in self._views]
        # Half the angle added to each number turns a unit quaternion by about that angle, once normalised.
        half_widths = [readings[f][1] * (0.5 if f in QUATERNIONS else 1.0) for f in self._fields]
        self._half_width = torch.tensor(half_widths).repeat_interleave(torch.tensor(self._sizes)).to(sim.device)
        self._bias_rad = noise.joint_bias_rad
        self.state = {"joint_bias": torch.zeros_like(sim.joint_pos)}

    def reset(self, worlds: Tensor, generator: torch.Generator) -> None:
        """Draw the joint offsets of new episodes."""
        bias = self.state["joint_bias"]
        # Drawn in float32 whatever the physics computes in, so that the same seed draws the same in every backend.
        drawn = torch.rand(len(worlds), bias.shape[1], generator=generator, device=bias.device)
        bias.index_copy_(0, worlds, (self._bias_rad * (2 * drawn - 1)).to(bias))

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
        for name in QUATERNIONS & fields.keys():
            fields[name] = normalize(fields[name], dim=-1)
        return RobotState(stamp_s=torch.zeros(len(values), device=values.device), **fields)


def _fixed_pose(model: mujoco.MjModel, body: str) -> tuple[Tensor, Tensor]:
    """Position (1, 3) m and orientation (1, 4) in the world of a body that no joint moves."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    pose = data.body(body)
    return torch.from_numpy(pose.xpos.copy())[None], torch.from_numpy(pose.xquat.copy())[None]
