# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# launch comes with a ROS distribution and is not on PyPI.
"""The policy node and an emulated robot.

    ros2 launch robot_rl_bringup sim.launch.py robot:=leap_hand bundle:=/path/to/bundle.zip

Nothing moves until an operator asks: `ros2 run robot_rl_bridge operator up`, then `stand`, then `run`.
"""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    robot = LaunchConfiguration("robot")
    params = PathJoinSubstitution([FindPackageShare("robot_rl_bringup"), "config", [robot, ".yaml"]])
    return LaunchDescription(
        [
            DeclareLaunchArgument("robot", default_value="leap_hand", description="Robot: leap_hand or unitree_g1."),
            DeclareLaunchArgument("bundle", description="Policy bundle: a folder or a zip file."),
            DeclareLaunchArgument("log", default_value="", description="MCAP file to record to; empty: no record."),
            Node(
                package="robot_rl_bridge",
                executable="emulator_node",
                name="emulator",
                output="screen",
                parameters=[params, {"robot": robot}],
            ),
            LifecycleNode(
                package="robot_rl_bridge",
                executable="policy_node",
                name="policy",
                namespace="",
                output="screen",
                parameters=[
                    params,
                    {"bundle": LaunchConfiguration("bundle"), "robot": robot, "log": LaunchConfiguration("log")},
                ],
            ),
        ]
    )
