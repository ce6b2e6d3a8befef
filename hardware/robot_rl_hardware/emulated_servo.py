"""One emulated Dynamixel XL330: control table, motion, faults. Its line is `dynamixel_emulator`.

In current-based position mode it follows its goal with a first-order lag, up to its no-load speed, as long as its
P gain and goal current overcome friction. There is no gravity and no contact. Robotis e-manual, XL330-M288-T.
"""

from __future__ import annotations

import math

RANGE_ERROR, LENGTH_ERROR, ACCESS_ERROR = 0x04, 0x05, 0x07

# address: (bytes, writable, value at power-on). Below 64 the values survive a restart, and are locked by torque.
TABLE = {
    0: (2, False, 1200), 2: (4, False, 0), 6: (1, False, 52), 7: (1, True, 1), 8: (1, True, 6), 9: (1, True, 250),
    10: (1, True, 0), 11: (1, True, 3), 12: (1, True, 255), 13: (1, True, 2), 20: (4, True, 0), 24: (4, True, 10),
    31: (1, True, 70), 32: (2, True, 70), 34: (2, True, 35), 36: (2, True, 885), 38: (2, True, 1750),
    44: (4, True, 445), 48: (4, True, 4095), 52: (4, True, 0), 60: (1, True, 0), 62: (1, True, 140), 63: (1, True, 53),
    64: (1, True, 0), 65: (1, True, 0), 68: (1, True, 2), 69: (1, False, 0), 70: (1, False, 0), 76: (2, True, 1600),
    78: (2, True, 180), 80: (2, True, 0), 82: (2, True, 0), 84: (2, True, 400), 88: (2, True, 0), 90: (2, True, 0),
    98: (1, True, 0), 100: (2, True, 885), 102: (2, True, 1750), 104: (4, True, 445), 108: (4, True, 0),
    112: (4, True, 0), 116: (4, True, 0), 120: (2, False, 0), 122: (1, False, 0), 123: (1, False, 0),
    124: (2, False, 0), 126: (2, False, 0), 128: (4, False, 0), 132: (4, False, 0), 136: (4, False, 0),
    140: (4, False, 0), 144: (2, False, 50), 146: (1, False, 30),
}  # fmt: skip
EEPROM_END = 64
GOALS = (100, 102, 104, 116)

LAG_S = 0.05
NO_LOAD_RAD_S = 103 * 2 * math.pi / 60
FRICTION_MA = 20.0
TICKS = 4096 / (2 * math.pi)
"""Per rad."""


class Servo:
    """One servo: its control table, its motion and its faults."""

    def __init__(self, position_rad: float) -> None:
        self.table = bytearray(256)
        for address, (size, _, value) in TABLE.items():
            self.table[address : address + size] = value.to_bytes(size, "little")
        self.position = position_rad
        """Of its horn, rad; the encoder's zero is half a turn from the middle of its range."""
        self.goal_range = (math.inf, -math.inf)
        """Least and greatest goal position that was followed with torque on, rad."""
        self.silent = self.stuck = False
        self.corrupt = 0
        """So many of its next answers carry a wrong byte."""
        self._measure(0.0)

    def get(self, address: int) -> int:
        size = TABLE[address][0]
        return int.from_bytes(self.table[address : address + size], "little", signed=size == 4 or address == 102)

    def put(self, address: int, value: int) -> None:
        size = TABLE[address][0]
        self.table[address : address + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def write(self, address: int, data: bytes) -> int:
        """Write as the bus does: whole fields, or nothing. Returns the error number."""
        fields, end = [], address
        while end < address + len(data):
            if end not in TABLE or not TABLE[end][1] or (end < EEPROM_END and self.get(64)):
                return ACCESS_ERROR
            if end in GOALS and self.get(98) == 0xFF:
                return RANGE_ERROR
            fields.append(end)
            end += TABLE[end][0]
        if end != address + len(data):
            return LENGTH_ERROR
        old = bytes(self.table)
        self.table[address:end] = data
        if (102 in fields and abs(self.get(102)) > self.get(38)) or self.get(64) > 1:
            self.table[:] = old
            return RANGE_ERROR
        if 64 in fields:
            if self.get(70):
                self.put(64, 0)
            elif self.get(64) and not old[64]:
                self.put(116, self.get(132))
        return 0

    def restart(self) -> None:
        """As after a dip of its supply: everything that is not in EEPROM is lost."""
        for address, (size, _, value) in TABLE.items():
            if address >= EEPROM_END:
                self.table[address : address + size] = value.to_bytes(size, "little")
        self._measure(0.0)

    def fail(self, error: int) -> None:
        """A hardware error of which the servo switches itself off."""
        self.put(70, self.get(70) | error)
        self.put(64, 0)

    def advance(self, dt: float, silence_s: float) -> None:
        """`silence_s`: time since the last packet on the line."""
        watchdog = self.get(98)
        if self.get(64) and 0 < watchdog < 0xFF and silence_s > 0.02 * watchdog:
            self.put(98, 0xFF)
            self.put(116, self.get(132))
        error_ticks = self.get(116) - self.position * TICKS
        current = self.get(84) / 128 * error_ticks
        limit = abs(self.get(102))
        current = max(-limit, min(limit, current)) if self.get(64) else 0.0
        velocity = 0.0
        if self.get(64) and abs(current) > FRICTION_MA and not self.stuck:
            goal = self.get(116) / TICKS
            self.goal_range = min(self.goal_range[0], goal), max(self.goal_range[1], goal)
            step = error_ticks / TICKS * (1 - math.exp(-dt / LAG_S))
            velocity = max(-NO_LOAD_RAD_S, min(NO_LOAD_RAD_S, step / dt))
            self.position += velocity * dt
        self.put(126, round(current))
        self._measure(velocity)

    def _measure(self, velocity: float) -> None:
        self.put(128, round(velocity / (0.229 * 2 * math.pi / 60)))
        self.put(132, round(self.position * TICKS))
