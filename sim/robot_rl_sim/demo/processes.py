"""Processes of the demonstration: started, watched, and ended whatever happens."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from robot_rl.errors import MissingDependencyError, RobotRLError

STOP_TIMEOUT_S = 5.0
TAIL_LINES = 12
NICENESS = -10


def require_ros() -> None:
    """Raises MissingDependencyError saying how to get what of ROS 2 is not installed."""
    for package in ("rclpy", "robot_rl_bridge"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"{package} is not installed: on Linux x86_64 `make setup` installs ROS 2 from wheels; elsewhere "
                "source a ROS 2 distribution and install ros_ws/src/robot_rl_bridge"
            )


def private_domain() -> dict[str, str]:
    """Environment of processes that shall meet only one another: the loopback interface, a domain of their own."""
    return {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "OMP_NUM_THREADS": "1",
    }


class Processes:
    """Python modules run as processes of their own, each writing to <log_dir>/<name>.log. A context manager."""

    def __init__(self, log_dir: Path, environment: dict[str, str]) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self._log_dir = log_dir
        self._environment = {**os.environ, **environment}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Start `python -m module arguments`."""
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        # A desktop shares its cores; a real-time process should not wait for its browser. Root may ask for that.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, self._running[name].pid, NICENESS)

    def wait(self, name: str, timeout_s: float) -> None:
        """Wait for its end. Raises RobotRLError with the end of its log if it failed, hung, or another one died."""
        process = self._running[name]
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise RobotRLError(f"{name} did not end within {timeout_s:g} s; {self._tails()}") from None
        if code != 0:
            raise RobotRLError(f"{name} ended with exit code {code}; {self._tails()}")

    def stop(self) -> None:
        """End what still runs, the newest first: a signal that lets it damp its robot, then, if need be, a kill."""
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._running.values():
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _log(self, name: str) -> Path:
        return self._log_dir / f"{name}.log"

    def _tails(self) -> str:
        tails = []
        for name in self._running:
            lines = self._log(name).read_text(errors="replace").splitlines()[-TAIL_LINES:]
            tails.append(f"{name}:\n" + "\n".join(f"    {line}" for line in lines))
        return "logs end with\n" + "\n".join(tails)

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
