"""A program on a terminal of its own, which can be closed under it: what a lost connection does."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
from collections.abc import Sequence


class ProgramOnTerminal:
    """A session of its own, whose controlling terminal is standard input, output and error of `command`."""

    def __init__(self, command: Sequence[str]) -> None:
        self.lost = False
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)

    def read_until(self, word: str) -> None:
        """Raises OSError if the program ends without having said it."""
        said = b""
        while word.encode() not in said:
            said += os.read(self._ours, 4096)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def lose(self) -> None:
        """Close the terminal: the kernel sends SIGHUP, and writing to it fails from now on."""
        self.lost = True
        os.close(self._ours)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also if the tests run under nohup
