"""Isaac Gym's worker as a process: started, asked, and ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robot_rl.errors import EnvError, MissingDependencyError
from robot_rl_sim.backends import isaac_gym_worker

ENVIRONMENT_VARIABLE = "ISAACGYM_PYTHON"
HELP = (
    f"Isaac Gym runs in a Python of its own: set {ENVIRONMENT_VARIABLE} to an interpreter (3.6 to 3.8, Linux) in which "
    "`import isaacgym` and `import torch` work, in this order. NVIDIA gives the library (Preview 4) only as a download "
    "from developer.nvidia.com, supports it no longer, and no PyTorch for Python 3.8 knows GPUs newer than compute "
    "capability 9.0. Instead, take backend 'warp' on an NVIDIA GPU, or 'mujoco' on any CPU"
)


class Connection(Protocol):
    """A running `isaac_gym_worker.Worlds`, here or elsewhere."""

    arrays: dict[str, np.ndarray]

    def request(self, do: str, worlds: Sequence[int]) -> None: ...


class Process:
    """The worker in the interpreter that ISAACGYM_PYTHON names; it ends with this object."""

    def __init__(self, config: dict[str, Any]) -> None:
        python = os.environ.get(ENVIRONMENT_VARIABLE)
        if not python:
            raise MissingDependencyError(f"{ENVIRONMENT_VARIABLE} is not set. {HELP}")
        ours, theirs = socket.socketpair()
        shared = Path(config["shared"])
        shared.touch()
        description = shared.with_name("config.json")
        description.write_text(json.dumps(config))
        command = [python, isaac_gym_worker.__file__, str(theirs.fileno()), str(description)]
        try:
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),))
        except OSError as error:
            raise MissingDependencyError(f"{ENVIRONMENT_VARIABLE}={python} cannot be run: {error}. {HELP}") from error
        theirs.close()
        self._finalizer = weakref.finalize(self, _end, self._process, ours)
        self._stream = ours.makefile("rw")
        self.arrays = isaac_gym_worker.shared_arrays(config["shared"], config["sizes"])

    def request(self, do: str, worlds: Sequence[int]) -> None:
        try:
            print(json.dumps({"do": do, "worlds": list(worlds)}), file=self._stream, flush=True)
            answer = self._stream.readline().strip()
        except OSError:
            answer = ""
        if answer == "done":
            return
        if do == "start":
            raise MissingDependencyError(f"Isaac Gym did not start ({answer or 'see above'}). {HELP}")
        raise EnvError(f"Isaac Gym's process failed: {answer or 'it ended; see above'}")


def _end(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    """A worker whose connection closes leaves its loop; one that hangs is not waited for."""
    connection.shutdown(socket.SHUT_RDWR)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
