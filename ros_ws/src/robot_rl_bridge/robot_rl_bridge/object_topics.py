"""The object that a policy handles, and its goal, on topics: what a camera's tracker sends, and what is asked.

    object_pose        geometry_msgs/PoseStamped: what trackers such as FoundationPose or AprilTag send, or a few lines
                       that look a tf2 transform up
    goal_orientation   geometry_msgs/QuaternionStamped: how the object shall be turned

Both are in the frame of the robot's root body, in which the policy was trained. Nothing here transforms: a frame_id
that is not the parameter `object_frame` is refused, since another frame is the likeliest mistake and looks like a pose.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, QuaternionStamped
from numpy.typing import NDArray
from rclpy.node import Node

from robot_rl.contract import Command, JointCommand, NumpyState, TensorSpec
from robot_rl.robots import RobotSpec
from robot_rl.runtime.interface import Health
from robot_rl.runtime.object_pose import QUAT_NORM_TOLERANCE
from robot_rl_bridge import ros_compat
from robot_rl_bridge.converters import MessageError, time_message
from robot_rl_bridge.ros_compat import ParameterSpec
from robot_rl_bridge.ros_robot import RosRobot

POSE_TOPIC, GOAL_TOPIC = "object_pose", "goal_orientation"
FARTHEST_S = 1.0
"""A stamp further from now than this is of a clock that is not this host's."""

FRAME = ParameterSpec(
    "object_frame", "", "frame_id that poses and goals of the object must have; empty: the robot's root body."
)

Array = NDArray[np.float64]


class ObjectInput:
    """The newest pose on `object_pose`. `reject` is told of each message that cannot be used.

    Unlike the robot's own stamps, which are mapped to this host's clock by their shortest transit, a camera's are taken
    for what they say, as tf2 does: its latency of some 50 ms is constant, and would not be seen otherwise. Clocks of
    different hosts must be synchronised.
    """

    def __init__(self, node: Node, frame: str, reject: Callable[[str, MessageError], None]) -> None:
        self.frame = frame
        self.on_pose: Callable[[], None] | None = None
        """Called after each pose that was taken."""
        self.stamp_s = -math.inf
        """Time of the newest picture, on the monotonic clock."""
        self.pos: Array | None = None
        self.quat_wxyz: Array | None = None
        self._reject = reject
        self._newest_s = -math.inf
        node.create_subscription(PoseStamped, POSE_TOPIC, self._on_message, ros_compat.SENSOR_QOS)

    def forget(self) -> None:
        """What was seen before does not count."""
        self.pos = self.quat_wxyz = None

    def _on_message(self, message: PoseStamped) -> None:
        try:
            stamp_s = _seconds(message)
            age_s = time.time() - stamp_s
            pos, quat = decode_pose(message, self.frame)
            if not abs(age_s) <= FARTHEST_S:
                raise MessageError(f"stamp is {age_s:.3f} s old: its sender's clock must be that of this host")
            if stamp_s <= self._newest_s <= stamp_s + FARTHEST_S:
                raise MessageError("stamp is not newer than the last one")
        except MessageError as error:
            self._reject(POSE_TOPIC, error)
            return
        self._newest_s, self.stamp_s = stamp_s, time.monotonic() - age_s
        self.pos, self.quat_wxyz = pos, quat
        if self.on_pose is not None:
            self.on_pose()


class RobotWithObject:
    """A robot whose states hold the object's pose besides; a RobotInterface."""

    def __init__(self, robot: RosRobot, tracker: ObjectInput) -> None:
        self.spec: RobotSpec = robot.spec
        self._robot, self._tracker = robot, tracker

    def read(self) -> NumpyState | None:
        state, tracker = self._robot.read(), self._tracker
        if state is None or tracker.pos is None or tracker.quat_wxyz is None:
            return state
        return replace(
            state,
            object_pos=tracker.pos[None],
            object_quat_wxyz=tracker.quat_wxyz[None],
            object_stamp_s=np.array([tracker.stamp_s]),
        )

    def connect(self) -> None:
        self._robot.connect()

    def write(self, command: JointCommand) -> JointCommand:
        return self._robot.write(command)

    def rehearse(self) -> None:
        self._robot.rehearse()

    def health(self) -> Health | None:
        return self._robot.health()

    def stop(self) -> None:
        self._robot.stop()

    def __enter__(self) -> RobotWithObject:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def encode_pose(frame: str, stamp_s: float, pos: Array, quat_wxyz: Array) -> PoseStamped:
    """ROS has the scalar of a quaternion last."""
    message = PoseStamped()
    message.header.frame_id, message.header.stamp = frame, time_message(stamp_s)
    point = message.pose.position
    point.x, point.y, point.z = (float(v) for v in pos)
    _fill(message.pose.orientation, quat_wxyz)
    return message


def decode_pose(message: PoseStamped, frame: str) -> tuple[Array, Array]:
    """(position (3,) m, orientation (4,) scalar first). Raises MessageError for another frame; whether the numbers are
    possible is left to the safety filter, which debounces and names it."""
    _check_frame(message.header.frame_id, frame)
    p, q = message.pose.position, message.pose.orientation
    return np.array([p.x, p.y, p.z]), np.array([q.w, q.x, q.y, q.z])


def encode_goal(frame: str, stamp_s: float, quat_wxyz: Array) -> QuaternionStamped:
    message = QuaternionStamped()
    message.header.frame_id, message.header.stamp = frame, time_message(stamp_s)
    _fill(message.quaternion, quat_wxyz)
    return message


def decode_goal(message: QuaternionStamped, frame: str, spec: TensorSpec | None, now_s: float) -> Command:
    """The command of a policy that takes an orientation. Raises MessageError for one that does not, another frame, and
    what is no unit quaternion."""
    if spec is None or "quat" not in spec.name or spec.shape != (4,):
        raise MessageError(f"the policy's command is {'none' if spec is None else spec.name}, not an orientation")
    _check_frame(message.header.frame_id, frame)
    q = message.quaternion
    quat = np.array([q.w, q.x, q.y, q.z])
    norm = float(np.linalg.norm(quat))
    if not abs(norm - 1.0) <= QUAT_NORM_TOLERANCE:
        raise MessageError(f"goal must be a unit quaternion, got x {q.x}, y {q.y}, z {q.z}, w {q.w}")
    return Command((quat / norm).astype(np.float32), now_s)


def frame_of(values: dict[str, Any], spec: RobotSpec) -> str:
    """The frame in which poses and goals must be."""
    return values["object_frame"] or spec.root_body


def _check_frame(found: str, wanted: str) -> None:
    # Some senders still write frames the way of tf1, with a slash in front.
    if found.removeprefix("/") != wanted:
        raise MessageError(
            f"frame_id is {found!r}, must be {wanted!r} (parameter object_frame): transform it first, for instance by "
            "tf2"
        )


def _seconds(message: PoseStamped) -> float:
    return message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec


def _fill(quaternion: Any, quat_wxyz: Array) -> None:
    quaternion.w, quaternion.x, quaternion.y, quaternion.z = (float(v) for v in quat_wxyz)
