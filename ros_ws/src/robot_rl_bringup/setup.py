from glob import glob

from setuptools import setup

PACKAGE = "robot_rl_bringup"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=[PACKAGE],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", glob("launch/*.launch.py")),
        (f"share/{PACKAGE}/config", glob("config/*.yaml")),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="robot-rl maintainers",
    maintainer_email="maintainers@robot-rl.invalid",
    description="Launch files and parameters for robot_rl_bridge.",
    license="Apache-2.0",
)
