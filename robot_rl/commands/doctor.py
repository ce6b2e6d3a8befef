"""`robot-rl doctor`: what is installed, what this machine can do, and how to mend what is missing."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row

# Import name -> (distribution, extra). The laptop path (train, export, verify, simulate) needs the first group.
_NEEDED = {
    "numpy": ("numpy", ""),
    "onnxruntime": ("onnxruntime", ""),
    "tyro": ("tyro", ""),
    "mcap": ("mcap", ""),
    "torch": ("torch", "train"),
    "safetensors": ("safetensors", "train"),
    "tensorboard": ("tensorboard", "train"),
    "onnx": ("onnx", "train"),
    "onnxscript": ("onnxscript", "train"),
    "mujoco": ("mujoco", "sim"),
    "gymnasium": ("gymnasium", "sim"),
    "matplotlib": ("matplotlib", "sim"),
    "imageio": ("imageio", "sim"),
}
_OPTIONAL = {
    "stable_baselines3": ("stable-baselines3", "sb3"),
    "mujoco_warp": ("mujoco-warp", "warp"),
}
_MIN_DISK_GB = 2.0
_MIN_PYTHON = (3, 10)

Status = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class DoctorArgs:
    """Check the installation and this machine; every line that is not ok says how to mend it."""


@dataclass(frozen=True)
class Finding:
    """One line of the report. "missing" fails the verb; "warn" does not."""

    name: str
    status: Status
    found: str
    fix: str = ""


def run(_args: DoctorArgs) -> Result:
    findings = [finding for check in CHECKS for finding in check()]
    missing = [f.name for f in findings if f.status == "missing"]
    return Result(
        ok=not missing,
        rows=tuple(Row(f.name, f.status, f"{f.found}; {f.fix}" if f.fix else f.found) for f in findings),
        reason=f"missing: {', '.join(missing)}" if missing else "",
        details={f.name: {"status": f.status, "found": f.found, "fix": f.fix} for f in findings},
    )


def check_python() -> list[Finding]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < _MIN_PYTHON:
        return [Finding("python", "missing", found, f"install Python {'.'.join(map(str, _MIN_PYTHON))} or newer")]
    return [Finding("python", "ok", found)]


def check_packages() -> list[Finding]:
    findings = []
    tables: tuple[tuple[dict[str, tuple[str, str]], Status], ...] = ((_NEEDED, "missing"), (_OPTIONAL, "warn"))
    for table, absent in tables:
        for module, (distribution, extra) in table.items():
            # Asking for the specification imports nothing, so that a broken package cannot break the doctor.
            if importlib.util.find_spec(module) is None:
                fix = f"pip install 'robot-rl{f'[{extra}]' if extra else ''}'"
                findings.append(Finding(module, absent, "not installed", fix))
            else:
                findings.append(Finding(module, "ok", _version(distribution)))
    return findings


def check_ros() -> list[Finding]:
    if importlib.util.find_spec("rclpy") is None:
        fix = "pip install 'robot-rl[ros]' (Linux x86_64), or source a ROS 2 distribution"
        return [Finding("ros", "warn", "rclpy is not installed", fix)]
    distribution = os.environ.get("ROS_DISTRO") or f"wheels, ros-rclpy {_version('ros-rclpy')}"
    middleware = os.environ.get("RMW_IMPLEMENTATION", "default middleware")
    findings = [Finding("ros", "ok", f"{distribution}, {middleware}")]
    if importlib.util.find_spec("robot_rl_bridge") is None:
        fix = "pip install ./ros_ws/src/robot_rl_bridge, or colcon build in ros_ws"
        findings.append(Finding("ros bridge", "warn", "robot_rl_bridge is not installed", fix))
    else:
        findings.append(Finding("ros bridge", "ok", _version("robot_rl_bridge")))
    scope = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE")
    if scope in ("LOCALHOST", "OFF"):
        findings.append(Finding("ros discovery", "ok", scope))
    else:
        # ROS_LOCALHOST_ONLY is not enough: it has been seen to send multicast on other interfaces.
        fix = "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST, unless the robot is on another machine"
        findings.append(Finding("ros discovery", "warn", f"range is {scope or 'unset (subnet)'}", fix))
    return findings


def check_rendering() -> list[Finding]:
    if sys.platform != "linux":
        return [Finding("rendering", "ok", "native")]
    libraries = {name: ctypes.util.find_library(name) for name in ("EGL", "GL")}
    absent = [name for name, found in libraries.items() if found is None]
    if absent:
        fix = "apt install libegl1 libgl1 libgl1-mesa-dri (videos need it, training does not)"
        return [Finding("rendering", "warn", f"no lib{', lib'.join(absent)}", fix)]
    return [Finding("rendering", "ok", ", ".join(str(found) for found in libraries.values()))]


def check_gpu() -> list[Finding]:
    if ctypes.util.find_library("cuda") is None and shutil.which("nvidia-smi") is None:
        return [Finding("gpu", "ok", "none; training runs on the CPU")]
    return [Finding("gpu", "ok", "NVIDIA driver found")]


def check_cpu() -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    findings = [
        Finding("cpu cores", "ok", str(cores))
        if cores >= 2
        else Finding("cpu cores", "warn", str(cores), "the demo is timed for two cores")
    ]
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor.exists():
        name = governor.read_text().strip()
        if name == "performance":
            findings.append(Finding("cpu governor", "ok", name))
        else:
            fix = "cpupower frequency-set -g performance, on the machine that runs the robot"
            findings.append(Finding("cpu governor", "warn", f"{name}: clock changes slow a control loop down", fix))
    return findings


def check_real_time() -> list[Finding]:
    if not hasattr(os, "sched_setscheduler"):
        return [Finding("real-time", "warn", f"no real-time scheduling on {sys.platform}", "run robots from Linux")]
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        fix = "add 'rtprio 80' for your user to /etc/security/limits.conf (loops above 200 Hz want it)"
        return [Finding("real-time", "warn", "SCHED_FIFO is not permitted", fix)]
    os.sched_setscheduler(0, *before)
    return [Finding("real-time", "ok", "SCHED_FIFO is permitted")]


def check_disk() -> list[Finding]:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    found = f"{free_gb:.1f} GB free in {Path.cwd()}"
    if free_gb < _MIN_DISK_GB:
        return [Finding("disk", "warn", found, f"runs and logs want {_MIN_DISK_GB:g} GB")]
    return [Finding("disk", "ok", found)]


def check_clock() -> list[Finding]:
    """Whether the monotonic clock is fine-grained and sleeping returns on time."""
    resolution_s = time.get_clock_info("monotonic").resolution
    late_s = 0.0
    for _ in range(20):
        before = time.monotonic()
        time.sleep(0.002)
        late_s = max(late_s, time.monotonic() - before - 0.002)
    found = f"resolution {resolution_s * 1e9:.0f} ns, sleep at most {late_s * 1e3:.2f} ms late"
    if resolution_s > 1e-4 or late_s > 0.01:
        return [Finding("clock", "warn", found, "close what else is running; a control loop would miss deadlines")]
    return [Finding("clock", "ok", found)]


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_python,
    check_packages,
    check_ros,
    check_rendering,
    check_gpu,
    check_cpu,
    check_real_time,
    check_disk,
    check_clock,
)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "installed, version unknown"


VERB = Verb(DoctorArgs, run)
