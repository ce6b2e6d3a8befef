"""Words for a terminal that may be gone: a lost connection, or a reader such as `head` that has ended."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from typing import TextIO


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
