"""Peers with versions of their own ideas run in an environment of their own (`make peers`), asked over a pipe."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from robot_rl.errors import RobotRLError


def peers_python() -> Path | None:
    """Interpreter of the peers' environment (.venv-peers, or ROBOT_RL_PEERS), if there is one."""
    folder = Path(os.environ.get("ROBOT_RL_PEERS", ".venv-peers"))
    python = folder / "bin" / "python"
    return python.absolute() if python.exists() else None


@contextmanager
def peer_process(python: Path, script: Path, *arguments: str) -> Iterator[Callable[[float], float]]:
    """Start `script`, which prints "ready" and then answers each number on its standard input with a number."""
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        [str(python), str(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    def ask(question: float) -> float:
        stdin.write(f"{question}\n")
        stdin.flush()
        return float(stdout.readline())

    try:
        if stdout.readline().strip() != "ready":
            raise RobotRLError(f"{script.name} did not start in {python}; see `make peers`")
        yield ask
    finally:
        stdin.close()
        process.terminate()
        process.wait()
