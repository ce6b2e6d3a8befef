"""Scheduling: what a control loop may ask the kernel for, and the words for what was granted."""

from __future__ import annotations

import functools
import os
import struct
from contextlib import suppress
from pathlib import Path

MOST_PRIORITY = 90
"""Above it are threads of the kernel's own, which the loop needs."""
CPU_LATENCY = Path("/dev/cpu_dma_latency")


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
