"""The machine: processor, real-time permissions, clock, disk, graphics. `root` is where /proc, /sys and /dev begin."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from robot_rl.doctor.finding import Finding, ok, warn
from robot_rl.doctor.software import installed, version_of

MIN_DISK_GB = 2.0
MIN_WRITE_MB_S = 10.0
"""A humanoid at 500 Hz writes 3 MB/s, before compression."""
_WRITE_BYTES, _WRITE_S = 32 * 1024 * 1024, 2.0
MIN_MEMLOCK = 512 * 1024 * 1024
_SYS_NICE, _IPC_LOCK = 23, 14
"""Capabilities (linux/capability.h)."""
_SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit")
_STA_UNSYNC, _TIME_ERROR = 0x0040, 5
"""adjtimex(2)."""
_RIGHTS = (
    "add '<user> - rtprio 80' and '<user> - memlock unlimited' to /etc/security/limits.d/robot.conf and log in again; "
    "in a container --ulimit rtprio=80 --ulimit memlock=-1 --cap-add SYS_NICE"
)
ROOT = Path("/")


def check_cpu(root: Path = ROOT) -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    findings = [
        ok("cpu cores", str(cores)) if cores >= 2 else warn("cpu cores", str(cores), "the demo is timed for two cores")
    ]
    files = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
    governors = {_text(file) for file in files}
    if not files:
        findings.append(ok("cpu governor", "none: this machine does not change its clock, or does not tell"))
    elif governors == {"performance"}:
        findings.append(ok("cpu governor", f"performance on {len(files)} cores"))
    else:
        fix = "cpupower frequency-set -g performance, on the machine that runs the robot"
        found = f"{', '.join(sorted(governors))}: changes of the clock slow a control loop down"
        findings.append(warn("cpu governor", found, fix))
    return findings


def check_real_time(root: Path = ROOT) -> list[Finding]:
    limits = _limits(root / "proc/self/limits")
    if limits is None:
        return [warn("real-time", f"no real-time scheduling on {sys.platform}", "run robots from Linux")]
    capabilities = _capabilities(root / "proc/self/status")
    priority, locked = limits.get("Max realtime priority", 0), limits.get("Max locked memory", 0)
    may_raise = priority > 0 or bool(capabilities >> _SYS_NICE & 1)
    may_lock = locked >= MIN_MEMLOCK or bool(capabilities >> _IPC_LOCK & 1)
    kernel = "PREEMPT_RT kernel" if _text(root / "sys/kernel/realtime") == "1" else "ordinary kernel"
    if may_raise and root == ROOT and not _can_raise():
        found = "SCHED_FIFO is permitted by the limits, and refused by the kernel"
        findings = [warn("real-time", found, "run the process in a control group that has real-time budget")]
    elif may_raise:
        rights = f"up to {int(priority)}" if priority else "by capability"
        findings = [ok("real-time", f"SCHED_FIFO is permitted {rights}, {kernel}")]
    else:
        found = f"SCHED_FIFO is not permitted (RLIMIT_RTPRIO is 0), {kernel}; loops above 200 Hz want it"
        findings = [warn("real-time", found, _RIGHTS)]
    if may_lock:
        findings.append(ok("locked memory", "enough"))
    else:
        found = f"RLIMIT_MEMLOCK is {locked / 2**20:.0f} MiB: a page that was swapped out stops a loop for milliseconds"
        findings.append(warn("locked memory", found, _RIGHTS))
    if _text(root / "proc/sys/kernel/sched_rt_runtime_us") == "0":
        fix = "sysctl kernel.sched_rt_runtime_us=950000"
        findings.append(warn("real-time budget", "real-time tasks get no time (sched_rt_runtime_us is 0)", fix))
    return findings


def check_sleep(root: Path = ROOT) -> list[Finding]:
    """Whether a control process may keep the cores from sleeping between two ticks."""
    device = root / "dev/cpu_dma_latency"
    if not device.exists():
        return [ok("cpu sleep", "this kernel takes no requests about it")]
    if os.access(device, os.W_OK):
        return [ok("cpu sleep", f"nodes with realtime_priority keep the cores awake ({device})")]
    found = f"{device} is not writable: a core that slept for a millisecond is late, and slow at first"
    rule = 'KERNEL=="cpu_dma_latency", GROUP="realtime", MODE="0660"'
    return [warn("cpu sleep", found, f"put {rule} into /etc/udev/rules.d/99-robot.rules, and the user into that group")]


def _can_raise() -> bool:
    """Try it, for a moment."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return False
    os.sched_setscheduler(0, *before)
    return True


