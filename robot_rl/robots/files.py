"""Robots in files: `robot-rl robot add` writes a folder for each, with its RobotSpec in robot.json.

Reading one takes no simulator, so that an added robot is deployed as any other."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

from robot_rl.contract import JointSpec
from robot_rl.contract.spec import dataclass_from
from robot_rl.errors import ConfigError, ContractError
from robot_rl.robots.collision import Capsule, CollisionModel, Placement
from robot_rl.robots.spec import Chain, Link, RobotSpec, SafetyProfile

FOLDER_VARIABLE = "ROBOT_RL_ROBOTS"
"""Environment variable that names the folder of added robots."""
ROBOT_FILE = "robot.json"
FORMAT = 1

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def robots_folder() -> Path:
    """Where added robots lie: $ROBOT_RL_ROBOTS, or ./robots."""
    return Path(os.environ.get(FOLDER_VARIABLE) or "robots")


def added_robots() -> dict[str, Path]:
    """Name -> folder of every robot in `robots_folder()`, without reading any."""
    folder = robots_folder()
    if not folder.is_dir():
        return {}
    return {p.parent.name: p.parent for p in sorted(folder.glob(f"*/{ROBOT_FILE}")) if _NAME.fullmatch(p.parent.name)}


def check_name(name: str) -> str:
    """`name`, if a robot may be called that: it names folders, files and tasks. Otherwise ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"robot name {name!r} must be letters, digits, - and _, and begin with a letter")
    return name


def robot_to_json(robot: RobotSpec, findings: tuple[str, ...] = ()) -> str:
    """The text of robot.json, floats at full precision. `findings`: what the import had to assume, for people."""
    data = {"format": FORMAT, "robot": dataclasses.asdict(robot), "findings": findings}
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def read_robot(folder: Path) -> RobotSpec:
    """The robot in `folder`. Raises ConfigError naming file and entry if it cannot be read or is not consistent."""
    path = folder / ROBOT_FILE
    data = _read(path)
    try:
        robot = _robot(data["robot"])
    except ContractError as error:
        raise ConfigError(f"{path}: {error}") from error
    if robot.name != folder.name:
        raise ConfigError(f"{path}: the robot is named {robot.name!r}, its folder {folder.name!r}; rename one of them")
    return robot


def read_findings(folder: Path) -> tuple[str, ...]:
    """What the import of the robot in `folder` had to assume."""
    return tuple(str(f) for f in _read(folder / ROBOT_FILE).get("findings", ()))


def _read(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not a number that a robot can have")

    try:
        data = json.loads(path.read_text(), parse_constant=refuse)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    written = data.get("format") if isinstance(data, dict) else None
    if written != FORMAT:
        raise ConfigError(f"{path}: format {written!r} is not supported; this code reads {FORMAT}: add the robot again")
    if "robot" not in data:
        raise ConfigError(f"{path}: missing key robot")
    return data


def _robot(data: Any) -> RobotSpec:
    """RobotSpec from JSON's objects and lists; the nested ones first."""
    data = dict(_object(data, "robot"))
    data["joints"] = tuple(dataclass_from(JointSpec, j, f"joints[{i}]") for i, j in _items(data, "joints"))
    data["mirror"] = tuple(_pair(pair, f"mirror[{i}]") for i, pair in _items(data, "mirror"))
    chains = []
    for i, item in _items(data, "chains"):
        chain = dict(_object(item, f"chains[{i}]"))
        links = _items(chain, "links")
        chain["links"] = tuple(dataclass_from(Link, link, f"chains[{i}].links[{k}]") for k, link in links)
        chains.append(dataclass_from(Chain, chain, f"chains[{i}]"))
    data["chains"] = tuple(chains)
    if data.get("collision") is not None:
        data["collision"] = _collision(dict(_object(data["collision"], "collision")))
    data["safety"] = dataclass_from(SafetyProfile, data.get("safety"), "safety")
    return dataclass_from(RobotSpec, data, "robot")


def _collision(data: dict[str, Any]) -> CollisionModel:
    for key, kind in (("tree", Placement), ("capsules", Capsule)):
        data[key] = tuple(dataclass_from(kind, item, f"collision.{key}[{i}]") for i, item in _items(data, key))
    data["pairs"] = tuple(tuple(map(str, pair)) for _, pair in _items(data, "pairs"))
    return dataclass_from(CollisionModel, data, "collision")


def _object(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ContractError(f"{where}: expected an object, got {type(data).__name__}")
    return data


def _pair(data: Any, where: str) -> tuple[str, int]:
    match data:
        case [str(name), int(sign)]:
            return name, sign
    raise ContractError(f"{where}: expected [joint, sign], got {data!r}")


def _items(data: dict[str, Any], key: str) -> list[tuple[int, Any]]:
    value = data.get(key, [])
    if not isinstance(value, list):
        raise ContractError(f"{key}: expected a list, got {type(value).__name__}")
    return list(enumerate(value))
