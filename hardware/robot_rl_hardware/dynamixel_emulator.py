"""Dynamixel servos that are not there, on a pseudo-terminal: for trying the driver, and for breaking its line.

    python -m robot_rl_hardware.dynamixel_emulator --unit hardware/units/leap-example.yaml --link /tmp/leap

Written from the e-manual's description of protocol 2 and of the XL330's control table, and from nothing else: it shares
neither code nor table with the driver. Answers take the time that they need at the baud rate, return delay included.
Behind a servo that does not answer a synchronous read, those after it keep quiet too, as each waits for the one before.

Faults and questions come as JSON, one object per line of standard input; each is answered by one line of output:
`{"do": "silence", "id": 3}`. What can be done is the table `ACTIONS`.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from robot_rl.robots import get_robot
from robot_rl.robots.unit import load_unit
from robot_rl_hardware.emulated_servo import ACCESS_ERROR, Servo

PING, READ, WRITE, REBOOT, STATUS, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x08, 0x55, 0x82, 0x83
INSTRUCTION_ERROR = 0x02
ALERT = 0x80
HEADER = b"\xff\xff\xfd\x00"
BAUD = 4_000_000


def crc16(data: bytes) -> int:
    """CRC of protocol 2, bit by bit: polynomial x^16 + x^15 + x^2 + 1, start 0, no reflection."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005) & 0xFFFF if crc & 0x8000 else crc << 1
    return crc


def packet(servo: int, body: bytes) -> bytes:
    """A whole packet around `body` (instruction and parameters), with bytes stuffed and the CRC at its end."""
    body = body.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    head = HEADER + bytes([servo]) + (len(body) + 2).to_bytes(2, "little")
    return head + body + crc16(head + body).to_bytes(2, "little")


