"""Wiggle on emulated servos: what a bus of servos tells of its own wiring, and what only somebody who looks can."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from robot_rl.robots import LEAP_HAND
from robot_rl.robots.unit import JointWiring, load_unit
from robot_rl.runtime.interface import MonotonicClock
from robot_rl.runtime.wiggle import Finding, WiggleAborted, WiggleConfig, wiggle
from robot_rl.testing.servo_line import ServoLine
from robot_rl_hardware.leap_hand import LeapHand

pytestmark = pytest.mark.realtime

PI = math.pi
# The hand is as in the example: if_rot is servo 0, mf_rot servo 4, th_ipl servo 15, and all turn the servo's way.
WRONG = {
    "if_rot": {"id": 4, "sign": 1, "zero_offset_rad": PI},
    "mf_rot": {"id": 0, "sign": -1, "zero_offset_rad": PI},
    "th_ipl": {"id": 15, "sign": -1, "zero_offset_rad": PI},
}
SERVOS = {0: "if_rot", 4: "mf_rot", 15: "th_ipl"}


def wiggle_cli(unit: Path, *arguments: str, say: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robot_rl.commands.main", "wiggle", "--unit", str(unit), "--joints", *WRONG]
    return subprocess.run([*command, *arguments], input=say, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_wrong_order_and_signs_are_found_by_looking_and_mended_by_the_lines(emulator: ServoLine) -> None:
    """The order and signs of the unit file are wrong; whoever looks at the hand says what they see."""
    unit_file = emulator.write_unit("leap-wrong", joints=WRONG)
    unit = load_unit(unit_file)
    wrong = dict(zip(LEAP_HAND.joint_names, unit.joints, strict=True))
    eyes = {name: f"{'-' if wrong[name].sign < 0 else ''}{SERVOS[wrong[name].id]}\n" for name in WRONG}
    assert eyes == {"if_rot": "mf_rot\n", "mf_rot": "-if_rot\n", "th_ipl": "-th_ipl\n"}
    result = wiggle_cli(unit_file, "--ask", say="yes\n" + "".join(eyes.values()))
    assert result.returncode == 1, result.stderr
    assert "3 of 3 joints are not what they are called: if_rot, mf_rot, th_ipl" in result.stderr
    assert emulator.do("torque") == []
    # Only these three moved, and little.
    moved = {int(k) for k, (low, high) in emulator.do("goals").items() if high > low and high - low > 0.05}
    assert moved == {0, 4, 15}

    text = result.stdout
    lines = yaml.safe_load(text[text.index("joints:\n") : text.index("\n\n", text.index("joints:\n"))])["joints"]
    mended = load_unit(emulator.write_unit("leap-mended", joints=lines))
    truth = load_unit(emulator.write_unit("leap-truth"))
    assert mended.joints == truth.joints

    again = wiggle_cli(emulator.write_unit("leap-mended", joints=lines), "--yes", "--ask", say="\n\n\n")
    assert again.returncode == 0, again.stderr
    assert "th_tip by (" in again.stdout


@pytest.mark.slow
def test_by_itself_a_bus_agrees_with_its_own_wiring(emulator: ServoLine) -> None:
    """Why --ask is there: command and reading pass the same wrong id and sign."""
    result = wiggle_cli(emulator.write_unit("leap-wrong", joints=WRONG), "--yes")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(" ok") >= 3


def test_a_reading_beyond_the_limits_tells_of_a_wrong_sign_without_any_motion(emulator: ServoLine) -> None:
    """Half bent, with the wrong sign, a finger reads to be bent backwards. Its limit would make it jump by 0.29 rad."""
    wrong = {"mf_mcp": {"id": 5, "sign": -1, "zero_offset_rad": PI}}
    hand = LeapHand(LEAP_HAND, load_unit(emulator.write_unit("leap-back", joints=wrong)))
    hand.connect()
    finding = wiggle(hand, MonotonicClock(), WiggleConfig(), ["mf_mcp"])[0]
    assert finding.verdict == "reads -0.60 rad, beyond its limits: wrong sign or zero; not moved"
    assert not finding.ok
    low, high = emulator.do("goals")["5"]
    assert high < low


@pytest.mark.parametrize(("fault", "message"), [("stick", "nothing moved"), ("fail", r"motor errors: if_mcp 0x120")])
def test_a_joint_that_does_not_follow(emulator: ServoLine, fault: str, message: str) -> None:
    hand = LeapHand(LEAP_HAND, emulator.unit())
    hand.connect()
    if fault == "stick":
        emulator.do("stick", id=1)
        assert wiggle(hand, MonotonicClock(), WiggleConfig(stiffness=1.0), ["if_mcp"])[0].verdict == message
    else:

        def fail(finding: Finding, _direction: int) -> Finding:
            emulator.do("fail", id=1, error=0x20)
            return finding

        with pytest.raises(WiggleAborted, match=message):
            wiggle(hand, MonotonicClock(), WiggleConfig(), ["if_mcp", "if_rot"], ask=fail)
    assert emulator.do("torque") == []


def test_the_example_names_the_servos_of_the_emulated_hand(emulator: ServoLine) -> None:
    wiring = dict(zip(LEAP_HAND.joint_names, emulator.unit().joints, strict=True))
    assert {name: wiring[name] for name in WRONG} == {
        SERVOS[i]: JointWiring(i, 1, pytest.approx(PI)) for i in SERVOS
    }  # fmt: skip
