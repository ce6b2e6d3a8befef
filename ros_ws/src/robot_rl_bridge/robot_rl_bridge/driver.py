"""Driver `ros`: a robot behind topics, for programs without a node of their own, such as `robot-rl wiggle`.

Commands go through the watchdog node, as those of the policy node do. So whatever its outputs reach is reached: our own
message, JointState, ros2_control's trajectory and forward controllers. Run it at this program's rate
(`watchdog_node --ros-args -p robot:=... -p loop_rate_hz:=50.0`), and no policy node beside it.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from typing import Any

from rclpy.node import Node

from robot_rl.contract import JointCommand, NumpyState
from robot_rl.errors import ConfigError, RobotRLError
from robot_rl.robots import RobotSpec
from robot_rl.robots.unit import UnitConfig
from robot_rl.runtime.interface import Health
from robot_rl_bridge import ros_compat
from robot_rl_bridge.ros_robot import RosRobot
from robot_rl_bridge.watchdog_node import INPUT_TOPIC

_log = logging.getLogger(__name__)

CONNECT_S = 10.0
"""How long others are given to be discovered."""
SERVE_S, WAIT_S = 0.001, 0.02
"""At each reading callbacks are served at least so long, and until a new state is there at most so long."""


class RosDriver:
    """RobotInterface with a node, an executor and a context of its own; serves callbacks whenever it is called."""

    def __init__(self, spec: RobotSpec, connect_s: float = CONNECT_S) -> None:
        self.spec = spec
        self._connect_s = connect_s
        self._stack = ExitStack()
        self._executor: Any = None
        self._robot: RosRobot | None = None

    def connect(self) -> None:
        """Find state publisher and watchdog, and damp until that passes it on. Raises RobotRLError naming what is
        missing."""
        if self._robot is not None:
            return
        try:
            self._executor = self._stack.enter_context(ros_compat.ros_context())
            node = Node("robot_rl_driver")
            self._executor.add_node(node)
            robot = self._robot = RosRobot(node, self.spec, INPUT_TOPIC, watchdog=True)
            robot.open()
            ros_compat.spin_while(self._executor, lambda: bool(robot.problems()), self._connect_s)
            robot.connect()
            # Whoever drives the robot next may take what it sends for what the robot gets.
            if not ros_compat.spin_while(self._executor, lambda: _damp(robot), self._connect_s):
                raise RobotRLError(
                    f"robot {self.spec.name!r} is not connected: the watchdog passes no damping on to it"
                )
        except BaseException:
            self.stop()
            raise

    def read(self) -> NumpyState | None:
        if self._robot is None:
            return None
        robot, before_s = self._robot, self._robot.stamp_s
        ros_compat.spin_until(self._executor, time.monotonic() + SERVE_S)
        ros_compat.spin_while(self._executor, lambda: robot.stamp_s <= before_s, WAIT_S)
        return robot.read()

    def write(self, command: JointCommand) -> JointCommand:
        if self._robot is None:
            raise ConfigError("not connected: connect() first")
        return self._robot.write(command)

    def health(self) -> Health | None:
        """Whether the watchdog passes commands on."""
        return None if self._robot is None else self._robot.health()

    def stop(self) -> None:
        """One damping command, and the node is gone; robot and watchdog damp on their own then."""
        robot, self._robot = self._robot, None
        # What fails here must not hide why the run ended, nor keep the rest from being closed.
        try:
            if robot is not None:
                robot.stop()
                ros_compat.spin_until(self._executor, time.monotonic() + 0.05)
                robot.close()
        except Exception:
            _log.exception("the damping command may not have been sent")
        try:
            self._stack.close()
        except Exception:
            _log.exception("ROS was not shut down")

    def __enter__(self) -> RosDriver:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _damp(robot: RosRobot) -> bool:
    """Send one damping command; whether the watchdog did not pass them on so far."""
    robot.stop()
    health = robot.health()
    return health is None or health.lost_packets > 0


def connect(spec: RobotSpec, unit: UnitConfig | None = None) -> RosDriver:
    """Driver entry point. Names decide which joint is which, so a unit may have neither wiring nor options here."""
    if unit is not None and (unit.joints or unit.options):
        raise ConfigError(
            f"unit {unit.serial!r}: the driver 'ros' takes no joints and no options; the robot's own does"
        )
    robot = RosDriver(spec)
    robot.connect()
    return robot