def packets(buffer: bytearray) -> Iterator[tuple[int, bytes, bool]]:
    """Take whole packets out of `buffer`: (id, body without stuffing, whether its CRC is right)."""
    while (start := buffer.find(HEADER)) >= 0:
        del buffer[:start]
        if len(buffer) < 7 or len(buffer) < (end := 7 + int.from_bytes(buffer[5:7], "little")):
            return
        raw = bytes(buffer[:end])
        del buffer[:end]
        yield (
            raw[4],
            raw[7:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd"),
            crc16(raw[:-2]) == int.from_bytes(raw[-2:], "little"),
        )


class Line:
    """The servos on one pseudo-terminal, and what can go wrong with it."""

    def __init__(self, servos: dict[int, Servo], link: Path) -> None:
        self.servos = servos
        self.deaf = self.mute = self.babbling = False
        """Deaf: takes no bytes. Mute: no answer arrives. Babbling: noise all the time."""
        self.last_packet_s = time.monotonic()
        self.instructions: dict[int, int] = {}
        self._link = link
        self._buffer = bytearray()
        self.plug()

    def plug(self) -> None:
        """A new pseudo-terminal, found under the same link."""
        self.master, slave = os.openpty()
        tty.setraw(slave)
        # Held open here, so that a driver which closes the port does not unplug it.
        self._slave = slave
        self._buffer.clear()
        temporary = self._link.with_name(f".{self._link.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.ttyname(slave))
        os.replace(temporary, self._link)

    def unplug(self) -> None:
        for descriptor in (self._slave, self.master):
            with suppress(OSError):
                os.close(descriptor)
        self.master = -1

    def serve(self, now_s: float) -> None:
        """Take what has come, and answer."""
        try:
            data = os.read(self.master, 4096)
        except OSError:
            return
        self._buffer += data
        if termios.tcgetattr(self._slave)[5] != termios.B4000000:
            return  # at another rate, bits fall into other bytes, and no packet comes of it
        answers, wire_s = bytearray(), len(data) * 10 / BAUD
        for servo, body, sound in packets(self._buffer):
            if not sound:
                continue
            self.last_packet_s = now_s
            self.instructions[body[0]] = self.instructions.get(body[0], 0) + 1
            for answer, delay_s in self._answers(servo, body):
                answers += answer
                wire_s += len(answer) * 10 / BAUD + delay_s
        if answers and not self.mute:
            time.sleep(wire_s)
            with suppress(OSError):
                os.write(self.master, answers)

    def babble(self) -> None:
        with suppress(OSError):
            os.write(self.master, os.urandom(512))

    def _answers(self, servo: int, body: bytes) -> Iterator[tuple[bytes, float]]:
        """(packet, delay before it) of every servo that answers."""
        instruction, parameters = body[0], body[1:]
        if instruction == SYNC_READ:
            address, size = int.from_bytes(parameters[:2], "little"), int.from_bytes(parameters[2:4], "little")
            for number in parameters[4:]:
                if number not in self.servos or self.servos[number].silent:
                    return
                yield self._status(number, 0, bytes(self.servos[number].table[address : address + size]))
        elif instruction == SYNC_WRITE:
            address, size = int.from_bytes(parameters[:2], "little"), int.from_bytes(parameters[2:4], "little")
            for k in range(4, len(parameters), 1 + size):
                target = self.servos.get(parameters[k])
                if target is not None and not target.silent:
                    target.write(address, parameters[k + 1 : k + 1 + size])
        elif servo in self.servos and not self.servos[servo].silent:
            yield from self._single(servo, instruction, parameters)

    def _single(self, number: int, instruction: int, parameters: bytes) -> Iterator[tuple[bytes, float]]:
        servo = self.servos[number]
        level = servo.get(68)
        address = int.from_bytes(parameters[:2], "little")
        if instruction == PING:
            yield self._status(number, 0, bytes(servo.table[0:2] + servo.table[6:7]))
        elif instruction == READ:
            size = int.from_bytes(parameters[2:4], "little")
            sound = address + size <= len(servo.table)
            if level > 0:
                yield self._status(number, 0 if sound else ACCESS_ERROR, bytes(servo.table[address : address + size]))
        else:
            error = INSTRUCTION_ERROR
            if instruction == WRITE:
                error = servo.write(address, parameters[2:])
            elif instruction == REBOOT:
                error = 0
                servo.restart()
            if level > 1:
                yield self._status(number, error, b"")

    def _status(self, number: int, error: int, data: bytes) -> tuple[bytes, float]:
        servo = self.servos[number]
        answer = bytearray(packet(number, bytes([STATUS, error | (ALERT if servo.get(70) else 0)]) + data))
        if servo.corrupt:
            servo.corrupt -= 1
            answer[-3] ^= 0x10
        return bytes(answer), 2e-6 * servo.get(9)


def _set(**values: Any) -> Callable[[Any], None]:
    def assign(thing: Any) -> None:
        for name, value in values.items():
            setattr(thing, name, value)

    return assign


# Name -> what it does to a servo (with "id") or to the line (without).
ACTIONS: dict[str, Callable[..., Any]] = {
    "silence": _set(silent=True),
    "speak": _set(silent=False),
    "stick": _set(stuck=True),
    "corrupt": lambda servo, count=1: setattr(servo, "corrupt", count),
    "fail": lambda servo, error: servo.fail(error),
    "heat": lambda servo, celsius: servo.put(146, celsius),
    "supply": lambda servo, volt: servo.put(144, round(10 * volt)),
    "restart": lambda servo: servo.restart(),
    "set": lambda servo, address, value: servo.put(address, value),
    "get": lambda servo, address: servo.get(address),
    "deaf": lambda line, on=True: setattr(line, "deaf", on),
    "mute": lambda line, on=True: setattr(line, "mute", on),
    "babble": lambda line, on=True: setattr(line, "babbling", on),
    "unplug": lambda line: line.unplug(),
    "plug": lambda line: line.plug(),
    "torque": lambda line: [number for number, servo in line.servos.items() if servo.get(64)],
    "watchdogs": lambda line: sorted({servo.get(98) for servo in line.servos.values()}),
    "registers": lambda line, address: {number: servo.get(address) for number, servo in line.servos.items()},
    "positions": lambda line: {number: servo.position for number, servo in line.servos.items()},
    "goals": lambda line: {number: servo.goal_range for number, servo in line.servos.items()},
    "instructions": lambda line: line.instructions,
}


def obey(line: Line, request: dict[str, Any]) -> Any:
    """Do what one line of standard input asks; the answer."""
    arguments = {key: value for key, value in request.items() if key not in ("do", "id")}
    thing = line.servos[request["id"]] if "id" in request else line
    return ACTIONS[request["do"]](thing, **arguments)


def run(line: Line) -> None:
    """Serve until SIGTERM. The end of standard input is no reason to stop: a robot has none."""
    requests, step_s, last_s = bytearray(), 0.002, time.monotonic()
    watched = [0]
    while True:
        line_open = line.master >= 0 and not line.deaf
        ready, _, _ = select.select(watched + ([line.master] if line_open else []), [], [], step_s)
        now_s = time.monotonic()
        # Packets before watchdogs: what waited while this process did not run was not silence.
        if line.master in ready:
            line.serve(now_s)
        if now_s > last_s:
            for servo in line.servos.values():
                servo.advance(now_s - last_s, now_s - line.last_packet_s)
            last_s = now_s
        if line.babbling and line_open:
            line.babble()
        if 0 in ready:
            data = os.read(0, 4096)
            watched = [0] if data else []
            requests += data
            while b"\n" in requests:
                text, _, rest = requests.partition(b"\n")
                requests = bytearray(rest)
                print(json.dumps({"answer": obey(line, json.loads(text))}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Emulate the servos of a unit file on a pseudo-terminal.")
    parser.add_argument("--unit", type=Path, required=True, help="unit file: servo ids, zeros and signs")
    parser.add_argument("--link", type=Path, required=True, help="name under which a driver finds the line")
    arguments = parser.parse_args()
    unit = load_unit(arguments.unit)
    joints = get_robot(unit.robot).joints
    servos = {
        wiring.id: Servo(wiring.zero_offset_rad + wiring.sign * joint.default_pos_rad)
        for joint, wiring in zip(joints, unit.joints, strict=True)
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    line = Line(servos, arguments.link)
    print(json.dumps({"port": str(arguments.link), "servos": sorted(servos)}), flush=True)
    try:
        run(line)
    except KeyboardInterrupt:
        pass
    finally:
        arguments.link.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
