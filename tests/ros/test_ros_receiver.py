"""The last hop's judgement of commands, and foreign clocks, against hand-made arrival times."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from robot_rl_bridge.receiver import CommandMessage, CommandReceiver
from robot_rl_bridge.stamps import DRIFT, RESTART_S, StampMapper

pytestmark = pytest.mark.ros

VALUES = np.arange(10.0).reshape(5, 2)


def sent(sequence: int, sent_s: float, *, session: int = 1, time_to_live_s: float = 0.1) -> CommandMessage:
    return CommandMessage(session, sequence, sent_s, time_to_live_s, VALUES)


def test_a_command_expires_its_time_to_live_after_it_was_sent_whatever_the_senders_clock_reads() -> None:
    receiver = CommandReceiver()
    first = receiver.accept(sent(1, 9000.0), now_s=5.0)
    assert first is not None
    assert first.expires_s == pytest.approx(5.1)
    np.testing.assert_array_equal(first.kd, VALUES[4])
    # 30 ms in a queue: it expires 0.1 s after sending, not after arrival.
    second = receiver.accept(sent(2, 9000.05), now_s=5.08)
    assert second is not None
    assert second.expires_s == pytest.approx(5.15, abs=1e-3)


def test_a_command_that_waited_past_its_life_is_rejected() -> None:
    receiver = CommandReceiver()
    assert receiver.accept(sent(1, 100.0), 5.0) is not None
    assert receiver.accept(sent(2, 100.01), 5.2) is None
    assert receiver.rejected["arrived after it expired"] == 1
    assert receiver.accept(sent(3, 100.21), 5.21) is not None


def test_commands_out_of_order_are_rejected() -> None:
    receiver = CommandReceiver()
    assert receiver.accept(sent(5, 100.0), 5.0) is not None
    assert receiver.accept(sent(5, 100.01), 5.01) is None
    assert receiver.accept(sent(4, 100.02), 5.02) is None
    assert receiver.accept(sent(6, 99.0), 5.03) is None
    assert receiver.rejected["out of order"] == 3
    assert receiver.accept(sent(7, 100.04), 5.04) is not None


def test_a_second_sender_is_rejected_until_the_first_has_been_silent_for_a_life() -> None:
    receiver = CommandReceiver()
    for k in range(10):
        assert receiver.accept(sent(k, 100.0 + 0.05 * k), 5.0 + 0.05 * k) is not None
        assert receiver.accept(sent(k, 700.0 + 0.05 * k, session=2), 5.01 + 0.05 * k) is None
    assert receiver.rejected["another sender is in command"] == 10
    assert receiver.accept(sent(11, 701.0, session=2), 5.56) is not None
    assert receiver.accept(sent(11, 100.57), 5.57) is None


def test_a_sender_that_restarts_on_a_younger_clock_is_heard() -> None:
    receiver = CommandReceiver()
    assert receiver.accept(sent(500, 9000.0), 5.0) is not None
    assert receiver.accept(sent(1, 3.0, session=2), 6.0) is not None


def test_stamps_show_the_delay_beyond_the_shortest_one() -> None:
    mapper = StampMapper()
    rng = np.random.default_rng(0)
    for k in range(200):
        stamp = 1e9 + 0.01 * k
        delay = 0.002 + 0.03 * rng.random() * (k > 0)
        mapped = mapper.map(stamp, 50.0 + 0.01 * k + delay)
        assert mapped == pytest.approx(50.002 + 0.01 * k, abs=DRIFT * 2.5)


def test_a_slow_foreign_clock_is_followed_and_a_lasting_delay_is_not_forgotten() -> None:
    mapper = StampMapper()
    for k in range(1, 20_000):  # 200 s, the sender 200 ppm slow
        now = 0.01 * k
        mapped = mapper.map(now * (1 - 200e-6), now)
        assert mapped is not None
        assert now - mapped < 1e-4
    first = mapper.map(200.0 * (1 - 200e-6), 200.15)
    assert first is not None
    assert 200.15 - first > 0.14
    late = mapper.map(210.0 * (1 - 200e-6), 210.15)
    assert late is not None
    assert 210.15 - late > 0.13


def test_an_old_stamp_is_refused_until_the_sender_has_clearly_restarted() -> None:
    mapper = StampMapper()
    assert mapper.map(100.0, 5.0) == pytest.approx(5.0)
    assert mapper.map(100.0, 5.1) is None
    assert mapper.map(2.0, 5.2) is None
    assert mapper.map(2.9, 5.0 + RESTART_S) == pytest.approx(5.0 + RESTART_S)
    assert mapper.map(float("nan"), 9.0) is None


def test_a_mapped_stamp_is_never_in_the_future() -> None:
    mapper = StampMapper()
    now, rng = 0.0, np.random.default_rng(1)
    for k in range(500):
        now += 0.01 * rng.random()
        mapped = mapper.map(0.01 * k, now)
        assert mapped is not None
        assert mapped <= now + 1e-12
