"""torch.compile, asked for in a configuration: refused at construction where it could not work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from robot_rl.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R], device: torch.device) -> Callable[P, R]:
    """The function, compiled for the shapes it meets. Raises ConfigError without the C++ compiler that this takes."""
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise ConfigError(f"compile needs a C++ compiler, and {compiler!r} is not on the PATH; install it, or set CXX")
    # On a CPU, kernels called from C++ instead of Python save a tenth of a small update.
    return torch.compile(function, dynamic=False, options={"cpp_wrapper": True} if device.type == "cpu" else None)
