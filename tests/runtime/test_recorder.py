import math
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader

from robot_rl.bundle.load import load_bundle
from robot_rl.contract import Command
from robot_rl.errors import RobotRLError
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime import recorder as recorder_module
from robot_rl.runtime.controller import Controller, Request, Tick
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.recorder import TOPICS, Recorder, read_log
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.fakes import FakeClock, FakeRobot

TINY = TinyPolicy(LEAP_HAND)


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory):
    """(tick, state, sent) of a run up to RUN and a bit further, ending without a state."""
    bundle = load_bundle(TINY.write(tmp_path_factory.mktemp("b") / "bundle"))
    clock = FakeClock()
    robot, controller = FakeRobot(LEAP_HAND, clock), Controller(bundle, LEAP_HAND)
    rows = []
    while len(rows) < 80:
        clock.advance(0.05)
        state = robot.read() if len(rows) < 79 else None
        tick = controller.step(state, Command(np.zeros(3, np.float32), clock.now()), clock.now())
        rows.append((tick, state, robot.write(tick.command)))
        if tick.mode in (Mode.IDLE, Mode.STAND):
            controller.request(Request.STAND if tick.mode == Mode.IDLE else Request.RUN)
    assert {t.mode for t, _, _ in rows} >= {Mode.IDLE, Mode.DAMP, Mode.STAND, Mode.RUN}
    return rows


def test_what_is_recorded_is_read_back(flight, tmp_path: Path) -> None:
    with Recorder(tmp_path / "log.mcap", TINY.contract()) as recorder:
        for row in flight:
            recorder.record(*row)
    log = read_log(tmp_path / "log.mcap")
    assert log.complete
    assert log.contract == TINY.contract()
    assert recorder.dropped == 0
    evaluated = [row for row in flight if row[0].policy is not None]
    counts = {topic: len(messages) for topic, messages in log.messages.items()}
    assert counts == {"/state": 79, "/command": 80, "/action": len(evaluated), "/mode": 80, "/timing": 80}
    tick, state, sent = flight[70]
    assert log.messages["/state"][70]["joint_pos"] == state.joint_pos[0].tolist()
    assert log.messages["/command"][70]["position"] == sent.position.tolist()
    assert log.messages["/mode"][70]["mode"] == tick.mode.value
    last, _, _ = evaluated[-1]
    assert log.messages["/action"][-1]["obs"] == pytest.approx(last.obs.tolist())
    # A number that is not finite is null: JSON has no word for it.
    assert math.isinf(flight[-1][0].age_s)
    assert log.messages["/timing"][-1]["age_s"] is None


def test_other_readers_find_an_index_and_schemas(flight, tmp_path: Path) -> None:
    with Recorder(tmp_path / "log.mcap", TINY.contract()) as recorder:
        for row in flight:
            recorder.record(*row)
    with (tmp_path / "log.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert {c.topic for c in summary.channels.values()} == set(TOPICS)
    assert {s.encoding for s in summary.schemas.values()} == {"jsonschema"}


def test_a_full_queue_drops_and_counts_and_never_blocks(flight, tmp_path: Path, monkeypatch) -> None:
    # The writing thread is kept from ever taking anything.
    monkeypatch.setattr(recorder_module.Recorder, "_drain", lambda self: None)
    recorder = Recorder(tmp_path / "log.mcap", TINY.contract(), queue_ticks=10)
    for row in flight:
        recorder.record(*row)
    assert recorder.dropped == 70


def test_a_full_disk_is_reported_and_stops_nothing(flight, tmp_path: Path, monkeypatch) -> None:
    recorder = Recorder(tmp_path / "log.mcap", TINY.contract())

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder._writer, "add_message", full)
    for row in flight:
        recorder.record(*row)
    recorder.close()
    recorder.close()
    assert recorder.error is not None
    assert recorder.dropped == 80


def test_a_log_without_an_end_is_recovered_but_for_its_open_chunk(tmp_path: Path) -> None:
    """kill -9 in the middle of a recording."""
    program = textwrap.dedent("""
        import os, signal, sys, time
        import numpy as np
        from robot_rl.bundle.load import load_bundle
        from robot_rl.robots import LEAP_HAND
        from robot_rl.runtime.controller import Controller
        from robot_rl.runtime.recorder import Recorder
        from robot_rl.testing.fakes import FakeClock, FakeRobot

        bundle = load_bundle(sys.argv[1])
        clock = FakeClock()
        robot, controller = FakeRobot(LEAP_HAND, clock), Controller(bundle, LEAP_HAND)
        recorder = Recorder(sys.argv[2], bundle.contract)
        for _ in range(400):
            clock.advance(0.05)
            state = robot.read()
            tick = controller.step(state, None, clock.now())
            recorder.record(tick, state, tick.command)
        while not recorder._queue.empty():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    bundle, path = TINY.write(tmp_path / "bundle"), tmp_path / "log.mcap"
    result = subprocess.run([sys.executable, "-c", program, bundle, path], check=False)
    assert result.returncode == -9
    log = read_log(path)
    assert not log.complete
    assert log.contract == TINY.contract()
    size = sum(len(str(m)) for messages in log.messages.values() for m in messages) / 400
    # All but a chunk of 64 KiB; a tick is about two.
    assert len(log.messages["/mode"]) >= 400 - 65536 / max(size, 500) - 2


def test_cut_anywhere_it_yields_what_came_before(flight, tmp_path: Path) -> None:
    path = tmp_path / "log.mcap"
    with Recorder(path, TINY.contract()) as recorder:
        for row in flight:
            recorder.record(*row)
    data = path.read_bytes()
    previous = -1
    for share in np.linspace(0.05, 0.98, 15):
        path.write_bytes(data[: int(share * len(data))])
        found = len(read_log(path).messages["/mode"])
        assert found >= previous
        previous = found
    assert previous == 80


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 1000])
def test_a_file_that_is_no_log(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.mcap").write_bytes(content)
    with pytest.raises(RobotRLError, match="is no MCAP file"):
        read_log(tmp_path / "log.mcap")


def test_tick_is_only_read_never_changed(flight, tmp_path: Path) -> None:
    tick: Tick = flight[70][0]
    before = tick.command.position.copy()
    with Recorder(tmp_path / "log.mcap", TINY.contract()) as recorder:
        recorder.record(*flight[70])
    np.testing.assert_array_equal(tick.command.position, before)
