"""DynamixelBus: Dynamixel servos on one serial line, over their maker's SDK (protocol 2), with waits that always end.

The SDK alone waits without end where a line babbles or stops taking bytes, refuses everything after an exception has
interrupted it, and drops the error bytes of a synchronous read. Robotis e-manual, "DYNAMIXEL Protocol 2.0".
"""

from __future__ import annotations

import glob
import select
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

import serial
from dynamixel_sdk import (
    COMM_RX_TIMEOUT,
    COMM_SUCCESS,
    PortHandler,
    Protocol2PacketHandler,
)

from robot_rl.errors import ConfigError, RobotRLError

BAUD_RATES = (9_600, 57_600, 115_200, 1_000_000, 2_000_000, 3_000_000, 4_000_000)
"""Those of the XL330 and XC330 (control table, Baud Rate)."""
ALERT = 0x80
"""Bit of a status packet's error byte: the servo has a hardware error."""

_WRITE_TIMEOUT_S = 0.05
_LATE_BYTES = 2_048
"""Read after a deadline, if they are there: a process that was kept from running is not a servo that was silent."""
_ID, _LENGTH, _ERROR, _DATA = 4, 5, 8, 9
"""Places in a status packet."""
_EMPTY = 11
"""Bytes of a status packet without data."""


class BusError(RobotRLError):
    """Servos did not answer, answered with an error, or their line is gone."""


class LineLostError(BusError):
    """The serial port itself failed: unplugged, closed, or it takes no more bytes."""


class _Port(PortHandler):
    """The SDK's port: exclusive, monotonic, sleeping while it waits, and never waiting past its deadline."""

    def __init__(self, name: str, reply_timeout_s: float) -> None:
        super().__init__(name)
        self._reply_timeout_s = reply_timeout_s
        self._deadline_s = 0.0
        self._late_bytes = 0

    def setupPort(self, cflag_baud: int) -> Literal[True]:
        self.ser = serial.Serial(self.port_name, cflag_baud, timeout=0, write_timeout=0, exclusive=True)
        # A USB adapter keeps what it received for up to 16 ms unless told otherwise; other ports know no such thing.
        with suppress(OSError, ValueError, NotImplementedError):
            self.ser.set_low_latency_mode(True)
        self.is_open = True
        self.tx_time_per_byte = 10_000.0 / cflag_baud
        return True

    def getCurrentTime(self) -> float:
        return time.monotonic() * 1e3

    def setPacketTimeout(self, packet_length: int) -> None:
        self.setPacketTimeoutMillis(self.tx_time_per_byte * packet_length + 1e3 * self._reply_timeout_s)

    def setPacketTimeoutMillis(self, msec: float) -> None:
        super().setPacketTimeoutMillis(msec)
        self._deadline_s = time.monotonic() + msec / 1e3
        self._late_bytes = _LATE_BYTES

    def writePort(self, packet: Sequence[int]) -> int:
        """All of it, or SerialTimeoutException if the line takes no more bytes. pyserial's own waiting looks at the
        clock alone, and gives up although all is written where a process was kept from running."""
        end_s, sent = time.monotonic() + _WRITE_TIMEOUT_S, 0
        while sent < len(packet):
            if not select.select([], [self.ser.fileno()], [], max(0.0, end_s - time.monotonic()))[1]:
                raise serial.SerialTimeoutException(f"write timeout: the line took {sent} of {len(packet)} bytes")
            sent += self.ser.write(bytes(packet[sent:])) or 0
        return sent

    def readPort(self, length: int) -> bytes:
        remaining_s = self._deadline_s - time.monotonic()
        if remaining_s > 0:
            select.select([self.ser.fileno()], [], [], remaining_s)
            return self.ser.read(length)
        data = self.ser.read(min(length, self._late_bytes))
        self._late_bytes -= len(data)
        return data


