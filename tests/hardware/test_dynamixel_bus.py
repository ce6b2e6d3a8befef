"""The bus against servos that refuse, and against lines that answer anything at all."""

import os
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from robot_rl.errors import ConfigError
from robot_rl.testing.servo_line import ServoLine
from robot_rl_hardware import dynamixel_x as dxl
from robot_rl_hardware.dynamixel_bus import ALERT, BusError, DynamixelBus, LineLostError
from robot_rl_hardware.dynamixel_emulator import packet

pytestmark = pytest.mark.realtime

TIMEOUT_S = 0.005


@pytest.fixture
def bus(emulator: ServoLine) -> Iterator[DynamixelBus]:
    bus = DynamixelBus(str(emulator.link), 4_000_000, 0.5)
    bus.open()
    yield bus
    bus.close()
    bus.close()


def test_reads_writes_and_refusals_of_servos(bus: DynamixelBus, emulator: ServoLine) -> None:
    assert bus.ping(3) == 1200
    bus.write(3, dxl.GOAL_CURRENT[0], (300).to_bytes(2, "little"))
    assert bus.read(3, *dxl.GOAL_CURRENT) == ((300).to_bytes(2, "little"), 0)
    for address, data, words in (
        (dxl.PRESENT_POSITION[0], bytes(4), "not available to target address"),
        (dxl.GOAL_CURRENT[0], (1_800).to_bytes(2, "little"), "out of range"),
        (dxl.GOAL_POSITION[0], bytes(2), "length does not match"),
    ):
        with pytest.raises(BusError, match=rf"servo 3: write {address}: .*{words}"):
            bus.write(3, address, data)
    emulator.do("fail", id=3, error=0x20)
    # A servo in trouble still answers, with its alert bit set.
    assert bus.read(3, *dxl.HARDWARE_ERROR_STATUS) == (b"\x20", ALERT)


def test_writes_to_many_and_reads_from_those_that_answer(bus: DynamixelBus, emulator: ServoLine) -> None:
    bus.sync_write(dxl.GAINS[0], {i: bytes([i, 0, 0, 0, 9, 0]) for i in range(4)})
    assert bus.sync_read([0, 1, 2, 3], *dxl.GAINS) == {i: (bytes([i, 0, 0, 0, 9, 0]), 0) for i in range(4)}
    emulator.do("corrupt", id=1)
    assert set(bus.sync_read([0, 1, 2, 3], *dxl.GAINS)) == {0, 2, 3}
    emulator.do("silence", id=2)
    assert set(bus.sync_read([0, 1, 2, 3], *dxl.GAINS)) == {0, 1}


def test_a_closed_line_and_a_wrong_rate_are_refused(emulator: ServoLine) -> None:
    with pytest.raises(ConfigError, match="baud 1234 is not one of the servos'; valid: 9600, 57600"):
        DynamixelBus(str(emulator.link), 1_234, 0.1)
    closed = DynamixelBus(str(emulator.link), 4_000_000, 0.1)
    with pytest.raises(LineLostError, match="is not open"):
        closed.ping(1)


class AnythingLine:
    """A pseudo-terminal whose other end answers every request with `answer`."""

    def __init__(self) -> None:
        self.answer = b""
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                if os.read(self._master, 4096):
                    os.write(self._master, self.answer)
            except OSError:
                return


@pytest.fixture(scope="module")
def anything() -> Iterator[tuple[AnythingLine, DynamixelBus]]:
    line = AnythingLine()
    bus = DynamixelBus(line.port, 4_000_000, TIMEOUT_S)
    bus.open()
    yield line, bus
    bus.close()


def test_a_late_answer_to_something_else_is_not_taken_for_data(anything: tuple[AnythingLine, DynamixelBus]) -> None:
    line, bus = anything
    line.answer = status(1, b"")
    with pytest.raises(BusError, match="servo 1: read 116: no sound answer"):
        bus.read(1, 116, 4)
    assert bus.sync_read([1, 2], 116, 4) == {}
    line.answer = status(1, b"abcd")
    with pytest.raises(BusError, match="servo 1: write 116: no sound answer"):
        bus.write(1, 116, bytes(4))
    # The right one behind it still counts.
    line.answer = status(1, b"") + status(1, b"abcd")
    assert bus.read(1, 116, 4) == (b"abcd", 0)


def status(servo: int, data: bytes, error: int = 0) -> bytes:
    return packet(servo, bytes([0x55, error]) + data)


sound = st.builds(status, st.integers(0, 252), st.binary(min_size=0, max_size=30), st.integers(0, 255))
damaged = st.builds(
    lambda raw, at, bit: raw[: at % len(raw)] + bytes([raw[at % len(raw)] ^ bit]) + raw[at % len(raw) + 1 :],
    sound,
    st.integers(0, 60),
    st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]),
)
chunks = st.lists(st.one_of(sound, damaged, st.binary(max_size=40), st.just(b"\xff\xff\xfd\x00")), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks)
@example([status(1, b"\x01\x02\x03\x04"), status(2, b"\xff\xff\xfd\x00")])
@example([b"\xff\xff\xfd\x00\x01\xff\xff\x55", status(2, b"abcd")])
def test_whatever_a_line_answers_is_checked_and_ends_in_time(
    anything: tuple[AnythingLine, DynamixelBus], answer: list[bytes]
) -> None:
    """Nothing but sound packets of the servos that were asked is believed, and nothing raises but BusError."""
    line, bus = anything
    line.answer = b"".join(answer)
    start_s = time.monotonic()
    answers = bus.sync_read([1, 2], 116, 4)
    for servo, (data, error) in answers.items():
        assert servo in (1, 2)
        assert status(servo, data, error) in line.answer
    with suppress(BusError):
        data, error = bus.read(1, 116, 4)
        assert status(1, data, error) in line.answer
    for exchange in (lambda: bus.ping(1), lambda: bus.write(1, 116, bytes(4))):
        with suppress(BusError):
            exchange()
    # Four exchanges of TIMEOUT_S; the rest is for a machine that is busy with other things.
    assert time.monotonic() - start_s < 2.0
