"""`robot-rl deploy --unit FILE` from the shipped bundle to emulated servos and back, in processes of their own."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robot_rl.robots import LEAP_HAND
from robot_rl.robots.tip_motion import tip_position_m
from robot_rl.testing.servo_line import ServoLine

pytestmark = pytest.mark.realtime

BUNDLE = Path(__file__).parents[2] / "policies" / "leap_hand" / "leap-reach" / "v1"
# Fingertips of a reachable pose, m in the palm's frame: index, middle, ring, thumb.
POSE = {
    "if_mcp": 0.9, "if_rot": 0.1, "if_pip": 0.8, "if_dip": 0.6,
    "mf_mcp": 0.2, "mf_rot": 0.1, "mf_pip": 0.5, "mf_dip": 0.4,
    "rf_mcp": 0.9, "rf_rot": -0.1, "rf_pip": 0.9, "rf_dip": 0.7,
    "th_cmc": 1.1, "th_axl": 0.6, "th_mcp": 0.4, "th_ipl": 0.6,
}  # fmt: skip
GOALS = np.concatenate([tip_position_m(chain, POSE) for chain in LEAP_HAND.chains])
GOAL = [f"{x:.6f}" for x in GOALS]
SERVOS = [1, 0, 2, 3, 5, 4, 6, 7, 9, 8, 10, 11, 12, 13, 14, 15]
DEFAULT = {j.name: j.default_pos_rad for j in LEAP_HAND.joints}
TICK = 2 * math.pi / 4096


def deploy(emulator: ServoLine, *arguments: str) -> subprocess.Popen[str]:
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
def test_the_shipped_policy_runs_on_the_emulated_hand(emulator: ServoLine, tmp_path: Path) -> None:
    process = deploy(emulator, "--duration", "10", "--json", str(tmp_path / "r.json"), "--command", *GOAL)
    until(process, "idle")
    assert emulator.do("torque") == []
    say(process, "stand")
    until(process, "stand")
    assert len(emulator.do("torque")) == 16
    time.sleep(3.2)
    say(process, "run")
    until(process, "run")
    time.sleep(2.5)
    assert set(emulator.do("registers", address=84).values()) == {600}
    # It does there what it learned: each fingertip within the task's 15 mm of its goal.
    horns = emulator.do("positions")
    pose = {name: horns[str(servo)] - math.pi for name, servo in zip(LEAP_HAND.joint_names, SERVOS, strict=True)}
    tips = np.stack([tip_position_m(chain, pose) for chain in LEAP_HAND.chains])
    start = np.stack([tip_position_m(chain, DEFAULT) for chain in LEAP_HAND.chains])
    errors, before = (np.linalg.norm(x - GOALS.reshape(4, 3), axis=1) for x in (tips, start))
    assert errors.max() < 0.015 < 0.02 < before.min(), (errors, before)
    assert process.wait(20) == 0
    assert emulator.do("torque") == []
    result = json.loads((tmp_path / "r.json").read_text())
    assert [mode for mode, _ in result["details"]["modes"]][:4] == ["idle", "damp", "stand", "run"]
    # What reached the servos stayed inside the joints' ranges.
    goals = emulator.do("goals")
    for servo, joint in zip(SERVOS, LEAP_HAND.joints, strict=True):
        low, high = (goal - math.pi for goal in goals[str(servo)])
        assert joint.lower_rad - TICK <= low < high <= joint.upper_rad + TICK


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["silence", "unplug", "fail"])
def test_a_line_that_breaks_under_the_policy_ends_damped(emulator: ServoLine, tmp_path: Path, fault: str) -> None:
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


@pytest.mark.slow
@pytest.mark.usefixtures("hangup_is_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL])
def test_whatever_ends_deploy_the_hand_is_damped_then_released(emulator: ServoLine, number: signal.Signals) -> None:
    process = deploy(emulator, "--command", *GOAL)
    until(process, "idle")
    say(process, "stand")
    until(process, "stand")
    time.sleep(0.5)
    process.send_signal(number)
    sent_s = time.monotonic()
    if number == signal.SIGKILL:
        # Nobody is left to damp: the servos' watchdogs stop them, and they hold.
        emulator.wait("watchdogs", [0xFF])
        assert len(emulator.do("torque")) == 16
    else:
        # P gains go first, torque follows after a second.
        while set(emulator.do("registers", address=84).values()) != {0}:
            assert time.monotonic() - sent_s < 1.0
        emulator.wait("torque", [])
        assert time.monotonic() - sent_s > 0.9
    process.communicate()
