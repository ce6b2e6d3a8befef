"""Robots as pure data. Adding one: a literal in its own file, and a line here."""

from robot_rl.errors import ConfigError
from robot_rl.robots.franka_panda import FRANKA_PANDA
from robot_rl.robots.leap_hand import LEAP_HAND
from robot_rl.robots.spec import BackupTier, Chain, Link, RobotSpec, SafetyProfile, check_contract
from robot_rl.robots.unitree_g1 import UNITREE_G1

ROBOTS: dict[str, RobotSpec] = {
    "leap_hand": LEAP_HAND,
    "unitree_g1": UNITREE_G1,
    "franka_panda": FRANKA_PANDA,
}


def get_robot(name: str) -> RobotSpec:
    """RobotSpec by name. Raises ConfigError listing the valid names."""
    if name not in ROBOTS:
        raise ConfigError(f"unknown robot {name!r}; valid: {', '.join(ROBOTS)}")
    return ROBOTS[name]


__all__ = [
    "FRANKA_PANDA",
    "LEAP_HAND",
    "ROBOTS",
    "UNITREE_G1",
    "BackupTier",
    "Chain",
    "Link",
    "RobotSpec",
    "SafetyProfile",
    "check_contract",
    "get_robot",
]
