"""Joint commands in the forms that robots take: our own message, or what ros2_control's controllers and SDKs expect.

joint_command     std_msgs/Float64MultiArray on `joint_command`: targets, gains and time to live in one message
joint_state       sensor_msgs/JointState on `joint_command`: position, velocity and effort by name
joint_trajectory  trajectory_msgs/JointTrajectory, one point, on `joint_trajectory_controller/joint_trajectory`
forward           std_msgs/Float64MultiArray of positions on `forward_position_controller/commands`

Only the first says for how long a command is valid and which gains it needs. With the others a robot that takes gains
gets them on `stiffness_controller/commands` and `damping_controller/commands` (std_msgs/Float64MultiArray, robot joint
order, before the positions that they are for). One that takes none cannot be damped: it is told to stay at the pose
measured when damping began, and what protects it when this process dies is its own controller.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from robot_rl.contract import JointCommand
from robot_rl.robots import RobotSpec
from robot_rl_bridge import converters, ros_compat

COMMAND_TOPIC = "joint_command"
TRAJECTORY_TOPIC = "joint_trajectory_controller/joint_trajectory"
FORWARD_TOPIC = "forward_position_controller/commands"
STIFFNESS_TOPIC, DAMPING_TOPIC = "stiffness_controller/commands", "damping_controller/commands"
FORMS = ("joint_command", "joint_state", "joint_trajectory", "forward")

Array = NDArray[np.float64]


class CommandOutput:
    """Joint commands as our own message, mirrored as sensor_msgs/JointState on `joint_target` beside it, for tools."""

    def __init__(self, node: Node, spec: RobotSpec, topic: str = COMMAND_TOPIC) -> None:
        self.topic = topic
        self._node, self._names = node, spec.joint_names
        self._last: JointCommand | None = None
        """The last one sent."""
        # A whole number that a float64 holds exactly.
        self._session, self._sequence = secrets.randbits(52), 0
        self._mirror = node.create_publisher(
            JointState, topic.replace("joint_command", "joint_target"), ros_compat.SENSOR_QOS
        )
        self._writer = converters.CommandWriter(spec.joint_names)
        self._publisher = node.create_publisher(Float64MultiArray, topic, ros_compat.COMMAND_QOS)

    def send(self, command: JointCommand) -> bool:
        """Whether it was sent: not if it has expired, because this process had to wait for a core, say.

        Raises MessageError for a command that no robot should get, without sending anything.
        """
        now = time.monotonic()
        if command.expires_s <= now:
            return False
        self._sequence += 1
        self._writer.fill(command, session=self._session, sequence=self._sequence, now_s=now)
        self._publisher.publish(self._writer.to_bytes())
        self._last = command
        if self._mirror.get_subscription_count():
            self._mirror.publish(converters.target_message(command, self._names, time.time()))
        return True

    @property
    def listeners(self) -> int:
        """How many take the commands."""
        return self._publisher.get_subscription_count()

    def rehearse(self) -> None:
        """Make the last command's message again, and do not send it."""
        if self._last is not None:
            stamp_s = self._last.stamp_s
            self._writer.fill(self._last, session=self._session, sequence=self._sequence, now_s=stamp_s)
            self._writer.to_bytes()

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (self._publisher, self._mirror):
            self._node.destroy_publisher(publisher)


class PositionOutput:
    """Joint commands for a robot that takes positions, and perhaps gains. `measured` gives the newest joint positions
    (n_joints,) rad, or None."""

    def __init__(
        self, node: Node, spec: RobotSpec, form: str, period_s: float, *, gains: bool, measured: Callable[[], Any]
    ) -> None:
        kind, self.topic, self._message = _POSITION_FORMS[form]
        self._node, self._names, self._period_s, self._measured = node, spec.joint_names, period_s, measured
        self._rows = np.empty((len(converters.ROWS), len(spec.joints)))
        self._held: Array | None = None
        """Where the joints were when damping began."""
        create, qos = node.create_publisher, ros_compat.COMMAND_QOS
        self._positions = create(kind, self.topic, qos)
        self._gains = [create(Float64MultiArray, t, qos) for t in (STIFFNESS_TOPIC, DAMPING_TOPIC)] if gains else []

    def send(self, command: JointCommand) -> bool:
        """Publish gains, then targets. Without stiffness the target is the pose at which it ended, if that is known.

        Returns whether it was sent: not if it has expired.
        """
        if command.expires_s <= time.monotonic():
            return False
        converters.fill_rows(command, self._rows)
        position = command.position
        if not command.kp.any():
            if self._held is None:
                self._held = self._measured()
            position = self._held
        else:
            self._held = None
        for publisher, values in zip(self._gains, (command.kp, command.kd), strict=False):
            publisher.publish(Float64MultiArray(data=converters.doubles(values)))
        if position is not None:
            self._positions.publish(self._message(self._names, position, command, self._period_s))
        return True

    @property
    def listeners(self) -> int:
        """How many take the positions and, of a robot that takes gains, all of these."""
        return min(publisher.get_subscription_count() for publisher in (self._positions, *self._gains))

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (self._positions, *self._gains):
            self._node.destroy_publisher(publisher)


def _joint_state(names: tuple[str, ...], position: Array, command: JointCommand, period_s: float) -> JointState:
    return converters.encode_joint_state(names, time.time(), position, command.velocity, command.effort)


def _trajectory(names: tuple[str, ...], position: Array, command: JointCommand, period_s: float) -> JointTrajectory:
    # A stamp of zero starts the trajectory on arrival. The point lies one period ahead: the controller interpolates.
    point = JointTrajectoryPoint(
        positions=converters.doubles(position), velocities=converters.doubles(command.velocity)
    )
    point.time_from_start = converters.duration_message(period_s)
    return JointTrajectory(joint_names=list(names), points=[point])


def _forward(names: tuple[str, ...], position: Array, command: JointCommand, period_s: float) -> Float64MultiArray:
    return Float64MultiArray(data=converters.doubles(position))


_POSITION_FORMS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "joint_state": (JointState, COMMAND_TOPIC, _joint_state),
    "joint_trajectory": (JointTrajectory, TRAJECTORY_TOPIC, _trajectory),
    "forward": (Float64MultiArray, FORWARD_TOPIC, _forward),
}


def make_output(
    node: Node, spec: RobotSpec, form: str, period_s: float, *, gains: bool, measured: Callable[[], Any]
) -> CommandOutput | PositionOutput:
    """The output of FORMS called `form`, for a sender with one command per `period_s`."""
    if form == "joint_command":
        return CommandOutput(node, spec)
    return PositionOutput(node, spec, form, period_s, gains=gains, measured=measured)
