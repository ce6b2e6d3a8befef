"""One tick on its way from the control loop to the process that writes the log. Imports nothing that starts slowly."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HEAD, _PART = struct.Struct("<QqH"), struct.Struct("<HI")


@dataclass(frozen=True, slots=True)
class LogRecord:
    """The messages of a tick, as bytes."""

    number: int
    """Of the tick, from 0; one that is left out is missing from the log."""
    stamp_ns: int
    """Time of the tick, ns since 1970."""
    trip: str
    """What tripped in it; empty: nothing."""
    messages: tuple[tuple[int, bytes], ...]
    """(number of the topic, message)."""

    def to_bytes(self) -> bytes:
        trip = self.trip.encode()
        parts = [_HEAD.pack(self.number, self.stamp_ns, len(trip)), trip]
        for topic, data in self.messages:
            parts += (_PART.pack(topic, len(data)), data)
        return b"".join(parts)

    @staticmethod
    def from_bytes(data: bytes) -> LogRecord:
        number, stamp_ns, length = _HEAD.unpack_from(data)
        at = _HEAD.size + length
        trip = data[_HEAD.size : at].decode()
        messages = []
        while at < len(data):
            topic, length = _PART.unpack_from(data, at)
            at += _PART.size + length
            messages.append((topic, data[at - length : at]))
        return LogRecord(number, stamp_ns, trip, tuple(messages))
