# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# launch comes with a ROS distribution and is not on PyPI.
"""The policy node, its watchdog and an emulated robot, with the object that the policy handles, if it handles one.

    ros2 launch robot_rl_bringup sim.launch.py robot:=leap_hand bundle:=/path/to/bundle.zip

Nothing moves until an operator asks: `ros2 run robot_rl_bridge operator up`, then `stand`, then `place` if there is an
object, then `run`.
"""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    robot = LaunchConfiguration("robot")
    params = LaunchConfiguration("params")
    # Text, whatever it looks like: launch would otherwise guess a type, and make nothing of an empty value.
    bundle, log = (ParameterValue(LaunchConfiguration(name), value_type=str) for name in ("bundle", "log"))
    return LaunchDescription(
        [
            DeclareLaunchArgument("robot", default_value="leap_hand", description="Name, as in `robot-rl list`."),
            DeclareLaunchArgument("bundle", description="Policy bundle: a folder or a zip file."),
            DeclareLaunchArgument(
                "params",
                default_value=[FindPackageShare("robot_rl_bringup"), "/config/", robot, ".yaml"],
                description="Parameter file.",
            ),
            DeclareLaunchArgument("log", default_value="", description="MCAP file to record to; empty: no record."),
            Node(
                package="robot_rl_bridge",
                executable="emulator_node",
                name="emulator",
                output="screen",
                parameters=[params, {"robot": robot, "bundle": bundle}],
            ),
            Node(
                package="robot_rl_bridge",
                executable="goal_node",
                name="goal",
                output="screen",
                parameters=[params, {"bundle": bundle}],
            ),
            Node(
                package="robot_rl_bridge",
                executable="watchdog_node",
                name="watchdog",
                output="screen",
                parameters=[params, {"robot": robot}],
            ),
            LifecycleNode(
                package="robot_rl_bridge",
                executable="policy_node",
                name="policy",
                namespace="",
                output="screen",
                parameters=[params, {"bundle": bundle, "robot": robot, "log": log}],
            ),
        ]
    )
