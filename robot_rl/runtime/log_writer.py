"""The process that writes a log: takes ticks out of a LogRing until its parent is gone, however that ends.

It is another process so that compression, a slow disk and a full one cannot touch the control loop, and so that a loop
killed with SIGKILL leaves a whole log. Only if this process is killed as well is the open chunk missing, a quarter of a
second.

It also is the black box: the ticks of the last 30 s stay in its memory, and those before and just after each trip are
written to a file of their own.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mcap.writer import Writer

from robot_rl.runtime.log_record import LogRecord
from robot_rl.runtime.log_ring import LogRing
from robot_rl.runtime.signals import STOPPING

LOOK_S = 0.02
"""Pause between two looks at the ring."""
SYNC_S = 1.0
"""How much a power cut can cost: the kernel is asked for the disk this often."""
BLACK_BOX_S = 30.0
AFTER_TRIP_S = 1.0
"""How long a black box goes on after a trip; further trips until then are in the same file."""
BLACK_BOX_BYTES = 256 * 1024 * 1024
MAX_DUMPS = 20
"""A robot that trips again and again must not fill the disk."""
CHUNK_S = 0.25
"""How much is lost if this process is killed."""
METADATA = "robot_rl"
"""Name of the record that says what a log is about."""
FORMAT = "2"


@dataclass(frozen=True)
class LogPlan:
    """What a log is about: all of it stands at the beginning of the file, so that one without an end can be read."""

    path: str
    """Of the log; black boxes lie beside it."""
    metadata: dict[str, str]
    topics: dict[str, tuple[str, str]]
    """Topic -> (name of its message type, FileDescriptorSet in base64)."""
    chunk_bytes: int

    def to_json(self) -> str:
        return json.dumps(self.__dict__)


class LogFile:
    """An MCAP file of ticks. Raises OSError as the disk does."""

    def __init__(self, file: IO[bytes], plan: LogPlan) -> None:
        self._file = file
        self._writer = Writer(file, chunk_size=plan.chunk_bytes)
        self._writer.start(profile="", library="robot-rl")
        self._writer.add_metadata(METADATA, plan.metadata)
        self._channels = [
            self._writer.register_channel(
                topic, "protobuf", self._writer.register_schema(name, "protobuf", base64.b64decode(descriptor))
            )
            for topic, (name, descriptor) in plan.topics.items()
        ]

    def add(self, record: LogRecord) -> None:
        for topic, data in record.messages:
            self._writer.add_message(self._channels[topic], record.stamp_ns, data, record.stamp_ns, record.number)

    def flush(self, *, to_disk: bool = False) -> None:
        self._file.flush()
        if to_disk:
            os.fdatasync(self._file.fileno()) if hasattr(os, "fdatasync") else os.fsync(self._file.fileno())

    def close(self) -> None:
        self._writer.finish()
        self.flush(to_disk=True)
        self._file.close()


class BlackBox:
    """The last ticks, in memory, and on the disk after each trip."""

    def __init__(self, plan: LogPlan) -> None:
        self._plan = plan
        self._records: deque[tuple[LogRecord, int]] = deque()
        self._bytes = 0
        self._trips: list[LogRecord] = []
        self._dumps = 0

    def add(self, record: LogRecord) -> None:
        """Take a tick; writes a file once the time after a trip is over."""
        size = sum(len(data) for _, data in record.messages)
        self._records.append((record, size))
        self._bytes += size
        while self._bytes > BLACK_BOX_BYTES or record.stamp_ns - self._records[0][0].stamp_ns > BLACK_BOX_S * 1e9:
            self._bytes -= self._records.popleft()[1]
        if record.trip:
            self._trips.append(record)
        if self._trips and record.stamp_ns - self._trips[0].stamp_ns >= AFTER_TRIP_S * 1e9:
            self.dump()

    def dump(self) -> None:
        """Write what is there, if anything tripped."""
        trips, self._trips = self._trips, []
        if not trips or self._dumps == MAX_DUMPS:
            return
        self._dumps += 1
        log = Path(self._plan.path)
        path = log.with_name(f"{log.stem}.trip{self._dumps}-{trips[0].trip}.mcap")
        plan = LogPlan(**{**self._plan.__dict__, "metadata": {**self._plan.metadata, "trip": trips[0].trip}})
        with path.open("wb") as file:
            out = LogFile(file, plan)
            for record, _ in self._records:
                out.add(record)
            out.close()


def write(ring: LogRing, plan: LogPlan, file: IO[bytes] | None, alive: IO[bytes]) -> None:
    """Write what comes through `ring` until `alive` ends; without a file, black boxes only.

    What a disk refuses is told through the ring, and the rest of the run is not written.
    """
    black_box = BlackBox(plan)
    try:
        log = None if file is None else LogFile(file, plan)
        synced_s = time.monotonic()
        while True:
            ended = bool(select.select([alive], [], [], LOOK_S)[0])
            for data in ring.take(everything=ended):
                record = LogRecord.from_bytes(data)
                if log is not None:
                    log.add(record)
                black_box.add(record)
                ring.written += 1
            to_disk = time.monotonic() - synced_s > SYNC_S
            if log is not None:
                log.flush(to_disk=to_disk)
            synced_s = time.monotonic() if to_disk else synced_s
            if ended:
                break
        black_box.dump()
        if log is not None:
            log.close()
    except OSError as error:
        ring.error = str(error)


def _make_way() -> None:
    """Leave the parent's real-time priority, and the cores that it was pinned to: both are the loop's own."""
    os.nice(5)
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, others or os.sched_getaffinity(0))


def main(arguments: list[str]) -> int:
    # Ctrl-C goes to the whole terminal, and the last ticks are still to come.
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    _make_way()
    ring, *files = (int(fd) for fd in arguments)
    plan = LogPlan(**json.loads(sys.stdin.buffer.readline()))
    write(LogRing(ring), plan, os.fdopen(files[0], "wb") if files else None, sys.stdin.buffer)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
