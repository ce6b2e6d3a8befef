"""Whatever ends the process that drives the hand, the servos end without torque, or stopped by themselves."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from robot_rl.testing.servo_line import ServoLine

pytestmark = pytest.mark.realtime

PROGRAM = textwrap.dedent("""
    import signal, sys, time
    import numpy as np
    from robot_rl.contract import JointCommand
    from robot_rl.robots import LEAP_HAND
    from robot_rl.robots.unit import load_unit
    from robot_rl_hardware.leap_hand import LeapHand

    # What a shell starts in the background ignores Ctrl-C, and nohup a hangup; so does all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    hand = LeapHand(LEAP_HAND, load_unit(sys.argv[1]))
    hand.connect()
    kp = np.array([j.kp_nm_rad for j in LEAP_HAND.joints])
    zero, target = np.zeros(16), hand.read().joint_pos[0] + 0.3
    def drive(seconds, life_s=60):
        end_s = time.monotonic() + seconds
        while (now_s := time.monotonic()) < end_s:
            hand.write(JointCommand(target, zero, zero, kp, kp / 30, now_s, now_s + life_s))
            hand.read()
            time.sleep(0.01)
    drive(0.1)
    gap_s, last_s = 0.0, time.monotonic()
    print("driving", flush=True)
""")


def start(emulator: ServoLine, program: str) -> subprocess.Popen[str]:
    """A process that drives the hand, seen to have torque on."""
    unit = emulator.write_unit("leap-exit")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(program), unit],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "driving\n", process.communicate()
    return process


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("hand.stop()", 0),
        ("pass", 0),
        ("del hand; time.sleep(60)", -9),
        ("raise RuntimeError('policy')", 1),
        ("sys.exit(3)", 3),
        ("assert hand.write(None)", 1),
    ],
    ids=["stop", "end of program", "garbage", "exception", "exit", "exception in driver"],
)  # fmt: skip
def test_torque_is_off_after(emulator: ServoLine, ending: str, code: int) -> None:
    process = start(emulator, ending)
    emulator.wait("torque", [])
    if code == -9:
        process.kill()
    process.communicate()
    assert process.returncode == code


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
)
def test_torque_is_off_after_a_signal(emulator: ServoLine, number: signal.Signals, code: int) -> None:
    process = start(emulator, "drive(60)")
    assert len(emulator.do("torque")) == 16
    process.send_signal(number)
    emulator.wait("torque", [])
    process.communicate()
    assert process.returncode == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_no_process_survives_the_servos_notice_themselves(emulator: ServoLine, number: signal.Signals) -> None:
    """Their watchdogs are set to 0.2 s. They stop where they are, keep torque, and refuse goals."""
    process = start(emulator, "drive(60)")
    start_s = time.monotonic()
    os.kill(process.pid, number)
    emulator.wait("watchdogs", [0xFF])
    assert 0.1 < time.monotonic() - start_s < 2.0
    stopped = emulator.do("positions")
    time.sleep(0.2)
    assert emulator.do("positions") == pytest.approx(stopped, abs=0.01)
    assert len(emulator.do("torque")) == 16
    process.kill()
    process.communicate()
    # The next process finds them so, and gets them going again.
    again = start(emulator, "hand.stop()")
    again.communicate()
    assert emulator.do("torque") == []


def test_a_process_that_was_stopped_and_goes_on_tells_that_the_servos_no_longer_obey(emulator: ServoLine) -> None:
    process = start(
        emulator,
        """
        while gap_s < 0.4:
            drive(0.01)
            gap_s, last_s = time.monotonic() - last_s, time.monotonic()
        hand.read()
        print(sorted(set(hand.health().motor_errors.tolist())), flush=True)
        """,
    )
    os.kill(process.pid, signal.SIGSTOP)
    emulator.wait("watchdogs", [0xFF])
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGCONT)
    out, err = process.communicate()
    assert out == "[512]\n", err
    assert emulator.do("torque") == []
