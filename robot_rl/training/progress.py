"""The progress line: rewritten in place on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TextIO

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Writes to stderr, so that a verb's result on stdout stays clean. A terminal that is lost, or a reader that has
    ended, costs nothing but the lines."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._in_place = self._stream.isatty()
        self._last = -SECONDS_BETWEEN_LINES
        self._width = 0

    def update(self, line: str) -> None:
        """Show the newest state."""
        if self._in_place:
            self._write("\r" + line.ljust(self._width))
            self._width = len(line)
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._write(line + "\n")
            self._last = time.monotonic()

    def note(self, line: str) -> None:
        """Show a line that stays."""
        clear = "\r" + " " * self._width + "\r" if self._in_place and self._width else ""
        self._write(f"{clear}{line}\n")
        self._width = 0

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


def duration(seconds: float) -> str:
    """65.2 -> "1:05", 4000 -> "1:06:40"."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
