"""Scheduling: what a control loop may ask the kernel for, and the words for what was granted."""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from robot_rl.errors import ConfigError

MOST_PRIORITY = 90
"""Above it are threads of the kernel's own, which the loop needs."""
CPU_LATENCY = Path("/dev/cpu_dma_latency")
ANY_CORE = (-1,)
_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
"""What this process was started with."""


def raise_priority(priority: int) -> str:
    """Ask for SCHED_FIFO with `priority`, for the threads that this process has now, and for cores that stay awake;
    says what was granted.

    The middleware's threads deliver the messages, so they are among them. Threads started later (a recorder's) are not.
    Never required: on a machine that does not grant it the loop runs as it is, and the log tells.
    """
    if priority == 0:
        return "scheduling: as started"
    try:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
                os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))
    except OSError as error:
        granted = f"SCHED_FIFO {priority} not granted ({error.strerror}): needs CAP_SYS_NICE or rtprio"
    else:
        granted = f"SCHED_FIFO {priority}"
    return f"scheduling: {granted}; {keep_cores_awake()}"


def schedule(priority: int, cores: Sequence[int] = ANY_CORE) -> str:
    """`raise_priority` and `keep_to_cores`, and what both say. Raises ConfigError for cores that there are not."""
    kept = keep_to_cores(cores)
    return "; ".join(filter(None, (raise_priority(priority), kept)))


def keep_to_cores(cores: Sequence[int]) -> str:
    """Keep the threads that this process has, and those that they will start, to `cores`; says so. ANY_CORE: leave them
    where they are, and say nothing.

    A thread that is moved to another core finds none of its code and data in the caches there, and on a small machine
    the kernel moves it whenever somebody more important wants its core.

    Raises ConfigError as `check_cores` does.
    """
    check_cores(cores)
    if tuple(cores) == ANY_CORE:
        return ""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)
    return f"on core {', '.join(map(str, sorted(cores)))}"


def check_cores(cores: Sequence[int]) -> None:
    """Raise ConfigError for cores that this process may not use, or where the system knows of no such thing."""
    if tuple(cores) != ANY_CORE and not (cores and set(cores) <= _CORES):
        raise ConfigError(f"cores must be some of {sorted(_CORES)}, or {list(ANY_CORE)} for any, got {list(cores)}")


@contextmanager
def on_any_core() -> Iterator[None]:
    """Undo `keep_to_cores` for this thread, and so for the processes that it starts meanwhile."""
    if not _CORES:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@functools.cache
def keep_cores_awake(device: Path = CPU_LATENCY) -> str:
    """Ask the kernel to let no core sleep for as long as this process lives; says whether it will.

    A core that waits for a state for a millisecond sleeps, deeper the longer, or is lent to somebody else's machine; it
    comes back late and with empty caches, and a tick takes half as long again. The request counts while the file is
    open (https://docs.kernel.org/power/pm_qos_interface.html), so nothing must be undone.
    """
    try:
        os.write(os.open(device, os.O_WRONLY | os.O_CLOEXEC), struct.pack("i", 0))  # µs that waking up may take
    except OSError as error:
        return f"cores may sleep ({device}: {error.strerror})"
    return "cores stay awake"
