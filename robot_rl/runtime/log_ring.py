"""Memory that two processes share: one puts records in, the other takes them out, and neither ever waits.

The one that puts is a control loop: no system call, no lock, no thread that could want the interpreter. What does not
fit is refused, and the caller counts it.
"""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np

CAPACITY = 16 * 1024 * 1024
"""Bytes: five seconds of a humanoid at 500 Hz, in case the disk stalls."""
_HEAD, _TAIL, _WRITTEN = 0, 1, 2
_DATA = 4096
"""Where records begin; before it: counters, and the text of an error from byte 64 on."""
_ERROR = 64
_WRAP = 2**32 - 1
"""In place of a length: the rest of the memory is left out, the next record is at the beginning."""


class LogRing:
    """Records of bytes in the order in which they were put. `fd` is what the other process attaches to.

    Head and tail count bytes since the start and each has one writer; both are aligned 64-bit stores.
    """

    def __init__(self, fd: int | None = None, capacity: int = CAPACITY) -> None:
        """Attach to the memory behind `fd`, or make `capacity` bytes of it."""
        if fd is None:
            fd = _anonymous_file()
            os.ftruncate(fd, _DATA + capacity)
            # Written once, so that no page is missing when the loop first comes to it.
            with mmap.mmap(fd, _DATA + capacity) as memory:
                memory.write(bytes(_DATA + capacity))
        self.fd = fd
        self._memory = mmap.mmap(fd, os.fstat(fd).st_size)
        self._capacity = len(self._memory) - _DATA
        self._counters = np.frombuffer(self._memory, np.uint64, 3)
        self._seen = 0
        """Head at the last `take`."""

    def put(self, record: bytes) -> bool:
        """Append a record; False if there is no room for it."""
        head, tail = int(self._counters[_HEAD]), int(self._counters[_TAIL])
        # Lengths and records stay aligned to 8 bytes, so that a length never straddles the end.
        size = 8 + -(-len(record) // 8) * 8
        at = head % self._capacity
        skipped = self._capacity - at if at + size > self._capacity else 0
        if head + skipped + size - tail > self._capacity:
            return False
        if skipped:
            self._set_length(at, _WRAP)
            at = 0
        self._set_length(at, len(record))
        self._memory[_DATA + at + 8 : _DATA + at + 8 + len(record)] = record
        self._counters[_HEAD] = head + skipped + size
        return True

    def take(self, *, everything: bool = False) -> list[bytes]:
        """Records that were there at the last call already, or `everything` once nobody puts any more.

        Processors may show another core the new head before the record itself. A pause between two calls is a million
        times as long as that lasts, and costs nothing.
        """
        head, tail = int(self._counters[_HEAD]), int(self._counters[_TAIL])
        until, self._seen = (head if everything else self._seen), head
        records = []
        while tail < until:
            at = tail % self._capacity
            length = int.from_bytes(self._memory[_DATA + at : _DATA + at + 4], "little")
            if length == _WRAP:
                tail += self._capacity - at
                continue
            records.append(self._memory[_DATA + at + 8 : _DATA + at + 8 + length])
            tail += 8 + -(-length // 8) * 8
        self._counters[_TAIL] = tail
        return records

    @property
    def written(self) -> int:
        """How many records the taking side has finished with; it counts them itself."""
        return int(self._counters[_WRITTEN])

    @written.setter
    def written(self, count: int) -> None:
        self._counters[_WRITTEN] = count

    @property
    def error(self) -> str:
        """What the taking side reports; empty if all is well."""
        return self._memory[_ERROR:_DATA].rstrip(b"\0").decode("utf-8", "replace")

    @error.setter
    def error(self, text: str) -> None:
        data = text.encode("utf-8", "replace")[: _DATA - _ERROR]
        self._memory[_ERROR : _ERROR + len(data)] = data

    def close(self) -> None:
        """Let go of the memory; it is gone when both sides have."""
        del self._counters
        self._memory.close()
        os.close(self.fd)

    def _set_length(self, at: int, length: int) -> None:
        self._memory[_DATA + at : _DATA + at + 4] = length.to_bytes(4, "little")


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("robot_rl_log")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
