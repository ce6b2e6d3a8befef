"""Goal node: gives the object in the hand one goal orientation after the other, as the policy's training did.

Hears `object_pose` and the policy node's mode, and sends `goal_orientation` with each pose: the next goal once the last
is reached. `~/reached` (std_msgs/UInt32, latched) counts the goals since the policy last took over. What goals there
are, and when one is reached, is in the bundle. A planner of your own may send `goal_orientation` instead.
"""

from __future__ import annotations

import time

import numpy as np
from geometry_msgs.msg import QuaternionStamped
from rclpy.node import Node
from std_msgs.msg import String, UInt32

from robot_rl.bundle.load import load_bundle
from robot_rl.errors import ConfigError
from robot_rl.robots import get_robot
from robot_rl.runtime.goals import GoalSequence
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.object_pose import QUAT_NORM_TOLERANCE
from robot_rl.runtime.signals import stop_on_signals
from robot_rl_bridge import ros_compat
from robot_rl_bridge.converters import MessageError
from robot_rl_bridge.object_topics import FRAME, GOAL_TOPIC, ObjectInput, encode_goal, frame_of
from robot_rl_bridge.ros_compat import ParameterSpec

SERVE_S = 0.1

PARAMETERS = (
    ParameterSpec("bundle", "", "Policy bundle whose goals are given: a folder or a zip file."),
    ParameterSpec("policy", "policy", "Name of the policy node."),
    ParameterSpec("seed", 0, "Seed of the goals.", 0, 2**31 - 1),
    FRAME,
)


class GoalNode(Node):
    """Wires one GoalSequence to topics."""

    def __init__(self) -> None:
        super().__init__("goal", enable_rosout=False)
        values = ros_compat.declare_parameters(self, PARAMETERS)
        if not values["bundle"]:
            raise ConfigError("parameter bundle is empty: give the path of a policy bundle")
        bundle = load_bundle(values["bundle"])
        episode = bundle.manifest.episode
        self.goals = None if episode is None or episode.goals is None else GoalSequence(episode.goals, values["seed"])
        """None for a policy that turns nothing."""
        if self.goals is None:
            return
        self.total = 0
        self._mode = Mode.INIT.value
        self._since_s = time.monotonic()
        self._last_rejection = ""
        self._input = ObjectInput(self, frame_of(values, get_robot(bundle.contract.robot)), self._reject)
        self._input.on_pose = self._on_pose
        self._goal = self.create_publisher(QuaternionStamped, GOAL_TOPIC, ros_compat.COMMAND_QOS)
        self._reached = self.create_publisher(UInt32, "~/reached", ros_compat.LATCHED_QOS)
        self.create_subscription(String, f"/{values['policy']}/mode", self._on_mode, ros_compat.LATCHED_QOS)
        self._reached.publish(UInt32(data=0))

    def _on_mode(self, message: String) -> None:
        if message.data == Mode.RUN.value != self._mode:
            self._since_s = time.monotonic()
            self._reached.publish(UInt32(data=0))
        self._mode = message.data

    def _on_pose(self) -> None:
        quat, goals = self._input.quat_wxyz, self.goals
        assert goals is not None
        # By what the safety filter would not believe no goal is chosen.
        if quat is None or not abs(float(np.linalg.norm(quat)) - 1.0) <= QUAT_NORM_TOLERANCE:
            return
        if goals.update(quat, self._mode == Mode.RUN.value):
            now = time.monotonic()
            self.total += 1
            print(f"{self.get_name()}: goal {goals.reached} after {now - self._since_s:.1f} s", flush=True)
            self._since_s = now
            self._reached.publish(UInt32(data=goals.reached))
        if goals.goal is not None:
            self._goal.publish(encode_goal(self._input.frame, time.time(), goals.goal))

    def _reject(self, topic: str, error: MessageError) -> None:
        reason = f"{topic}: {error}"
        if reason != self._last_rejection:
            self.get_logger().error(reason)
        self._last_rejection = reason


def main() -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; at once done for a bundle without goals."""
    with stop_on_signals() as stop, ros_compat.ros_context() as executor:
        node = GoalNode()
        if node.goals is None:
            print(f"{node.get_name()}: the policy turns no object from goal to goal: nothing to do", flush=True)
            return 0
        executor.add_node(node)
        while not stop:
            ros_compat.spin_until(executor, time.monotonic() + SERVE_S)
        print(f"{node.get_name()}: {node.total} goals reached", flush=True)
    return 0


def console() -> None:
    raise SystemExit(ros_compat.run_node(main))


if __name__ == "__main__":
    console()
