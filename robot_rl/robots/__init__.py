"""Robots as pure data. Adding one: a literal in its own file, and a line here; or `robot-rl robot add`, which needs
neither."""

from robot_rl.errors import ConfigError
from robot_rl.robots.files import added_robots, read_robot, robots_folder
from robot_rl.robots.franka_panda import FRANKA_PANDA
from robot_rl.robots.leap_hand import LEAP_HAND
from robot_rl.robots.shadow_hand import SHADOW_HAND
from robot_rl.robots.spec import BackupTier, Chain, Link, RobotSpec, SafetyProfile, check_contract
from robot_rl.robots.unitree_g1 import UNITREE_G1

ROBOTS: dict[str, RobotSpec] = {
    "leap_hand": LEAP_HAND,
    "shadow_hand": SHADOW_HAND,
    "unitree_g1": UNITREE_G1,
    "franka_panda": FRANKA_PANDA,
}


def get_robot(name: str) -> RobotSpec:
    """RobotSpec by name, of the table or of `robots_folder()`. Raises ConfigError listing the valid names."""
    if name in ROBOTS:
        return ROBOTS[name]
    added = added_robots()
    if name not in added:
        raise ConfigError(
            f"unknown robot {name!r}; valid: {', '.join(robot_names())}; "
            f"`robot-rl robot add` puts robots from files into {robots_folder()}/"
        )
    return read_robot(added[name])


def robot_names() -> tuple[str, ...]:
    """Every name that `get_robot` knows."""
    return (*ROBOTS, *(name for name in added_robots() if name not in ROBOTS))


__all__ = [
    "FRANKA_PANDA",
    "LEAP_HAND",
    "ROBOTS",
    "SHADOW_HAND",
    "UNITREE_G1",
    "BackupTier",
    "Chain",
    "Link",
    "RobotSpec",
    "SafetyProfile",
    "check_contract",
    "get_robot",
    "robot_names",
]
