"""Signals that ask to end as a flag, and a garbage collector that does not run inside a control loop."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
"""Ctrl-C, `kill`, a terminal or connection that was lost, Ctrl-\\, and Ctrl-Z: a robot cannot be suspended."""


class StopFlag:
    """Set by the first signal; tells which."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Turn STOPPING into a flag while the block runs, so that no exception can fall between two commands.

    Handlers stay in place until the block is left, so a second Ctrl-C does not cut the damping short. SIGHUP stays
    ignored where it was (`nohup`). Python delivers signals to the main thread only: elsewhere the flag is never set.
    """
    flag = StopFlag()

    def note(number: int, _frame: FrameType | None) -> None:
        flag.signal = signal.Signals(number)

    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    wanted = [number for number in STOPPING if number != signal.SIGHUP or not ignored]
    previous = {number: signal.signal(number, note) for number in wanted}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect once, then keep the collector off: a full collection takes 5 to 100 ms, longer than a tick."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
