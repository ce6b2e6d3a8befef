# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# launch comes with a ROS distribution and is not on PyPI.
"""The policy node and its watchdog: the robot's own driver publishes joint_states and obeys what the watchdog sends.

    ros2 launch robot_rl_bringup real.launch.py robot:=leap_hand bundle:=/path/to/bundle.zip

Nothing moves until an operator asks: `ros2 run robot_rl_bridge operator up`, then `stand`, then `run`.
"""

from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
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
    unit = ParameterValue(LaunchConfiguration("unit"), value_type=str)
    output = ParameterValue(LaunchConfiguration("output"), value_type=str)
    gains = ParameterValue(LaunchConfiguration("gains"), value_type=bool)
    return LaunchDescription(
        [
            DeclareLaunchArgument("robot", default_value="leap_hand", description="Name, as in `robot-rl list`."),
            DeclareLaunchArgument("bundle", description="Policy bundle: a folder or a zip file."),
            DeclareLaunchArgument(
                "params",
                default_value=[FindPackageShare("robot_rl_bringup"), "/config/", robot, ".yaml"],
                description="Parameter file.",
            ),
            DeclareLaunchArgument("unit", default_value="", description="Unit file of the robot; empty: none."),
            DeclareLaunchArgument("log", default_value="", description="MCAP file to record to; empty: no record."),
            DeclareLaunchArgument(
                "output",
                default_value="joint_command",
                description="Form of commands: joint_command, joint_state, joint_trajectory or forward.",
            ),
            DeclareLaunchArgument(
                "gains", default_value="false", description="Whether stiffness and damping are sent beside positions."
            ),
            DeclareLaunchArgument(
                "goals", default_value="false", description="Whether the goal node asks for one goal after the other."
            ),
            Node(
                package="robot_rl_bridge",
                executable="goal_node",
                name="goal",
                output="screen",
                parameters=[params, {"bundle": bundle}],
                condition=IfCondition(LaunchConfiguration("goals")),
            ),
            Node(
                package="robot_rl_bridge",
                executable="watchdog_node",
                name="watchdog",
                output="screen",
                parameters=[params, {"robot": robot, "unit": unit, "output": output, "gains": gains}],
            ),
            LifecycleNode(
                package="robot_rl_bridge",
                executable="policy_node",
                name="policy",
                namespace="",
                output="screen",
                parameters=[params, {"bundle": bundle, "robot": robot, "unit": unit, "log": log}],
            ),
        ]
    )
