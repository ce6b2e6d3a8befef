from setuptools import setup

PACKAGE = "robot_rl_bridge"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=[PACKAGE],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="robot-rl maintainers",
    maintainer_email="maintainers@robot-rl.invalid",
    description="Runs robot-rl policy bundles as a ROS 2 lifecycle node, with a robot emulator and an operator client.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "policy_node = robot_rl_bridge.policy_node:console",
            "emulator_node = robot_rl_bridge.emulator_node:console",
            "driver_node = robot_rl_bridge.driver_node:console",
            "watchdog_node = robot_rl_bridge.watchdog_node:console",
            "goal_node = robot_rl_bridge.goal_node:console",
            "teleop_node = robot_rl_bridge.teleop_node:console",
            "operator = robot_rl_bridge.operator:console",
        ],
        "robot_rl.drivers": ["ros = robot_rl_bridge.driver:connect"],
        "robot_rl.benchmarks": [
            "ros = robot_rl_bridge.benchmark:benchmark",
            "exits = robot_rl_bridge.exit_paths:benchmark",
        ],
    },
)
