"""A clock that jumps, and a robot that checks every command it gets: for tests of anything that drives a robot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import JointCommand, NumpyState, RobotState
from robot_rl.robots import RobotSpec
from robot_rl.runtime.interface import Clock

Fault = Callable[[NumpyState, float], "NumpyState | None"]
"""What really arrives instead of a state at a time in s; None: nothing does."""


class FakeClock:
    """Time that passes only when somebody sleeps, or when a test says so."""

    def __init__(self, start_s: float = 100.0) -> None:
        self.now_s = start_s

    def now(self) -> float:
        return self.now_s

    def sleep_until(self, deadline_s: float) -> None:
        self.now_s = max(self.now_s, deadline_s)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class InvalidCommand(AssertionError):
    """A robot was sent something that no robot must get."""


def check_command(command: JointCommand, robot: RobotSpec) -> None:
    """Raise InvalidCommand unless the command is finite, within the robot's limits, and expires after its stamp."""
    n = len(robot.joints)
    for name in ("position", "velocity", "effort", "kp", "kd"):
        value = getattr(command, name)
        if value.shape != (n,) or not np.isfinite(value).all():
            raise InvalidCommand(f"{name} must be {n} finite numbers, got {value}")
    if not command.expires_s > command.stamp_s:
        raise InvalidCommand(f"expires at {command.expires_s} s, stamped {command.stamp_s} s")
    if (command.kp < 0).any() or (command.kd < 0).any():
        raise InvalidCommand(f"negative gains: kp {command.kp}, kd {command.kd}")
    for joint, position, kp, effort in zip(robot.joints, command.position, command.kp, command.effort, strict=True):
        # Where kp is zero the position has no effect.
        if kp > 0 and not joint.lower_rad <= position <= joint.upper_rad:
            raise InvalidCommand(f"{joint.name}: position {position} is outside [{joint.lower_rad}, {joint.upper_rad}]")
        if kp > 2 * joint.kp_nm_rad:
            raise InvalidCommand(f"{joint.name}: kp {kp} exceeds twice the robot's {joint.kp_nm_rad}")
        if abs(effort) > joint.effort_limit_nm:
            raise InvalidCommand(f"{joint.name}: effort {effort} exceeds {joint.effort_limit_nm}")


class FakeRobot:
    """A RobotInterface whose joints follow their targets at once by `follow` (share per tick), seen through a fault.

    Every command is checked and kept in `commands`. An expired command is not obeyed.
    """

    def __init__(
        self,
        spec: RobotSpec,
        clock: Clock,
        *,
        fault: Fault | None = None,
        follow: float = 0.5,
        joint_pos: NDArray[np.float64] | None = None,
    ) -> None:
        self.spec = spec
        self.clock = clock
        self.fault = fault
        self.follow = follow
        default = np.array([j.default_pos_rad for j in spec.joints])
        self.joint_pos = default if joint_pos is None else np.asarray(joint_pos, np.float64)
        self.commands: list[JointCommand] = []
        self.connected = False
        self.stops = 0
        self.write_error: Exception | None = None
        """Raised by every write while set."""

    def connect(self) -> None:
        self.connected = True

    def state(self) -> NumpyState:
        """What an unbroken robot would measure now, at rest and upright."""
        n = len(self.spec.joints)
        measured = {
            "joint_pos": self.joint_pos[None].copy(),
            "joint_vel": np.zeros((1, n)),
            "joint_effort": np.zeros((1, n)),
            "imu_quat_wxyz": np.array([[1.0, 0.0, 0.0, 0.0]]),
            "imu_ang_vel_b": np.zeros((1, 3)),
            "imu_lin_acc_b": np.array([[0.0, 0.0, 9.81]]),
            "object_pos": np.zeros((1, 3)),
            "object_quat_wxyz": np.array([[1.0, 0.0, 0.0, 0.0]]),
        }
        present = {name: value for name, value in measured.items() if name in self.spec.state_fields}
        return RobotState(stamp_s=np.array([self.clock.now()]), **present)

    def read(self) -> NumpyState | None:
        state = self.state()
        return state if self.fault is None else self.fault(state, self.clock.now())

    def write(self, command: JointCommand) -> JointCommand:
        if self.write_error is not None:
            raise self.write_error
        check_command(command, self.spec)
        self.commands.append(command)
        if (command.kp > 0).all() and self.clock.now() < command.expires_s:
            self.joint_pos = self.joint_pos + self.follow * (command.position - self.joint_pos)
        return command

    def stop(self) -> None:
        self.stops += 1
        self.connected = False

    def __enter__(self) -> FakeRobot:
        self.connect()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


def with_field(state: NumpyState, name: str, value: NDArray[np.float64] | None) -> NumpyState:
    """The state with one field replaced: for writing faults."""
    return replace(state, **{name: value})
