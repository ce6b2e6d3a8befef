"""Driver node: a robot that one of our drivers reaches, behind the topics that the watchdog and the policy node expect.

    driver_node --ros-args -p unit:=/path/to/leap-07.yaml

Publishes `joint_states`, for a robot with an IMU `imu/data`, and its health on /diagnostics. Obeys `joint_command`
until each command's time to live has passed; from then on the driver damps on its own. Ends, damped and released, when
the robot's line is lost: nobody else may think that it is still there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray

from robot_rl.commands import drivers
from robot_rl.contract import NumpyState
from robot_rl.errors import ConfigError, RobotRLError
from robot_rl.robots import robot_names
from robot_rl.runtime.interface import Health, MonotonicClock
from robot_rl.runtime.loop import damp_out
from robot_rl.runtime.signals import no_garbage_collection, stop_on_signals
from robot_rl_bridge import converters, ros_compat
from robot_rl_bridge.receiver import CommandReceiver
from robot_rl_bridge.ros_compat import ParameterSpec
from robot_rl_bridge.ros_robot import COMMAND_TOPIC, IMU_TOPIC, STATE_TOPIC
from robot_rl_bridge.status import TOPIC as STATUS_TOPIC
from robot_rl_bridge.status import Level, status_message

STATUS_PERIOD_S = 0.1

PARAMETERS = (
    ParameterSpec("robot", "leap_hand", "Robot that the driver reaches.", choices=robot_names()),
    ros_compat.UNIT,
    ParameterSpec("interface", "", "Driver; empty: the unit's."),
    ParameterSpec("rate_hz", 100.0, "Rate at which the robot is read, and its state published.", 10.0, 1000.0),
    ros_compat.PRIORITY,
    ros_compat.CORES,
)


class DriverNode(Node):
    """Wires one connected robot to topics."""

    def __init__(self) -> None:
        super().__init__("driver", enable_rosout=False)
        values = ros_compat.declare_parameters(self, PARAMETERS)
        ros_compat.schedule(self, values)
        unit = drivers.read_unit(Path(values["unit"]) if values["unit"] else None)
        if unit is None and not values["interface"]:
            raise ConfigError("parameter unit or interface must say which driver reaches the robot")
        interface = drivers.interface_of(values["interface"] or None, unit)
        if interface == "ros":
            raise ConfigError("a robot behind topics needs no driver node")
        self.spec, _ = ros_compat.robot_of(values)
        self.period_s = 1.0 / values["rate_hz"]
        self.damping_kd = np.array(self.spec.safety.damping_kd_nms_rad)
        self.problem: RobotRLError | None = None
        """Why the robot could not be told something: the end of this node."""
        self._order = converters.JointOrder(self.spec.joint_names, extra_allowed=False)
        self._receiver = CommandReceiver()
        self._accepted = self._published = 0
        self._stamp_s = -1.0
        self._next_status_s = 0.0
        self.robot = drivers.connect(interface, self.spec, unit)
        self._joints = self.create_publisher(JointState, STATE_TOPIC, ros_compat.SENSOR_QOS)
        has_imu = "imu_quat_wxyz" in self.spec.state_fields
        self._imu = self.create_publisher(Imu, IMU_TOPIC, ros_compat.SENSOR_QOS) if has_imu else None
        self._status = self.create_publisher(DiagnosticArray, STATUS_TOPIC, ros_compat.STATUS_QOS)
        self.create_subscription(Float64MultiArray, COMMAND_TOPIC, self._on_command, ros_compat.COMMAND_QOS)

    def tick(self) -> None:
        """Read the robot, publish what is new."""
        state = self.robot.read()
        now = time.monotonic()
        if state is not None and state.stamp_s[0] > self._stamp_s:
            self._stamp_s = float(state.stamp_s[0])
            self._publish(state, now)
        if now >= self._next_status_s:
            self._next_status_s = now + STATUS_PERIOD_S
            self._publish_status(now)

    def _publish(self, state: NumpyState, now: float) -> None:
        stamp_s = time.time() - (now - self._stamp_s)
        effort = None if state.joint_effort is None else state.joint_effort[0]
        self._joints.publish(
            converters.encode_joint_state(
                self.spec.joint_names, stamp_s, state.joint_pos[0], state.joint_vel[0], effort
            )
        )
        if self._imu is not None and state.imu_quat_wxyz is not None:
            assert state.imu_ang_vel_b is not None
            assert state.imu_lin_acc_b is not None
            imu = (state.imu_quat_wxyz[0], state.imu_ang_vel_b[0], state.imu_lin_acc_b[0])
            self._imu.publish(converters.encode_imu(stamp_s, self.spec.root_body, *imu))
        self._published += 1

    def _publish_status(self, now: float) -> None:
        health: Health | None = getattr(self.robot, "health", lambda: None)()
        age_s = now - self._stamp_s
        values: dict[str, Any] = {
            "age_s": age_s,
            "states_published": self._published,
            "commands_accepted": self._accepted,
            "commands_rejected": dict(self._receiver.rejected),
            "last_rejection": self._receiver.last_rejection,
        }
        level: Level = "error" if age_s > self.spec.safety.state_damp_s else "ok"
        summary = "no state from the robot" if level == "error" else "ok"
        if health is not None:
            errors = {} if health.motor_errors is None else self._named(health.motor_errors)
            values["lost_packets"] = health.lost_packets
            values["motor_errors"] = errors
            if health.motor_temperature_c is not None:
                values["motor_temperature_c"] = dict(
                    zip(self.spec.joint_names, health.motor_temperature_c.tolist(), strict=True)
                )
            if errors:
                level, summary = "error", f"motor errors: {', '.join(errors)}"
        self._status.publish(status_message(self.get_name(), "driver", self.spec.name, level, summary, values))

    def _named(self, errors: Any) -> dict[str, int]:
        return {name: int(error) for name, error in zip(self.spec.joint_names, errors, strict=True) if error}

    def _on_command(self, message: Float64MultiArray) -> None:
        try:
            received = converters.decode_joint_command(message, self._order)
        except converters.MessageError as error:
            self._receiver.reject_malformed(error)
            return
        command = self._receiver.accept(received, time.monotonic())
        if command is None or self.problem is not None:
            return
        try:
            self.robot.write(command)
            self._accepted += 1
        except RobotRLError as error:
            self.problem = error


def main() -> int:
    """Read and publish at absolute deadlines until a signal asks to end or the robot is lost; then damp and release."""
    with stop_on_signals() as stop, ros_compat.ros_context() as executor:
        node = DriverNode()
        clock = ros_compat.RosClock(executor)
        with no_garbage_collection():
            try:
                executor.add_node(node)
                deadline_s = clock.now()
                while not stop and node.problem is None:
                    # A deadline missed by more than a period is given up, not caught up with in a burst.
                    deadline_s = max(deadline_s + node.period_s, clock.now())
                    clock.sleep_until(deadline_s)
                    node.tick()
            finally:
                damp_out(node.robot, node.damping_kd, node.period_s, MonotonicClock())
        if node.problem is not None:
            print(f"{node.get_name()}: {node.problem}", file=sys.stderr, flush=True)
        return 0 if node.problem is None else 1


def console() -> None:
    raise SystemExit(ros_compat.run_node(main))


if __name__ == "__main__":
    console()
