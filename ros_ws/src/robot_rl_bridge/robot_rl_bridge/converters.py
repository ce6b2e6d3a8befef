"""ROS messages to and from the values of the contract, checked in both directions.

Joint command: one std_msgs/Float64MultiArray, so that target, gains and time to live can never be torn apart.

    layout.dim[0]       label "position,velocity,effort,kp,kd", size 5, stride 5 n
    layout.dim[1]       label "<joint>,<joint>,...", size n, stride n
    layout.data_offset  4, the length of the header at the front of `data`:
    data[0]             session: a random whole number per sender, so that a second sender is told apart
    data[1]             sequence number, from 1
    data[2]             time of sending on the sender's monotonic clock, s
    data[3]             time to live, s
    data[4:]            5 rows of n values, in the units of JointCommand

Joints are matched by name. A receiver obeys a command until its time to live has passed, then damps on its own.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Twist, TwistStamped
from numpy.typing import NDArray
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray, MultiArrayDimension, MultiArrayLayout

from robot_rl.contract import Command, JointCommand, TensorSpec
from robot_rl.errors import ContractError
from robot_rl_bridge.receiver import ROWS, CommandMessage

HEADER = 4
MAX_TIME_TO_LIVE_S = 1.0

Array = NDArray[np.float64]


class MessageError(ContractError):
    """A message that does not hold what its receiver needs."""


class JointOrder:
    """Matches the joint names of messages with ours, and keeps the answer while the names stay the same."""

    def __init__(self, joint_names: Sequence[str], *, extra_allowed: bool) -> None:
        self.joint_names = tuple(joint_names)
        self._extra_allowed = extra_allowed
        self._seen: list[str] | None = None
        self._index = np.arange(0)

    def index(self, names: Sequence[str]) -> NDArray[np.intp]:
        """Where each of our joints is in `names`. Raises MessageError naming what is missing, extra or repeated."""
        if self._seen is None or names != self._seen:
            missing = [n for n in self.joint_names if n not in names]
            extra = [n for n in names if n not in self.joint_names]
            repeated = sorted({n for n in names if names.count(n) > 1})
            if missing or repeated or (extra and not self._extra_allowed):
                raise MessageError(f"joint names do not match: missing {missing}, extra {extra}, repeated {repeated}")
            self._index = np.array([names.index(n) for n in self.joint_names], dtype=np.intp)
            self._seen = list(names)
        return self._index


def time_message(stamp_s: float) -> Time:
    seconds = math.floor(stamp_s)
    return Time(sec=int(seconds), nanosec=min(999_999_999, int((stamp_s - seconds) * 1e9)))


def duration_message(seconds: float) -> Duration:
    time = time_message(seconds)
    return Duration(sec=time.sec, nanosec=time.nanosec)


def stamp_of(message: JointState | Imu) -> float:
    """Time stamp of the header, s, on the sender's clock."""
    return message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec


def encode_joint_state(
    joint_names: Sequence[str], stamp_s: float, position: Array, velocity: Array, effort: Array | None
) -> JointState:
    """Values may be NaN: a sensor that fails must be able to say so."""
    message = JointState(name=list(joint_names))
    message.header.stamp = time_message(stamp_s)
    message.position = doubles(position)
    message.velocity = doubles(velocity)
    if effort is not None:
        message.effort = doubles(effort)
    return message


def decode_joint_state(message: JointState, order: JointOrder) -> tuple[Array, Array, Array | None]:
    """(position, velocity, effort), each (n_joints,) in our order; effort is None where the sender has none.

    Whether the values are finite and possible is left to the safety filter, which debounces and names it.
    Raises MessageError for names or lengths that do not match.
    """
    index = order.index(cast("Sequence[str]", message.name))
    lengths = {"position": len(message.position), "velocity": len(message.velocity)}
    if message.effort:
        lengths["effort"] = len(message.effort)
    wrong = {field: length for field, length in lengths.items() if length != len(message.name)}
    if wrong:
        raise MessageError(f"{len(message.name)} joint names, but lengths {wrong}")
    effort = np.frombuffer(message.effort)[index] if message.effort else None
    return np.frombuffer(message.position)[index], np.frombuffer(message.velocity)[index], effort


def encode_imu(stamp_s: float, frame: str, quat_wxyz: Array, ang_vel_b: Array, lin_acc_b: Array) -> Imu:
    """ROS has the scalar of a quaternion last."""
    message = Imu()
    message.header.stamp = time_message(stamp_s)
    message.header.frame_id = frame
    w, x, y, z = (float(v) for v in quat_wxyz)
    message.orientation.w, message.orientation.x, message.orientation.y, message.orientation.z = w, x, y, z
    for vector, values in ((message.angular_velocity, ang_vel_b), (message.linear_acceleration, lin_acc_b)):
        vector.x, vector.y, vector.z = (float(v) for v in values)
    return message


def decode_imu(message: Imu) -> tuple[Array, Array, Array]:
    """(quat_wxyz (4,), angular velocity (3,) rad/s, linear acceleration (3,) m/s²). Raises MessageError if absent."""
    for what in ("orientation_covariance", "angular_velocity_covariance", "linear_acceleration_covariance"):
        # A first covariance of -1 is how sensor_msgs/Imu says that the quantity is not measured.
        if getattr(message, what)[0] == -1:
            raise MessageError(f"the IMU does not measure {what.removesuffix('_covariance')}")
    q, w, a = message.orientation, message.angular_velocity, message.linear_acceleration
    return np.array([q.w, q.x, q.y, q.z]), np.array([w.x, w.y, w.z]), np.array([a.x, a.y, a.z])