class DynamixelBus:
    """One line of servos. Every method may be called from any thread; `lock` holds several exchanges together."""

    def __init__(self, port: str, baud: int, reply_timeout_s: float) -> None:
        if baud not in BAUD_RATES:
            raise ConfigError(f"baud {baud} is not one of the servos'; valid: {', '.join(map(str, BAUD_RATES))}")
        self.lock = threading.RLock()
        self._baud = baud
        self._port = _Port(port, reply_timeout_s)
        self._packets = Protocol2PacketHandler()

    def open(self) -> None:
        """Open the port for this process alone. Raises LineLostError naming the ports that are there."""
        try:
            self._port.setBaudRate(self._baud)
        except (OSError, termios.error) as error:
            found = sorted(glob.glob("/dev/serial/by-id/*") + glob.glob("/dev/ttyUSB*") + glob.glob("/dev/ttyACM*"))
            raise LineLostError(f"{error}; ports here: {', '.join(found) or 'none'}") from error

    def close(self) -> None:
        """Give the port back; at any time, also twice."""
        with self.lock, suppress(OSError, termios.error):
            if self._port.is_open:
                self._port.is_open = False
                self._port.ser.close()

    @property
    def is_open(self) -> bool:
        return self._port.is_open

    def ping(self, servo: int) -> int:
        """Model number of the servo. Raises BusError if it does not answer."""
        with self._exchange():
            model, result, error = self._packets.ping(self._port, servo)
        self._check(servo, "ping", result, error)
        return model

    def read(self, servo: int, address: int, size: int) -> tuple[bytes, int]:
        """`size` bytes from `address`, and the error byte. Raises BusError."""
        with self._exchange():
            result = self._packets.readTx(self._port, servo, address, size)
            answers = self._receive([servo], size) if result == COMM_SUCCESS else {}
        return self._answer(servo, f"read {address}", result, answers)

    def write(self, servo: int, address: int, data: bytes) -> None:
        """Write and wait for the servo's word that it is done. Raises BusError."""
        with self._exchange():
            result = self._packets.writeTxOnly(self._port, servo, address, len(data), list(data))
            self._port.setPacketTimeout(_EMPTY)
            answers = self._receive([servo], 0) if result == COMM_SUCCESS else {}
        self._answer(servo, f"write {address}", result, answers)

    def sync_read(self, servos: Sequence[int], address: int, size: int) -> dict[int, tuple[bytes, int]]:
        """From each servo that answers soundly: `size` bytes from `address`, and its error byte."""
        with self._exchange():
            result = self._packets.syncReadTx(self._port, address, size, list(servos), len(servos), False)
            if result != COMM_SUCCESS:
                raise BusError(f"sync read {address}: {self._packets.getTxRxResult(result)}")
            answers = self._receive(servos, size)
        return {servo: (data, error) for servo, (data, error) in answers.items() if not error & ~ALERT}

    def _receive(self, servos: Sequence[int], size: int) -> dict[int, tuple[bytes, int]]:
        """One answer of each servo: `size` bytes and an error byte; no bytes where the servo refused.

        The SDK looks at no packet's length: it takes a late answer to something else, checksum included, for data. And
        it waits for each servo in turn, which loses all behind a silent one.
        """
        answers: dict[int, tuple[bytes, int]] = {}
        while len(answers) < len(servos):
            packet, result = self._packets.rxPacket(self._port, False)
            if result == COMM_RX_TIMEOUT:
                break
            if result != COMM_SUCCESS or packet[_ID] not in servos:
                continue
            length, error = packet[_LENGTH] + 256 * packet[_LENGTH + 1], packet[_ERROR]
            if length == size + 4:
                answers[packet[_ID]] = bytes(packet[_DATA : _DATA + size]), error
            elif length == 4 and error & ~ALERT:
                answers[packet[_ID]] = b"", error
        return answers

    def _answer(self, servo: int, what: str, result: int, answers: dict[int, tuple[bytes, int]]) -> tuple[bytes, int]:
        if result == COMM_SUCCESS and servo not in answers:
            result = COMM_RX_TIMEOUT
        data, error = answers.get(servo, (b"", 0))
        self._check(servo, what, result, error)
        return data, error

    def sync_write(self, address: int, values: Mapping[int, bytes]) -> None:
        """Write to many at once. No servo answers to this: what must be certain is read back."""
        data = [byte for servo, value in values.items() for byte in (servo, *value)]
        size = len(next(iter(values.values())))
        with self._exchange():
            result = self._packets.syncWriteTxOnly(self._port, address, size, data, len(data))
        if result != COMM_SUCCESS:
            raise BusError(f"sync write {address}: {self._packets.getTxRxResult(result)}")

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        with self.lock:
            if not self._port.is_open:
                raise LineLostError(f"{self._port.port_name} is not open")
            # An exception, such as Ctrl-C, leaves the SDK's port marked as busy for good.
            self._port.is_using = False
            try:
                yield
            except (OSError, termios.error) as error:
                raise LineLostError(f"{self._port.port_name}: {error}") from error

    def _check(self, servo: int, what: str, result: int, error: int) -> None:
        if result == COMM_RX_TIMEOUT:
            raise BusError(f"servo {servo}: {what}: no sound answer")
        if result != COMM_SUCCESS:
            raise BusError(f"servo {servo}: {what}: {self._packets.getTxRxResult(result)}")
        if error & ~ALERT:
            raise BusError(f"servo {servo}: {what}: {self._packets.getRxPacketError(error & ~ALERT)}")
