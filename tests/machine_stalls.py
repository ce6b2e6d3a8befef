"""Whether the machine stood still while a test kept real time: then the test may be repeated, and only then.

On a shared virtual machine now and then no process runs for tens of milliseconds, whatever its priority. No program can
keep a deadline of 30 ms through that, and a failure says nothing about ours. A process of its own, ahead of all others
where that is permitted, sleeps for a millisecond again and again and writes down when it came back late.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

STALL_S = 0.015
"""Half of the shortest deadline in the tests, which is the watchdog's."""
SLEEP_S = 0.001


class StallMeter:
    """Use as a context; `since_mark` tells of stalls of the machine since the last `mark`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._marked_s = time.monotonic()

    def __enter__(self) -> StallMeter:
        self._file.touch()
        self._process = subprocess.Popen([sys.executable, __file__, str(self._file)])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def mark(self) -> None:
        self._marked_s = time.monotonic()

    def since_mark(self) -> list[float]:
        """Lengths in s."""
        lines = [line.split() for line in self._file.read_text().splitlines()]
        return [float(length) for end, length in lines if float(end) >= self._marked_s]


def watch(file: Path, parent: int) -> None:
    """Append "end length" in s of each stall, until the parent ends."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    with file.open("a", buffering=1) as out:
        before_s = time.monotonic()
        while os.getppid() == parent:
            time.sleep(SLEEP_S)
            now_s = time.monotonic()
            if now_s - before_s > STALL_S:
                out.write(f"{now_s:.6f} {now_s - before_s:.6f}\n")
            before_s = now_s


if __name__ == "__main__":
    watch(Path(sys.argv[1]), os.getppid())
