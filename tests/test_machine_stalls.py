"""What decides whether a failed test may be repeated."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from machine_stalls import STALL_S, StallMeter

pytestmark = pytest.mark.realtime
pytest_plugins = ["pytester"]

FAILS_TWICE = """
import json, pathlib, pytest
from machine_stalls import StallMeter
FILE = pathlib.Path({file!r})

@pytest.mark.realtime
def test_late(stall_meter):
    runs = int(FILE.read_text()) if FILE.exists() else 0
    FILE.write_text(str(runs + 1))
    if runs in {stalled}:
        stall_meter._file.open("a").write("1e12 0.05\\n")
    assert runs == 2
"""


def test_a_process_that_could_not_run_is_a_stall(tmp_path: Path) -> None:
    with StallMeter(tmp_path / "stalls.txt") as meter:
        end_s = time.monotonic() + 10.0
        while not meter.since_mark():
            # The meter itself is held up, as a machine that stands still would.
            os.kill(meter._process.pid, signal.SIGSTOP)
            time.sleep(0.1)
            os.kill(meter._process.pid, signal.SIGCONT)
            time.sleep(0.05)
            assert time.monotonic() < end_s
        assert all(length >= STALL_S for length in meter.since_mark())


def test_stalls_before_the_mark_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "stalls.txt"
    meter = StallMeter(file)
    before_s = time.monotonic() - 1.0
    meter.mark()
    file.write_text(f"{before_s:.6f} 0.050000\n{before_s + 60.0:.6f} 0.070000\n")
    assert meter.since_mark() == [0.07]


@pytest.mark.parametrize(("stalled", "outcome"), [((0, 1), {"passed": 1, "rerun": 2}), ((), {"failed": 1})])
def test_only_a_stalled_test_is_repeated(pytester, monkeypatch, tmp_path: Path, stalled: tuple, outcome: dict) -> None:
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = ros\n  realtime\n")
    pytester.makepyfile(FAILS_TWICE.format(file=str(tmp_path / "runs"), stalled=stalled))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(**{k: v for k, v in outcome.items() if k != "rerun"})
    assert result.parseoutcomes().get("rerun", 0) == outcome.get("rerun", 0)
