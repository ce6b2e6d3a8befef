"""RosRobot: a robot behind topics, as RobotInterface.

Reads sensor_msgs/JointState on `joint_states`, and for a robot with an IMU sensor_msgs/Imu on `imu/data`. Writes
`joint_command` (format: `converters`), to the robot or, as the policy node does, to a watchdog before it.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Bool

from robot_rl.contract import JointCommand, NumpyState, RobotState, damping_command
from robot_rl.errors import RobotRLError
from robot_rl.robots import RobotSpec
from robot_rl.runtime.interface import Health
from robot_rl_bridge import converters, ros_compat
from robot_rl_bridge.cdr import Deserializer
from robot_rl_bridge.converters import JointOrder, MessageError
from robot_rl_bridge.outputs import COMMAND_TOPIC, CommandOutput
from robot_rl_bridge.stamps import StampMapper

STATE_TOPIC, IMU_TOPIC = "joint_states", "imu/data"
PASSING_TOPIC = "watchdog/passing"
"""std_msgs/Bool: whether the watchdog passes our commands on. Comes with each change, and every HEARTBEAT_S."""
HEARTBEAT_S = 0.05
HEARTBEAT_LOST_S = 3 * HEARTBEAT_S
NEVER_PASSED = 1_000_000
"""Commands that count as lost before the watchdog has said for the first time that it passes them: while nobody knows
whether the robot gets them, the check for lost commands must not be green, as it would be for its first few ticks."""

# Long enough to survive two lost messages of a 20 Hz loop, short enough that a dead sender is noticed at once.
STOP_TIME_TO_LIVE_S = 0.2

Array = NDArray[np.float64]


class RosRobot:
    """One robot over topics. Callbacks must be served by the node's executor; nothing here spins or sleeps.

    With `watchdog`, commands go to one, and `health` tells by its heartbeat how many of them in a row it did not pass.
    """

    def __init__(
        self, node: Node, spec: RobotSpec, command_topic: str = COMMAND_TOPIC, *, watchdog: bool = False
    ) -> None:
        self.spec = spec
        self.command_topic = command_topic
        self.rejected: Counter[str] = Counter()
        """Number of messages that could not be used, by topic."""
        self.last_rejection = ""
        self._node = node
        self._order = JointOrder(spec.joint_names, extra_allowed=True)
        self._has_imu = "imu_quat_wxyz" in spec.state_fields
        self._watchdog = watchdog
        self._read_joints, self._read_imu = Deserializer(JointState), Deserializer(Imu)
        self._subscriptions: list[Any] = []
        self._output: CommandOutput | None = None
        self._forget()

    def _forget(self) -> None:
        self._passed_s, self._not_passed = -math.inf, NEVER_PASSED
        self._joints: tuple[float, Array, Array, Array | None] | None = None
        self._imu: tuple[float, Array, Array, Array] | None = None
        self._state: NumpyState | None = None
        self._joint_stamps, self._imu_stamps = StampMapper(), StampMapper()
        self._joint_data = self._imu_data = b""

    def open(self) -> None:
        """Create publishers and subscriptions, so that they can match before `connect` asks whether they did."""
        if self._output is not None:
            return
        node = self._node
        self._forget()
        subscribe = ros_compat.subscribe_bytes
        self._subscriptions = [subscribe(node, JointState, STATE_TOPIC, self._on_joints, ros_compat.SENSOR_QOS)]
        if self._has_imu:
            self._subscriptions.append(subscribe(node, Imu, IMU_TOPIC, self._on_imu, ros_compat.SENSOR_QOS))
        if self._watchdog:
            heartbeat = node.create_subscription(Bool, PASSING_TOPIC, self._on_passing, ros_compat.COMMAND_QOS)
            self._subscriptions.append(heartbeat)
        self._output = CommandOutput(node, self.spec, self.command_topic)

    def connect(self) -> None:
        """Raise RobotRLError naming every reason why this robot cannot be controlled now."""
        self.open()
        if problems := self.problems():
            raise RobotRLError(f"robot {self.spec.name!r} is not connected: {'; '.join(problems)}")

    def problems(self) -> list[str]:
        """What is missing: publishers, QoS, a subscriber of ours, a first message; or a rival on the command topic."""
        node = self._node
        topics = [STATE_TOPIC, IMU_TOPIC] if self._has_imu else [STATE_TOPIC]
        found = [ros_compat.publisher_problem(node, topic, ros_compat.SENSOR_QOS) for topic in topics]
        heard = ros_compat.subscription_problem(node, self.command_topic, ros_compat.COMMAND_QOS)
        found.append(f"{heard}: is the watchdog node running?" if heard and self._watchdog else heard)
        found.append(ros_compat.publisher_problem(node, self.command_topic, ros_compat.COMMAND_QOS))
        problems = [p for p in found if p]
        if not problems and self.read() is None:
            reasons = f"; last rejection: {self.last_rejection}" if self.rejected else ""
            problems.append(f"no usable state has arrived{reasons}")
        return problems

    def read(self) -> NumpyState | None:
        if self._state is None and self._joints is not None and math.isfinite(self.stamp_s):
            _, pos, vel, effort = self._joints
            _, quat, ang_vel, lin_acc = (None, None, None, None) if self._imu is None else self._imu
            self._state = RobotState(
                stamp_s=np.array([self.stamp_s]),
                joint_pos=pos[None],
                joint_vel=vel[None],
                joint_effort=None if effort is None else effort[None],
                imu_quat_wxyz=None if quat is None else quat[None],
                imu_ang_vel_b=None if ang_vel is None else ang_vel[None],
                imu_lin_acc_b=None if lin_acc is None else lin_acc[None],
            )
        return self._state

    @property
    def stamp_s(self) -> float:
        """When the newest state was measured, on the monotonic clock; -inf before the first one."""
        if self._joints is None or (self._imu is None and self._has_imu):
            return -math.inf
        # The older part dates the whole, so that the loss of either topic shows.
        return self._joints[0] if self._imu is None else min(self._joints[0], self._imu[0])

    def write(self, command: JointCommand) -> JointCommand:
        """Publish, unless it has expired. Raises MessageError for a command that no robot should get."""
        assert self._output is not None, "not connected"
        if not self._output.send(command):
            self.rejected[self.command_topic] += 1
            self.last_rejection = f"{self.command_topic}: a command expired before it could be sent"
        if self._watchdog:
            self._not_passed = 0 if time.monotonic() - self._passed_s < HEARTBEAT_LOST_S else self._not_passed + 1
        return command

    def rehearse(self) -> None:
        """Read the last messages and prepare the last command again, which changes nothing."""
        if self._joint_data:
            converters.decode_joint_state(self._read_joints(self._joint_data), self._order)
        if self._imu_data:
            converters.decode_imu(self._read_imu(self._imu_data))
        if self._output is not None:
            self._output.rehearse()

    def health(self) -> Health | None:
        """Commands in a row that the watchdog did not pass on, or that went to one that is gone, and NEVER_PASSED until
        it passes any; None without one."""
        return Health(time.monotonic(), lost_packets=self._not_passed) if self._watchdog else None

    def stop(self) -> None:
        """One damping command. Its short time to live makes the robot's own damping follow."""
        if self._output is None:
            return
        try:
            kd = np.array(self.spec.safety.damping_kd_nms_rad)
            self.write(damping_command(kd, time.monotonic(), STOP_TIME_TO_LIVE_S))
        except Exception as error:
            self._node.get_logger().error(f"damping command not sent: {error}")

    def close(self) -> None:
        """Destroy publishers and subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        if self._output is not None:
            self._output.close()
        self._subscriptions, self._output = [], None

    def __enter__(self) -> RosRobot:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _on_joints(self, data: bytes) -> None:
        now = time.monotonic()
        try:
            message = self._read_joints(data)
            stamp_s = self._joint_stamps.map(converters.stamp_of(message), now)
            if stamp_s is None:
                raise MessageError("stamp is not newer than the last one")
            self._joints = (stamp_s, *converters.decode_joint_state(message, self._order))
            self._state, self._joint_data = None, data
        except MessageError as error:
            self.reject(STATE_TOPIC, error)

    def _on_imu(self, data: bytes) -> None:
        now = time.monotonic()
        try:
            message = self._read_imu(data)
            stamp_s = self._imu_stamps.map(converters.stamp_of(message), now)
            if stamp_s is None:
                raise MessageError("stamp is not newer than the last one")
            self._imu = (stamp_s, *converters.decode_imu(message))
            self._state, self._imu_data = None, data
        except MessageError as error:
            self.reject(IMU_TOPIC, error)

    def _on_passing(self, message: Bool) -> None:
        self._passed_s = time.monotonic() if message.data else -math.inf

    def reject(self, topic: str, error: MessageError) -> None:
        """Count a message that could not be used."""
        self.rejected[topic] += 1
        self.last_rejection = f"{topic}: {error}"
