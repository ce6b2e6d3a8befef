"""The LEAP hand's driver against emulated servos in another process."""

import dataclasses
import logging
import math
import os
import signal
import time

import numpy as np
import pytest

from robot_rl.contract import JointCommand, damping_command
from robot_rl.errors import ConfigError, ContractError
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.robots.unit import load_unit
from robot_rl.testing.servo_line import ServoLine
from robot_rl_hardware.dynamixel_bus import BusError, LineLostError
from robot_rl_hardware.leap_hand import LeapHand, connect
from robot_rl_hardware.leap_options import LeapOptions

pytestmark = pytest.mark.realtime

NAMES = LEAP_HAND.joint_names
DEFAULT = np.array([j.default_pos_rad for j in LEAP_HAND.joints])
KP = np.array([j.kp_nm_rad for j in LEAP_HAND.joints])
KD = np.array([j.kd_nms_rad for j in LEAP_HAND.joints])
ZERO = np.zeros(16)
TICK = 2 * math.pi / 4096


def stiff(position: np.ndarray, life_s: float = 5.0, share: float = 1.0) -> JointCommand:
    now_s = time.monotonic()
    return JointCommand(position, ZERO, ZERO, share * KP, KD, now_s, now_s + life_s)


def settle(hand: LeapHand, position: np.ndarray, seconds: float = 0.6) -> np.ndarray:
    """Command `position` for a while; the positions that were measured at the end."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        hand.write(stiff(position))
        state = hand.read()
        time.sleep(0.01)
    assert state is not None
    return state.joint_pos[0]


def test_connects_reads_moves_and_lets_go(emulator: ServoLine) -> None:
    with LeapHand(LEAP_HAND, emulator.unit()) as hand:
        state = hand.read()
        assert state is not None
        np.testing.assert_allclose(state.joint_pos[0], DEFAULT, atol=TICK)
        assert not state.joint_vel.any()
        assert emulator.do("torque") == []
        np.testing.assert_allclose(hand.voltage_v, 5.0)
        target = DEFAULT + np.linspace(-0.2, 0.3, 16)
        np.testing.assert_allclose(settle(hand, target), target, atol=0.02)
        assert len(emulator.do("torque")) == 16
    assert emulator.do("torque") == []


def test_unit_file_decides_order_sign_and_zero(emulator: ServoLine) -> None:
    """Servo 5 stands at pi + 0.6. As a joint of sign -1 and zero 3.0 that is -(pi + 0.6 - 3.0) = -0.7416."""
    joints = {
        "if_mcp": {"id": 5, "sign": -1, "zero_offset_rad": 3.0},
        "mf_mcp": {"id": 1, "sign": 1, "zero_offset_rad": math.pi},
    }
    unit = load_unit(emulator.write_unit("leap-odd", joints=joints))
    with LeapHand(LEAP_HAND, unit) as hand:
        position = hand.read().joint_pos[0]
        assert position[0] == pytest.approx(-0.7416, abs=TICK)
        before = emulator.do("positions")
        target = position.copy()
        target[0] = -0.3
        settle(hand, target)
        moved = {int(k): v - before[k] for k, v in emulator.do("positions").items() if abs(v - before[k]) > 0.1}
        assert moved == {5: pytest.approx(-0.4416, abs=0.02)}


def test_a_servo_that_woke_up_a_turn_further_is_the_same_joint(emulator: ServoLine) -> None:
    unit = load_unit(
        emulator.write_unit("leap-turn", joints={"if_mcp": {"id": 1, "sign": -1, "zero_offset_rad": 3 * math.pi}})
    )
    with LeapHand(LEAP_HAND, unit) as hand:
        # -(pi + 0.6 - 3 pi) is 5.68, a turn beyond any position of the joint: the nearest one to its range is -0.6.
        assert hand.read().joint_pos[0, 0] == pytest.approx(-0.6, abs=TICK)
        target = DEFAULT.copy()
        target[0] = -0.2
        assert settle(hand, target)[0] == pytest.approx(-0.2, abs=0.02)


def test_what_the_servos_are_told(emulator: ServoLine) -> None:
    with LeapHand(LEAP_HAND, emulator.unit(p_gain=800, d_gain=160, current_limit_ma=300, damp_current_ma=50)) as hand:
        assert set(emulator.do("registers", address=11).values()) == {5}
        assert set(emulator.do("registers", address=9).values()) == {0}
        sent = hand.write(stiff(DEFAULT + 9.0, share=0.5))
        assert set(emulator.do("registers", address=84).values()) == {400}
        assert set(emulator.do("registers", address=82).values()) == {0}
        assert set(emulator.do("registers", address=80).values()) == {160}
        assert set(emulator.do("registers", address=102).values()) == {300}
        assert set(emulator.do("registers", address=98).values()) == {10}
        # Beyond the joints' ranges nothing is sent, and what is returned is what was.
        np.testing.assert_allclose(sent.position, [j.upper_rad for j in LEAP_HAND.joints], atol=TICK / 2)
        np.testing.assert_allclose(sent.kp, KP / 2)
        sent = hand.write(damping_command(KD, time.monotonic(), 1.0))
        assert set(emulator.do("registers", address=84).values()) == {0}
        assert set(emulator.do("registers", address=80).values()) == {160}
        assert set(emulator.do("registers", address=102).values()) == {50}
        assert len(emulator.do("torque")) == 16
        assert not sent.kp.any()
        hand.write(damping_command(ZERO, time.monotonic(), 1.0))
        assert emulator.do("torque") == []


def test_damping_keeps_no_pose(emulator: ServoLine) -> None:
    """After damping, whatever the old goal was, nothing goes there: also not when torque comes back."""
    with LeapHand(LEAP_HAND, emulator.unit()) as hand:
        settle(hand, DEFAULT + 0.3, seconds=0.1)
        hand.write(damping_command(KD, time.monotonic(), 5.0))
        stopped = hand.read().joint_pos[0]
        for _ in range(10):
            hand.write(damping_command(KD, time.monotonic(), 5.0))
            time.sleep(0.02)
        np.testing.assert_allclose(hand.read().joint_pos[0], stopped, atol=0.05)


def test_settings_that_wear_memory_are_written_once(emulator: ServoLine) -> None:
    writes = []
    for _ in range(2):
        before = emulator.do("instructions").get("3", 0)
        with LeapHand(LEAP_HAND, emulator.unit()):
            writes.append(emulator.do("instructions")["3"] - before)
    assert writes[0] - writes[1] == 2 * 16


@pytest.mark.parametrize(
    ("faults", "options", "message"),
    [
        ([{"do": "silence", "id": 3}], {}, r"no answer from if_dip \(id 3\); 15 of 16 servos answer"),
        ([{"do": "mute"}], {"reply_timeout_s": 0.02}, "no servo answers on .* at 4000000 baud: check power, cable"),
        ([], {"baud": 1_000_000, "reply_timeout_s": 0.02}, "no servo answers on .* at 1000000 baud"),
        ([{"do": "fail", "id": 12, "error": 0x24}], {}, r"th_cmc \(id 12\): overheating, overload; switch its power"),
        ([{"do": "supply", "id": 0, "volt": 3.1}], {}, r"if_rot \(id 0\): supply of 3.1 V is outside its limits \[3.5"),
        ([{"do": "set", "id": 4, "address": 0, "value": 350}], {}, r"mf_rot \(id 4\) is model 350; .*1200 XL330"),
        ([{"do": "set", "id": 4, "address": 10, "value": 8}], {}, r"mf_rot \(id 4\): its drive mode .* clear bit 3"),
        ([{"do": "set", "id": 4, "address": 38, "value": 200}], {}, r"mf_rot \(id 4\): its current limit is 200 mA"),
        ([{"do": "unplug"}], {}, "ports here"),
    ],
)  # fmt: skip
def test_refuses_to_connect(emulator: ServoLine, faults: list[dict], options: dict, message: str) -> None:
    for fault in faults:
        emulator.do(fault["do"], **{k: v for k, v in fault.items() if k != "do"})
    hand = LeapHand(LEAP_HAND, emulator.unit(**options))
    with pytest.raises(BusError, match=message):
        hand.connect()
    assert hand.read() is None


def test_a_damaged_answer_does_not_keep_it_from_connecting(emulator: ServoLine) -> None:
    emulator.do("corrupt", id=3, count=2)
    with LeapHand(LEAP_HAND, emulator.unit(reply_timeout_s=0.05)) as hand:
        assert hand.read() is not None


def test_the_port_belongs_to_one_process(emulator: ServoLine) -> None:
    with LeapHand(LEAP_HAND, emulator.unit()):
        rival = LeapHand(LEAP_HAND, emulator.unit())
        with pytest.raises(LineLostError, match="lock"):
            rival.connect()
    with rival:
        assert rival.read() is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {}}, "driver.options.port is missing; valid: port, baud"),
        ({"options": {"port": "x", "speed": 1}}, "unknown driver option 'speed'; valid: port, baud"),
        ({"options": {"port": "x", "baud": 1_500_000}}, "baud 1500000 is not one of the servos'; valid: 9600"),
        ({"options": {"port": "x", "current_limit_ma": 0}}, r"current_limit_ma must be int in \[1, 1750\], got 0"),
        ({"options": {"port": "x", "watchdog_s": 3}}, r"watchdog_s must be float in \[0.02, 2.54\], got 3"),
        ({"options": {"port": "x", "damp_current_ma": 500}}, "damp_current_ma 500 exceeds current_limit_ma 350"),
        ({"joints": ()}, "has no joints; this driver needs the servo of each"),
        ({"robot": "unitree_g1"}, "is a unitree_g1, not a leap_hand"),
    ],
)
def test_refuses_units_that_are_not_this_hand(emulator: ServoLine, change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LeapHand(LEAP_HAND, dataclasses.replace(emulator.unit(), **change))


def test_the_entry_point_needs_a_unit(emulator: ServoLine) -> None:
    with pytest.raises(ConfigError, match="needs --unit FILE"):
        connect(LEAP_HAND)
    with pytest.raises(ConfigError, match="is a leap_hand, not a unitree_g1"):
        connect(UNITREE_G1, emulator.unit())
    assert LeapOptions("x").baud == 4_000_000


def test_refuses_commands_that_no_robot_should_get(emulator: ServoLine) -> None:
    with LeapHand(LEAP_HAND, emulator.unit()) as hand:
        for bad in (np.full(16, np.nan), np.zeros(15)):
            with pytest.raises(ContractError, match="position must be 16 finite numbers"):
                hand.write(dataclasses.replace(stiff(DEFAULT), position=bad))
        assert emulator.do("torque") == []


def test_a_damaged_answer_costs_one_reading(emulator: ServoLine) -> None:
    with LeapHand(LEAP_HAND, emulator.unit()) as hand:
        good = hand.read()
        emulator.do("corrupt", id=7)
        assert hand.read() is good
        assert hand.health().lost_packets == 1
        after = hand.read()
        assert after.stamp_s[0] > good.stamp_s[0]
        assert hand.health().lost_packets == 0


def test_torque_comes_on_after_a_damaged_answer_but_not_for_a_silent_servo(emulator: ServoLine) -> None:
    with LeapHand(LEAP_HAND, emulator.unit(reply_timeout_s=0.05)) as hand:
        emulator.do("corrupt", id=7)
        hand.write(stiff(DEFAULT))
        assert len(emulator.do("torque")) == 16
        hand.write(damping_command(ZERO, time.monotonic(), 1.0))
        emulator.do("silence", id=15)
        with pytest.raises(BusError, match="torque stays off: no sound answer from th_ipl"):
            hand.write(stiff(DEFAULT))
        assert emulator.do("torque") == []


def test_a_silent_servo_lets_the_state_age_and_is_named(emulator: ServoLine, caplog: pytest.LogCaptureFixture) -> None:
    with LeapHand(LEAP_HAND, emulator.unit(reply_timeout_s=0.05)) as hand:
        good = hand.read()
        emulator.do("silence", id=12)
        start_s = time.monotonic()
        states = [hand.read() for _ in range(3)]
        assert time.monotonic() - start_s < 3 * 0.2
        assert all(state is good for state in states)
        assert hand.health().lost_packets == 3
        # Those behind it in the chain wait for it in vain; the first one named is the culprit.
        assert caplog.records[-1].message.startswith("no sound answer from th_cmc")
        emulator.do("speak", id=12)
        assert hand.read() is not good
        assert hand.health().lost_packets == 0


def test_health_tells_temperature_errors_and_lost_torque(emulator: ServoLine) -> None:
    with LeapHand(LEAP_HAND, emulator.unit()) as hand:
        emulator.do("heat", id=0, celsius=64)
        settle(hand, DEFAULT, seconds=0.05)
        health = hand.health()
        assert health.motor_temperature_c[NAMES.index("if_rot")] == 64
        assert not health.motor_errors.any()
        # An alert bit comes with the next answer.
        emulator.do("fail", id=9, error=0x20)
        hand.read()
        assert hand.health().motor_errors[NAMES.index("rf_mcp")] & 0x20
        # A dip of the supply raises none: found within one round of looking at each.
        emulator.do("restart", id=14)
        for _ in range(17):
            hand.read()
        assert hand.health().motor_errors[NAMES.index("th_mcp")] == 0x100


def test_an_expired_command_damps_and_then_releases(emulator: ServoLine) -> None:
    """Nobody calls the driver any more, as when the policy hangs: its own thread does it."""
    with LeapHand(LEAP_HAND, emulator.unit()) as hand:
        hand.read()
        hand.write(stiff(DEFAULT, life_s=0.3))
        assert set(emulator.do("registers", address=84).values()) == {600}
        start_s = time.monotonic()
        while set(emulator.do("registers", address=84).values()) != {0}:
            assert time.monotonic() - start_s < 1.5
        assert len(emulator.do("torque")) == 16
        assert emulator.wait("torque", []) < 2.5
        # It is not lost: the next command switches torque on again.
        hand.write(stiff(DEFAULT))
        assert len(emulator.do("torque")) == 16


def test_unplugged_in_the_middle(emulator: ServoLine, caplog: pytest.LogCaptureFixture) -> None:
    hand = LeapHand(LEAP_HAND, emulator.unit())
    hand.connect()
    settle(hand, DEFAULT, seconds=0.05)
    good = hand.read()
    emulator.do("unplug")
    assert hand.read() is good
    assert hand.health().lost_packets == 1
    with pytest.raises(LineLostError):
        hand.write(stiff(DEFAULT))
    hand.stop()
    hand.stop()
    assert "cut their power" in caplog.text
    # No packet comes any more, so the servos' own watchdogs stop them.
    emulator.wait("watchdogs", [0xFF])
    emulator.do("plug")
    hand.connect()
    assert emulator.do("torque") == []
    np.testing.assert_allclose(settle(hand, DEFAULT + 0.1), DEFAULT + 0.1, atol=0.02)
    hand.stop()
    assert emulator.do("torque") == []


def test_a_half_open_port_blocks_nobody(emulator: ServoLine) -> None:
    """The line is there but takes no bytes: its buffers fill, and a plain write would wait for good."""
    hand = LeapHand(LEAP_HAND, emulator.unit(reply_timeout_s=0.02))
    hand.connect()
    settle(hand, DEFAULT, seconds=0.05)
    emulator.do("deaf")
    took_s = 0.0

    def write() -> None:
        nonlocal took_s
        start_s = time.monotonic()
        try:
            hand.write(stiff(DEFAULT))
        finally:
            took_s = max(took_s, time.monotonic() - start_s)

    def write_until_it_fails() -> None:
        while True:
            write()

    with pytest.raises(LineLostError, match="timeout"):
        write_until_it_fails()
    assert took_s < 0.5
    start_s = time.monotonic()
    hand.read()
    assert time.monotonic() - start_s < 0.5
    start_s = time.monotonic()
    hand.stop()
    assert time.monotonic() - start_s < 2.0
    emulator.wait("watchdogs", [0xFF])


def test_a_process_kept_from_running_while_it_writes_has_not_lost_its_line(
    emulator: ServoLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are out long before the clock is looked at again, too late by then."""
    hand = LeapHand(LEAP_HAND, emulator.unit())
    hand.connect()
    settle(hand, DEFAULT, seconds=0.05)
    write = os.write

    def write_and_stand_still(fd: int, data: bytes) -> int:
        sent = write(fd, data)
        time.sleep(0.1)
        return sent

    monkeypatch.setattr(os, "write", write_and_stand_still)
    hand.write(stiff(DEFAULT))
    monkeypatch.undo()
    hand.stop()
    assert emulator.do("torque") == []


