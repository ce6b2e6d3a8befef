"""Loopback only, a ROS domain of its own for each test, and processes that are started as a launch file starts them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before any import of rclpy or of a message package.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"

STOP_TIMEOUT_S = 10.0
CONTROL = ("policy_node", "watchdog_node", "emulator_node")


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A domain that no other test on this host uses meanwhile; set in the environment of this process."""
    folder = Path(tempfile.gettempdir()) / "robot_rl_ros_domains"
    folder.mkdir(exist_ok=True)
    for domain in range(20, 100):
        lock = (folder / str(domain)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        yield domain
        lock.close()
        return
    pytest.fail("no free ROS domain")


class NodeProcess:
    """One node, its output in a file."""

    def __init__(self, executable: str, name: str, parameters: dict, folder: Path) -> None:
        self.log = folder / f"{name}.log"
        file = folder / f"{name}.yaml"
        file.write_text(_yaml(name, parameters))
        program = Path(sys.executable).parent / executable
        command = [str(program), "--ros-args", "-r", f"__node:={name}", "--params-file", str(file)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        # As on a robot: the control processes go before whatever else the machine does, where that is permitted.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, self.process.pid, -15)

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        return self.process.wait(timeout_s)

    def send(self, number: int) -> float:
        """Send a signal; returns when, on the monotonic clock."""
        sent_s = time.monotonic()
        self.process.send_signal(number)
        return sent_s

    def end(self) -> None:
        """Wait for a process that was told to stop, and kill it if it does not."""
        if self.process.poll() is None:
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _yaml(name: str, parameters: dict) -> str:
    import yaml

    return yaml.safe_dump({name: {"ros__parameters": parameters}})


@pytest.fixture
def start_node(ros_domain: int, tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Function (executable, node name, **parameters) -> NodeProcess, ended after the test."""
    processes: list[NodeProcess] = []

    def start(executable: str, name: str, **parameters: object) -> NodeProcess:
        if executable in CONTROL:
            # As on a robot, where it is permitted; elsewhere the node says so and runs as it is.
            parameters = {"realtime_priority": 20, **parameters}
        processes.append(NodeProcess(executable, name, parameters, tmp_path))
        return processes[-1]

    yield start
    # All at once: the policy node damps for a second before it ends.
    for process in processes:
        if process.process.poll() is None:
            process.send(signal.SIGTERM)
    for process in processes:
        process.end()
