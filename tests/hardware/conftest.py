"""A LEAP hand's servos in a process of their own, so that they outlive whatever is done to the driver."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from robot_rl.robots.unit import UnitConfig, load_unit

EXAMPLE = Path(__file__).parents[2] / "hardware" / "units" / "leap-example.yaml"


class Emulator:
    """The process behind `dynamixel_emulator`, and the unit file with which a driver finds it."""

    def __init__(self, folder: Path, unit_file: Path = EXAMPLE) -> None:
        self.link = folder / "line"
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "robot_rl_hardware.dynamixel_emulator", "--unit", unit_file, "--link", self.link],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline())["servos"] == list(range(16))
        self.unit_file = self.write_unit("leap-emulated")

    def write_unit(self, serial: str, joints: dict[str, dict] | None = None, **options: Any) -> Path:
        """A unit file for this line; `joints` replaces wirings of single joints."""
        data = yaml.safe_load(EXAMPLE.read_text())
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

    def pause(self, number: int) -> None:
        self._process.send_signal(number)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    process = Emulator(tmp_path)
    yield process
    process.close()