def test_a_babbling_line_blocks_nobody(emulator: ServoLine) -> None:
    with LeapHand(LEAP_HAND, emulator.unit(reply_timeout_s=0.02)) as hand:
        good = hand.read()
        emulator.do("babble")
        start_s = time.monotonic()
        for _ in range(5):
            # An answer may come through whole. What is believed passed its checksum, so nothing else is seen.
            np.testing.assert_array_equal(hand.read().joint_pos, good.joint_pos)
        assert time.monotonic() - start_s < 5 * 0.5
        emulator.do("babble", on=False)
        time.sleep(0.05)
        hand.read()
        hand.read()
        assert hand.health().lost_packets == 0


def test_an_exchange_that_was_interrupted_does_not_block_the_next(emulator: ServoLine) -> None:
    """Ctrl-C in the middle of waiting for an answer: the SDK alone would refuse everything from then on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    hand = LeapHand(LEAP_HAND, emulator.unit(reply_timeout_s=0.5))
    hand.connect()
    settle(hand, DEFAULT, seconds=0.05)
    emulator.do("mute")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            hand.read()
    finally:
        signal.signal(signal.SIGALRM, before)
    emulator.do("mute", on=False)
    hand.stop()
    assert emulator.do("torque") == []


def test_a_whole_cycle_fits_many_times_into_the_policys_period(emulator: ServoLine) -> None:
    with LeapHand(LEAP_HAND, emulator.unit()) as hand:
        cycles = []
        for _ in range(40):
            start_s = time.monotonic()
            hand.read()
            hand.write(stiff(DEFAULT))
            cycles.append(time.monotonic() - start_s)
        # At 20 Hz there are 50 ms. The median, since others use these cores too.
        assert np.median(cycles) < 0.02


def test_errors_are_logged_once(emulator: ServoLine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    with LeapHand(LEAP_HAND, emulator.unit()) as hand:
        emulator.do("fail", id=9, error=0x04)
        for _ in range(5):
            hand.read()
        assert [record.message for record in caplog.records] == ["rf_mcp: overheating"]
