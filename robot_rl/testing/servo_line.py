"""ServoLine: `robot_rl_hardware.dynamixel_emulator` under a test's control, to break under a driver or to look at.

The servos live in another process, so that they outlive whatever is done to the driver.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from robot_rl.robots.unit import UnitConfig, load_unit


class ServoLine:
    """Emulated servos wired as `unit_file` says, in a process of their own; their line lies in `folder`."""

    def __init__(self, folder: Path, unit_file: Path) -> None:
        self.link = folder / "line"
        self.folder = folder
        self._wiring = unit_file
        self._process = subprocess.Popen(
            [sys.executable, "-m", "robot_rl_hardware.dynamixel_emulator", "--unit", unit_file, "--link", self.link],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.unit_file = self.write_unit("emulated")
        """With which a driver finds the line."""

    def write_unit(self, serial: str, joints: dict[str, dict] | None = None, **options: Any) -> Path:
        """A unit file for this line: `joints` replaces wirings of single joints, `options` are the driver's."""
        data = yaml.safe_load(self._wiring.read_text())
        # These tests share few cores with others: what they measure is not how soon an answer comes.
        data["driver"]["options"] = {"port": str(self.link), "reply_timeout_s": 0.5} | options
        data["joints"] |= joints or {}
        data["serial"] = serial
        path = self.folder / f"{serial}.yaml"
        path.write_text(yaml.safe_dump(data))
        return path

    def unit(self, **options: Any) -> UnitConfig:
        return load_unit(self.write_unit("leap-test", **options))

    def do(self, action: str, **arguments: Any) -> Any:
        """One of the emulator's ACTIONS; returns its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": action} | arguments) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())["answer"]

    def wait(self, action: str, until: Any, timeout_s: float = 5.0) -> float:
        """Ask until the answer is `until`; the time that it took, s."""
        start_s = time.monotonic()
        while (answer := self.do(action)) != until:
            assert time.monotonic() - start_s < timeout_s, f"{action} is {answer}, not {until}"
            time.sleep(0.005)
        return time.monotonic() - start_s

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
