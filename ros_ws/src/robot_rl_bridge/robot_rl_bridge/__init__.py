"""ROS 2 shell around robot_rl: a policy node, a robot emulator and an operator's client, on standard messages only.

Importing it sets two variables that rclpy and the message packages read when they are imported:

- ROS_PYTHON_CHECK_FIELDS=1: without it a message field of the wrong type is sent as garbage, silently.
- ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST unless it is set: nothing leaves this host by accident.
"""

import os
from importlib.util import find_spec

from robot_rl.errors import MissingDependencyError

os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

if find_spec("rclpy") is None:
    raise MissingDependencyError(
        "ROS 2 (rclpy) is not available: source a ROS 2 Jazzy or Kilted installation, or on Linux x86_64 run "
        "pip install 'robot-rl[ros]'"
    )
