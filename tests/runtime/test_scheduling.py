"""What the kernel is asked for, and what is said of its answer."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from robot_rl.errors import ConfigError
from robot_rl.runtime import scheduling


def test_a_priority_that_is_not_granted_is_told_and_not_required(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(scheduling, "keep_cores_awake", lambda: "cores stay awake")
    assert "not granted (Operation not permitted)" in scheduling.raise_priority(50)
    assert scheduling.raise_priority(0) == "scheduling: as started"


def test_cores_are_kept_awake_by_a_request_that_stays_open(tmp_path: Path) -> None:
    device = tmp_path / "cpu_dma_latency"
    device.touch()
    assert scheduling.keep_cores_awake(device) == "cores stay awake"
    # A signed 32-bit number of microseconds, as the kernel's documentation has it.
    assert device.read_bytes() == bytes(4)
    held = [os.readlink(f) for f in Path("/proc/self/fd").iterdir() if f.is_symlink()]
    assert held.count(str(device)) == 1
    scheduling.keep_cores_awake(device)
    assert [os.readlink(f) for f in Path("/proc/self/fd").iterdir() if f.is_symlink()].count(str(device)) == 1


def test_cores_that_may_sleep_are_told_of(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    assert scheduling.keep_cores_awake(missing) == f"cores may sleep ({missing}: No such file or directory)"


def test_a_thread_that_ends_meanwhile_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def ask(thread: int, *_: object) -> None:
        asked.append(thread)
        if thread != os.getpid():
            raise ProcessLookupError(3, "No such process")

    monkeypatch.setattr(os, "sched_setscheduler", ask)
    monkeypatch.setattr(scheduling, "keep_cores_awake", lambda: "cores stay awake")
    stay = threading.Event()
    thread = threading.Thread(target=stay.wait)
    thread.start()
    assert scheduling.raise_priority(20) == "scheduling: SCHED_FIFO 20; cores stay awake"
    stay.set()
    thread.join()
    assert {os.getpid(), thread.native_id} <= set(asked)


def test_all_threads_keep_to_a_core_and_processes_for_others_do_not() -> None:
    cores = os.sched_getaffinity(0)
    last = max(cores)
    stay = threading.Event()
    thread = threading.Thread(target=stay.wait)
    thread.start()
    child = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
    try:
        assert scheduling.keep_to_cores([last]) == f"on core {last}"
        assert os.sched_getaffinity(0) == os.sched_getaffinity(thread.native_id or 0) == {last}
        with scheduling.on_any_core():
            elsewhere = subprocess.run(child, capture_output=True, text=True, check=True).stdout
        assert elsewhere.strip() == str(sorted(cores))
        assert os.sched_getaffinity(0) == {last}
    finally:
        os.sched_setaffinity(0, cores)
        stay.set()
        thread.join()
    assert scheduling.keep_to_cores(scheduling.ANY_CORE) == ""
    assert os.sched_getaffinity(0) == cores


@pytest.mark.parametrize("cores", [(), (4096,), (0, 4096), (-2,), (-1, 0)])
def test_cores_that_there_are_not_are_refused(cores: tuple[int, ...]) -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ConfigError, match=r"cores must be some of \[\d"):
        scheduling.schedule(0, cores)
    assert os.sched_getaffinity(0) == before
