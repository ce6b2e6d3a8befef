# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# launch comes with a ROS distribution and is not on PyPI.
"""A joystick as command, dead-man button and emergency stop; started beside sim.launch.py or real.launch.py.

    ros2 launch robot_rl_bringup teleop.launch.py

The joystick's driver comes from the package `joy`; with joy:=false something else publishes /joy. The keyboard needs a
terminal of its own: `ros2 run robot_rl_bridge teleop_node --ros-args -p source:=keyboard`.
"""

from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params",
                default_value=[FindPackageShare("robot_rl_bringup"), "/config/teleop.yaml"],
                description="Parameter file.",
            ),
            DeclareLaunchArgument("joy", default_value="true", description="Whether to start the joystick's driver."),
            Node(
                package="joy",
                executable="joy_node",
                name="joy",
                output="screen",
                # Repeated, because a joystick that says nothing counts as released.
                parameters=[{"autorepeat_rate": 20.0}],
                condition=IfCondition(LaunchConfiguration("joy")),
            ),
            Node(
                package="robot_rl_bridge",
                executable="teleop_node",
                name="teleop",
                output="screen",
                parameters=[LaunchConfiguration("params")],
            ),
        ]
    )
