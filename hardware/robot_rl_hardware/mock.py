"""A robot that is not there: joints follow their targets with a first-order lag. For trying out everything else."""

from __future__ import annotations

import math

import numpy as np

from robot_rl.bundle.manifest import Manifest
from robot_rl.contract import JointCommand, NumpyState, ObjectStart, RobotState
from robot_rl.robots import RobotSpec
from robot_rl.runtime.interface import Clock, MonotonicClock

LAG_S = 0.05
"""Time constant with which a joint approaches its target."""


class MockRobot:
    """RobotInterface without physics: upright and at rest but for its joints. Honours the expiry of commands."""

    def __init__(
        self,
        spec: RobotSpec,
        clock: Clock | None = None,
        lag_s: float = LAG_S,
        object_start: ObjectStart | None = None,
    ) -> None:
        self.spec = spec
        self._object_pos = np.zeros(3) if object_start is None else np.array(object_start.pos_m)
        self._object_quat = np.array([1.0, 0.0, 0.0, 0.0] if object_start is None else object_start.quat_wxyz)
        self._clock = clock or MonotonicClock()
        self._lag_s = lag_s
        self._pos = np.array([j.default_pos_rad for j in spec.joints])
        self._vel = np.zeros(len(spec.joints))
        self._command: JointCommand | None = None
        self._time_s = self._clock.now()
        self._lower = np.array([j.lower_rad for j in spec.joints])
        self._upper = np.array([j.upper_rad for j in spec.joints])

    def connect(self) -> None:
        self._time_s = self._clock.now()

    def read(self) -> NumpyState | None:
        self._advance()
        n = len(self.spec.joints)
        measured = {
            "joint_pos": self._pos[None].copy(),
            "joint_vel": self._vel[None].copy(),
            "joint_effort": np.zeros((1, n)),
            "imu_quat_wxyz": np.array([[1.0, 0.0, 0.0, 0.0]]),
            "imu_ang_vel_b": np.zeros((1, 3)),
            "imu_lin_acc_b": np.array([[0.0, 0.0, 9.81]]),
            "object_pos": self._object_pos[None],
            "object_quat_wxyz": self._object_quat[None],
        }
        present = {name: value for name, value in measured.items() if name in self.spec.state_fields}
        return RobotState(stamp_s=np.array([self._time_s]), **present)

    def write(self, command: JointCommand) -> JointCommand:
        self._advance()
        self._command = command
        return command

    def stop(self) -> None:
        self._command = None

    def __enter__(self) -> MockRobot:
        self.connect()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _advance(self) -> None:
        now_s = self._clock.now()
        elapsed_s, self._time_s = now_s - self._time_s, now_s
        command = self._command
        if elapsed_s <= 0:
            return
        if command is None or now_s >= command.expires_s:
            self._vel = np.zeros_like(self._vel)
            return
        gap = np.where(command.kp > 0, np.clip(command.position, self._lower, self._upper) - self._pos, 0.0)
        step = gap * (1.0 - math.exp(-elapsed_s / self._lag_s))
        self._pos = self._pos + step
        self._vel = step / elapsed_s


def connect(spec: RobotSpec, manifest: Manifest | None = None) -> MockRobot:
    """Driver entry point: a mock of the robot `spec`, connected. Its object, if the bundle of `manifest` needs one, is
    where episodes begin, and stays there."""
    episode = None if manifest is None else manifest.episode
    robot = MockRobot(spec, object_start=None if episode is None else episode.object)
    robot.connect()
    return robot
