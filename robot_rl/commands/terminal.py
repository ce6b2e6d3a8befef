"""Words for a terminal that may be gone or halted: a lost connection, Ctrl-S, a reader (`head`) that has ended."""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
from contextlib import suppress
from typing import TextIO

CLOSE_S = 1.0
"""How long the end of a run waits for what is still to be printed."""


def tell(text: str, stream: TextIO | None = None) -> None:
    """Print to standard output or `stream`. That nobody reads it ends nothing and changes no exit code."""
    with suppress(OSError):
        print(text, file=stream, flush=True)


def reader_has_gone() -> bool:
    """Whether nobody reads standard output any more; what the interpreter still has for it is then dropped."""
    output = select.poll()
    output.register(sys.stdout, 0)
    if not output.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


class Narrator:
    """Prints from a thread of its own, for a control loop, which a halted terminal must not hold up. A context manager:
    at its end what was told is printed, as far as that takes no longer than CLOSE_S."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._print, name="narrator", daemon=True)

    def tell(self, text: str) -> None:
        """Returns at once."""
        self._lines.put(text)

    def __enter__(self) -> Narrator:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._lines.put(None)
        self._thread.join(CLOSE_S)

    def _print(self) -> None:
        while (line := self._lines.get()) is not None:
            tell(line)