class CommandWriter:
    """Makes joint commands for one robot, in one message that it fills again and again: building it takes longer."""

    def __init__(self, joint_names: Sequence[str]) -> None:
        n = len(joint_names)
        self.message = Float64MultiArray(
            layout=MultiArrayLayout(
                dim=[
                    MultiArrayDimension(label=",".join(ROWS), size=len(ROWS), stride=len(ROWS) * n),
                    MultiArrayDimension(label=",".join(joint_names), size=n, stride=n),
                ],
                data_offset=HEADER,
            ),
            data=doubles(np.zeros(HEADER + len(ROWS) * n)),
        )
        # A view of the message's own numbers.
        self._data = np.frombuffer(cast("array[float]", self.message.data))
        self._values = self._data[HEADER:].reshape(len(ROWS), n)
        numbers, whole = self._data.tobytes(), serialize_message(self.message)
        # They are the end of the message, and all of it that ever changes.
        assert whole.endswith(numbers)
        self._head = whole[: -len(numbers)]

    def fill(self, command: JointCommand, *, session: int, sequence: int, now_s: float) -> Float64MultiArray:
        """`message`, valid until the next call.

        Raises MessageError naming the row that is not finite or has the wrong length, and for a time to live ≤ 0.
        """
        self._data[:HEADER] = session, sequence, now_s, min(command.expires_s - now_s, MAX_TIME_TO_LIVE_S)
        fill_rows(command, self._values)
        _check_time_to_live(self._data[3])
        return self.message

    def to_bytes(self) -> bytes:
        """`message` as rclpy would serialize it."""
        return self._head + self._data.tobytes()


def fill_rows(command: JointCommand, values: Array) -> None:
    """Put a command's rows into `values` (5, n). Raises MessageError for what is not finite, negative or too long."""
    expected = values.shape[1:]
    for row, name in enumerate(ROWS):
        field = getattr(command, name)
        shape = field.shape if isinstance(field, np.ndarray) else np.shape(field)
        if shape != expected:
            raise MessageError(f"joint command: {name} has shape {shape}, expected {expected}")
        values[row] = field
    _check_values(values)


def decode_joint_command(message: Float64MultiArray, order: JointOrder) -> CommandMessage:
    """Raises MessageError for a layout, length, name or value that is not as documented above."""
    # rclpy types sequence fields by what may be assigned; what is read is always a list or an array.array.
    dim = cast("list[MultiArrayDimension]", message.layout.dim)
    data = cast("array[float]", message.data)
    if len(dim) != 2 or dim[0].label != ",".join(ROWS) or message.layout.data_offset != HEADER:
        raise MessageError(f"not a joint command: labels {[d.label for d in dim]}, offset {message.layout.data_offset}")
    names = dim[1].label.split(",")
    if len(data) != HEADER + len(ROWS) * len(names):
        raise MessageError(f"joint command: {len(data)} values for {len(names)} joints")
    index = order.index(names)
    values = np.frombuffer(data)[HEADER:].reshape(len(ROWS), len(names))[:, index]
    session, sequence, sent_s, time_to_live_s = data[:HEADER]
    if not (math.isfinite(session) and math.isfinite(sequence) and math.isfinite(sent_s)):
        raise MessageError("joint command: session, sequence and time of sending must be finite")
    _check_time_to_live(time_to_live_s)
    _check_values(values)
    return CommandMessage(session, sequence, sent_s, time_to_live_s, values)


def _check_time_to_live(time_to_live_s: float) -> None:
    if not 0 < time_to_live_s <= MAX_TIME_TO_LIVE_S:
        raise MessageError(f"joint command: time to live must be in (0, {MAX_TIME_TO_LIVE_S}] s, got {time_to_live_s}")


def _check_values(values: Array) -> None:
    # Counting is how numpy finds this fastest in so few numbers.
    if np.count_nonzero(np.isfinite(values)) < values.size:
        bad = [name for name, row in zip(ROWS, values, strict=True) if not np.isfinite(row).all()]
        raise MessageError(f"joint command: {', '.join(bad)} not finite")
    gains = values[3:].ravel()
    if gains.size and gains[gains.argmin()] < 0:
        raise MessageError("joint command: kp and kd must not be negative")


def target_message(command: JointCommand, joint_names: Sequence[str], stamp_s: float) -> JointState:
    """The targets of a joint command for plotting tools; nothing acts on it."""
    return encode_joint_state(joint_names, stamp_s, command.position, command.velocity, command.effort)


def decode_command(message: Float64MultiArray, size: int, now_s: float) -> Command:
    """The policy's command input, in the contract's units. Raises MessageError unless it is `size` finite numbers."""
    values = np.frombuffer(message.data).astype(np.float32)
    if len(values) != size or not np.isfinite(values).all():
        raise MessageError(f"command must be {size} finite numbers, got {len(values)}: {values.tolist()}")
    return Command(values, now_s)


def twist_command(message: Twist | TwistStamped, spec: TensorSpec | None, now_s: float) -> Command:
    """The command (forward m/s, left m/s, turn rad/s) of a policy that takes velocities. Raises MessageError if not."""
    if spec is None or "velocity" not in spec.name or spec.shape != (3,):
        raise MessageError(f"the policy's command is {'none' if spec is None else spec.name}, not a velocity")
    twist = message if isinstance(message, Twist) else message.twist
    values = np.array([twist.linear.x, twist.linear.y, twist.angular.z], np.float32)
    if not np.isfinite(values).all():
        raise MessageError(f"velocity must be finite, got {values.tolist()}")
    return Command(values, now_s)


def doubles(values: Any) -> array[float]:
    """For a float64[] field: rclpy's field checks accept array.array, and refuse numpy."""
    return array("d", np.ascontiguousarray(values, dtype=np.float64).tobytes())
