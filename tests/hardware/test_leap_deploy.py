"""`robot-rl deploy --unit FILE` from the shipped bundle to emulated servos and back, in processes of their own."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Emulator

from robot_rl.robots import LEAP_HAND

BUNDLE = Path(__file__).parents[2] / "policies" / "leap_hand" / "leap-reach" / "v1"
GOAL = ["0.0"] * 12
TICK = 2 * math.pi / 4096


def deploy(emulator: Emulator, *arguments: str) -> subprocess.Popen[str]:
    command = ["-m", "robot_rl.commands.main", "deploy", str(BUNDLE), "--unit", str(emulator.unit_file), *arguments]
    # A real robot's run is recorded, by default below the working folder.
    where = emulator.unit_file.parent
    return subprocess.Popen(
        [sys.executable, *command], cwd=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    while word not in (line := process.stdout.readline()):
        assert line, f"ended before {word!r}"


def say(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


@pytest.mark.slow
def test_the_shipped_policy_runs_on_the_emulated_hand(emulator: Emulator, tmp_path: Path) -> None:
    process = deploy(emulator, "--duration", "8", "--json", str(tmp_path / "r.json"), "--command", *GOAL)
    until(process, "idle")
    assert emulator.do("torque") == []
    say(process, "stand")
    until(process, "stand")
    assert len(emulator.do("torque")) == 16
    time.sleep(3.2)
    say(process, "run")
    until(process, "run")
    time.sleep(1.0)
    assert set(emulator.do("registers", address=84).values()) == {600}
    assert process.wait(20) == 0
    assert emulator.do("torque") == []
    result = json.loads((tmp_path / "r.json").read_text())
    assert [mode for mode, _ in result["details"]["modes"]][:4] == ["idle", "damp", "stand", "run"]
    # What reached the servos stayed inside the joints' ranges.
    servos = [1, 0, 2, 3, 5, 4, 6, 7, 9, 8, 10, 11, 12, 13, 14, 15]
    goals = emulator.do("goals")
    for servo, joint in zip(servos, LEAP_HAND.joints, strict=True):
        low, high = (goal - math.pi for goal in goals[str(servo)])
        assert joint.lower_rad - TICK <= low < high <= joint.upper_rad + TICK


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["silence", "unplug", "fail"])
def test_a_line_that_breaks_under_the_policy_ends_damped(emulator: Emulator, tmp_path: Path, fault: str) -> None:
    process = deploy(emulator, "--duration", "9", "--json", str(tmp_path / "r.json"), "--command", *GOAL)
    until(process, "idle")
    say(process, "stand")
    until(process, "stand")
    time.sleep(3.2)
    say(process, "run")
    until(process, "run")
    time.sleep(0.3)
    emulator.do(fault, **({} if fault == "unplug" else {"id": 5}), **({"error": 0x20} if fault == "fail" else {}))
    if fault == "unplug":
        assert process.wait(20) == 1
        emulator.wait("watchdogs", [0xFF])
        return
    process.wait(20)
    # A silent servo hears nothing either: it stopped by itself. The others were switched off.
    assert emulator.do("torque") == ([5] if fault == "silence" else [])
    modes = json.loads((tmp_path / "r.json").read_text())["details"]["modes"]
    assert modes[-1][0] in ("damp", "fault")