def check_clock(root: Path = ROOT) -> list[Finding]:
    """What the monotonic clock reads, whether sleeping returns on time, and whether somebody sets the wall clock."""
    resolution_s = time.get_clock_info("monotonic").resolution
    late_s = 0.0
    for _ in range(20):
        before = time.monotonic()
        time.sleep(0.002)
        late_s = max(late_s, time.monotonic() - before - 0.002)
    found = f"resolution {resolution_s * 1e9:.0f} ns, sleep at most {late_s * 1e3:.2f} ms late"
    if resolution_s > 1e-4 or late_s > 0.01:
        findings = [warn("clock", found, "close what else is running; a control loop would miss deadlines")]
    else:
        findings = [ok("clock", found)]
    source = _text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source in _SLOW_CLOCKS:
        others = _text(root / "sys/devices/system/clocksource/clocksource0/available_clocksource")
        fix = f"boot with clocksource=tsc, if the kernel trusts it (available: {others}); see dmesg for why it does not"
        findings.append(warn("clock source", f"{source}: reading the time takes a microsecond and more", fix))
    elif source:
        findings.append(ok("clock source", source))
    return [*findings, _time_sync()]


def _time_sync() -> Finding:
    synchronised = clock_is_synchronised()
    if synchronised is None:
        return ok("wall clock", "not known on this system; the control loop does not use it")
    if synchronised:
        return ok("wall clock", "synchronised")
    fix = "timedatectl set-ntp true, or install chrony; logs of several machines line up by it"
    return warn("wall clock", "not synchronised", fix)


def clock_is_synchronised() -> bool | None:
    """What the kernel says (adjtimex, which every time service tells); None where it cannot be asked."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    # struct timex: modes (0: only read), padding, offset, freq, maxerror, esterror, status, ...; 208 bytes in all.
    buffer = (ctypes.c_byte * 256)()
    state = adjtimex(buffer)
    if state < 0:
        return None
    words = ctypes.sizeof(ctypes.c_long)
    status = ctypes.c_int.from_buffer(buffer, words * 5).value
    return state != _TIME_ERROR and not status & _STA_UNSYNC


def check_disk(folder: Path | None = None) -> list[Finding]:
    """Space, and how fast a log can be written, where the verbs are run."""
    folder = Path.cwd() if folder is None else folder
    free_gb = shutil.disk_usage(folder).free / 1e9
    found = f"{free_gb:.1f} GB free in {folder}"
    enough = free_gb >= MIN_DISK_GB
    findings = [ok("disk", found) if enough else warn("disk", found, f"runs and logs want {MIN_DISK_GB:g} GB")]
    try:
        speed = write_speed_mb_s(folder)
    except OSError as error:
        return [*findings, warn("disk speed", f"{folder} cannot be written: {error}", "run from a folder of yours")]
    if speed < MIN_WRITE_MB_S:
        fix = "record to another disk (--record), or black boxes only (--trips-only)"
        return [*findings, warn("disk speed", f"{speed:.1f} MB/s; a log may need 3", fix)]
    return [*findings, ok("disk speed", f"{speed:.0f} MB/s")]


def write_speed_mb_s(folder: Path) -> float:
    """Of a file that is really on the disk, within about _WRITE_S."""
    block, written = os.urandom(1024 * 1024), 0
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        while written < _WRITE_BYTES and time.perf_counter() - started < _WRITE_S:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written += len(block)
        return written / 1e6 / (time.perf_counter() - started)


def check_rendering(root: Path = ROOT) -> list[Finding]:
    if sys.platform != "linux":
        return [ok("rendering", "native")]
    libraries = {name: ctypes.util.find_library(name) for name in ("EGL", "GL")}
    absent = [name for name, found in libraries.items() if found is None]
    if absent:
        fix = "apt install libegl1 libgl1 libgl1-mesa-dri (videos need it, training does not)"
        return [warn("rendering", f"no lib{', lib'.join(absent)}", fix)]
    devices = sorted(root.glob("dev/dri/renderD*"))
    closed = [device.name for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if devices and len(closed) == len(devices):
        fix = "usermod -aG render,video <user>, and log in again; until then rendering is in software"
        return [warn("rendering", f"no access to {', '.join(closed)}", fix)]
    how = f"EGL, {', '.join(device.name for device in devices)}" if devices else "EGL, in software"
    return [ok("rendering", how)]


def check_gpu(root: Path = ROOT) -> list[Finding]:
    driver = _text(root / "proc/driver/nvidia/version").splitlines()[:1]
    if not driver:
        return [ok("gpu", "none; training runs on the CPU")]
    if installed("torch") and "+cpu" in version_of("torch"):
        fix = "install a CUDA build of torch (pytorch.org), of the same version"
        return [warn("gpu", f"{driver[0]}; torch {version_of('torch')} does not use it", fix)]
    return [ok("gpu", driver[0])]


def _text(file: Path) -> str:
    """Content of a file of the kernel; empty if there is none."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _limits(file: Path) -> dict[str, float] | None:
    """Name -> soft limit, as in /proc/self/limits; None where there is no such file."""
    lines = _text(file).splitlines()[1:]
    limits = {}
    for line in lines:
        words = line[26:].split()
        if words:
            limits[line[:26].strip()] = float("inf") if words[0] == "unlimited" else float(words[0])
    return limits or None


def _capabilities(file: Path) -> int:
    """Effective capabilities as bits."""
    for line in _text(file).splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
