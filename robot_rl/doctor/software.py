"""The interpreter and its packages."""

from __future__ import annotations

import importlib.util
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from robot_rl.doctor.finding import Finding, missing, ok, warn

MIN_PYTHON = (3, 10)

# Import name -> (distribution, extra). The laptop path (train, export, verify, simulate) needs the first group.
NEEDED = {
    "numpy": ("numpy", ""),
    "onnxruntime": ("onnxruntime", ""),
    "tyro": ("tyro", ""),
    "yaml": ("pyyaml", ""),
    "mcap": ("mcap", ""),
    "google.protobuf": ("protobuf", ""),
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
OPTIONAL = {
    "stable_baselines3": ("stable-baselines3", "sb3"),
    "mujoco_warp": ("mujoco-warp", "warp"),
    "dynamixel_sdk": ("dynamixel-sdk", "leap"),
}


def check_python() -> list[Finding]:
    where = "virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {where}"
    if sys.version_info < MIN_PYTHON:
        return [missing("python", found, f"install Python {'.'.join(map(str, MIN_PYTHON))} or newer")]
    return [ok("python", found)]


def check_packages() -> list[Finding]:
    findings = []
    for table, absent in ((NEEDED, missing), (OPTIONAL, warn)):
        for module, (distribution, extra) in table.items():
            if installed(module):
                findings.append(ok(module, version_of(distribution)))
            else:
                findings.append(
                    absent(module, "not installed", f"pip install 'robot-rl{f'[{extra}]' if extra else ''}'")
                )
    return findings


def installed(module: str) -> bool:
    """Asking for the specification imports nothing but parents, so that a broken package cannot break the doctor."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "installed, version unknown"
