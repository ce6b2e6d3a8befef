"""ROS 2: where it comes from, its middleware, and how far its discovery reaches."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from robot_rl.doctor.finding import Finding, ok, warn
from robot_rl.doctor.software import installed, version_of

DISTRIBUTIONS = {"jazzy": "3.12", "kilted": "3.12"}
"""Those that are supported, and the Python that their rclpy is built for."""
MESSAGES = (
    "diagnostic_msgs", "geometry_msgs", "lifecycle_msgs", "rcl_interfaces", "sensor_msgs", "std_msgs", "std_srvs",
    "trajectory_msgs",
)  # fmt: skip
"""What the bridge's nodes speak."""
RANGES = ("LOCALHOST", "OFF", "SUBNET", "SYSTEM_DEFAULT")
MAX_DOMAIN = 101
"""Beyond it, on Linux, ports overlap with those that the system hands out."""


def check_ros(env: Mapping[str, str] = os.environ) -> list[Finding]:
    origin = _origin()
    distribution = env.get("ROS_DISTRO", "")
    if origin is None:
        return [_without_rclpy(distribution)]
    findings = [_source(origin, distribution), _middleware(env, origin)]
    if installed("robot_rl_bridge"):
        findings.append(ok("ros bridge", version_of("robot_rl_bridge")))
    else:
        fix = "pip install ./ros_ws/src/robot_rl_bridge, or colcon build in ros_ws"
        findings.append(warn("ros bridge", "robot_rl_bridge is not installed", fix))
    return [*findings, _messages(), _discovery(env), _domain(env)]


def _origin() -> Path | None:
    """Where rclpy lies, without importing it."""
    spec = importlib.util.find_spec("rclpy")
    return None if spec is None or spec.origin is None else Path(spec.origin)


def _without_rclpy(distribution: str) -> Finding:
    if distribution:
        needed = DISTRIBUTIONS.get(distribution, "another version")
        return warn(
            "ros",
            f"{distribution} is sourced, but this Python ({platform.python_version()}) does not see its rclpy",
            f"make the virtual environment with the system's Python ({needed}) and --system-site-packages",
        )
    return warn(
        "ros", "rclpy is not installed", "pip install 'robot-rl[ros]' (Linux x86_64), or source a ROS 2 distribution"
    )


def _source(origin: Path, distribution: str) -> Finding:
    if "site-packages" in origin.parts:
        found = f"wheels, rclpy {version_of('ros-rclpy')}"
        if distribution:
            fix = "use one of them: a shell in which no distribution is sourced, or an environment without the wheels"
            return warn("ros", f"{found}, and {distribution} is sourced as well", fix)
        return ok("ros", found)
    if distribution not in DISTRIBUTIONS:
        return warn("ros", f"distribution {distribution or 'unknown'}", f"tested with {', '.join(DISTRIBUTIONS)}")
    return ok("ros", f"distribution {distribution}")


def _middleware(env: Mapping[str, str], origin: Path) -> Finding:
    names = sorted(_implementations(env, origin))
    chosen = env.get("RMW_IMPLEMENTATION", "")
    found = chosen or f"default of {', '.join(names) or 'what is installed'}"
    if chosen and names and chosen not in names:
        fix = f"unset RMW_IMPLEMENTATION, or choose one of {', '.join(names)}, or install it"
        return warn("ros middleware", f"RMW_IMPLEMENTATION is {chosen}, which is not installed", fix)
    return ok("ros middleware", found)


def _implementations(env: Mapping[str, str], origin: Path) -> set[str]:
    """Middlewares that are installed: of wheels their distributions, else the index of ament."""
    if "site-packages" in origin.parts:
        names = (d.metadata["Name"] or "" for d in importlib.metadata.distributions())
        return {
            n[4:].replace("-", "_")
            for n in names
            if n.startswith("ros-rmw-") and n.endswith("-cpp") and "shared" not in n
        }
    prefixes = [Path(p) for p in env.get("AMENT_PREFIX_PATH", "").split(":") if p]
    index = (p / "share/ament_index/resource_index/rmw_typesupport" for p in prefixes)
    return {entry.name for folder in index if folder.is_dir() for entry in folder.iterdir()}


def _messages() -> Finding:
    missing = [name for name in MESSAGES if not installed(name)]
    if missing:
        fix = "pip install 'robot-rl[ros]', or install them from the distribution (ros-<distribution>-<name>)"
        return warn("ros messages", f"missing: {', '.join(missing)}", fix)
    # Of no use to the nodes, but a user of ROS expects them; the wheels have neither.
    tools = [name for name in ("launch_ros", "ros2cli") if not installed(name)]
    without = f"; without {', '.join(tools)}: start the nodes by their names" if tools else ""
    return ok("ros messages", f"all {len(MESSAGES)}{without}")


def _discovery(env: Mapping[str, str]) -> Finding:
    reach, name = env.get("ROS_AUTOMATIC_DISCOVERY_RANGE", ""), "ros discovery"
    if reach and reach not in RANGES:
        return warn(name, f"ROS_AUTOMATIC_DISCOVERY_RANGE is {reach!r}", f"set it to one of {', '.join(RANGES)}")
    peers = env.get("ROS_STATIC_PEERS", "")
    if reach in ("LOCALHOST", "OFF"):
        return ok(name, f"{reach}{f', and {peers}' if peers else ''}")
    # ROS_LOCALHOST_ONLY is not enough: it has been seen to send multicast on other interfaces.
    found = f"reaches the whole network ({reach or 'ROS_AUTOMATIC_DISCOVERY_RANGE is unset'})"
    if env.get("ROS_LOCALHOST_ONLY") == "1":
        found += "; ROS_LOCALHOST_ONLY does not stop multicast"
    fix = "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST, and name a robot elsewhere in ROS_STATIC_PEERS"
    return warn(name, found, fix)


def _domain(env: Mapping[str, str]) -> Finding:
    text = env.get("ROS_DOMAIN_ID", "")
    if text and not (text.isdecimal() and int(text) <= MAX_DOMAIN):
        return warn("ros domain", f"ROS_DOMAIN_ID is {text!r}", f"set it to a number from 0 to {MAX_DOMAIN}")
    return ok("ros domain", text or "0")
