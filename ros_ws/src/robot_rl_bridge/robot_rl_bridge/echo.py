"""The least that a node can do: answer each state with a message of a joint command's size. What the benchmark compares
with. Run as a process: `python -m robot_rl_bridge.echo --ros-args -p robot:=unitree_g1 -p bare:=true`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.node import Node
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray

from robot_rl.contract import damping_command
from robot_rl.robots import get_robot, robot_names
from robot_rl.runtime.signals import no_garbage_collection
from robot_rl_bridge import converters, ros_compat
from robot_rl_bridge.outputs import COMMAND_TOPIC
from robot_rl_bridge.ros_compat import ParameterSpec
from robot_rl_bridge.ros_robot import IMU_TOPIC, STATE_TOPIC

PARAMETERS = (
    ParameterSpec("robot", "leap_hand", "Robot whose messages are echoed.", choices=robot_names()),
    ParameterSpec("bare", True, "rclpy.spin and nothing else; false: the executor and loop of the policy node."),
    ros_compat.PRIORITY,
    ros_compat.CORES,
)


class EchoNode(Node):
    """Answers the last message of each state with one whose time of sending is the stamp of that message."""

    def __init__(self) -> None:
        super().__init__("echo", enable_rosout=False)
        values = ros_compat.declare_parameters(self, PARAMETERS)
        self.bare = values["bare"]
        ros_compat.schedule(self, values)
        spec = get_robot(values["robot"])
        command = damping_command(np.array(spec.safety.damping_kd_nms_rad), time.monotonic(), 0.1)
        writer = converters.CommandWriter(spec.joint_names)
        self._answer = writer.fill(command, session=1, sequence=1, now_s=time.monotonic())
        self._publisher = self.create_publisher(Float64MultiArray, COMMAND_TOPIC, ros_compat.COMMAND_QOS)
        has_imu = "imu_quat_wxyz" in spec.state_fields
        on_joints = self._ignore if has_imu else self._echo
        self.create_subscription(JointState, STATE_TOPIC, on_joints, ros_compat.SENSOR_QOS)
        if has_imu:
            self.create_subscription(Imu, IMU_TOPIC, self._echo, ros_compat.SENSOR_QOS)

    def _ignore(self, message: JointState) -> None:
        pass

    def _echo(self, message: JointState | Imu) -> None:
        data: Any = self._answer.data
        data[2] = converters.stamp_of(message)
        self._publisher.publish(self._answer)


def spin_as_the_policy_node(node: Node) -> None:
    """Serve the node like rclpy.spin, with what the policy node does to be quick."""
    executor = EventsExecutor()
    executor.add_node(node)
    with no_garbage_collection():
        while rclpy.ok():
            executor.spin_once(timeout_sec=0.1)


def main() -> int:
    """Echo until SIGINT or SIGTERM."""
    rclpy.init()
    node = EchoNode()
    try:
        (rclpy.spin if node.bare else spin_as_the_policy_node)(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        # A signal between two waits ends the context where rclpy does not expect it (RCLError).
        if rclpy.ok():
            raise
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(ros_compat.run_node(main))
