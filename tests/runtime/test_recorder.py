import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.contract import RobotState
from robot_rl.errors import ConfigError
from robot_rl.runtime import margins
from robot_rl.runtime.checks import CHECKS
from robot_rl.runtime.controller import Request, Tick
from robot_rl.runtime.log_messages import TOPICS, Encoder
from robot_rl.runtime.log_reader import read_log
from robot_rl.runtime.log_record import LogRecord
from robot_rl.runtime.log_ring import LogRing
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.recorder import Recorder
from robot_rl.testing.flights import PERIOD_S, TINY, Flight, record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log")


@pytest.fixture(scope="module")
def flight(folder: Path) -> Flight:
    """100 ticks up to RUN and further, recorded to log.mcap."""
    flight = record(folder / "log.mcap", folder)
    assert {tick.mode for tick, _, _ in flight.rows} >= {Mode.IDLE, Mode.DAMP, Mode.STAND, Mode.RUN}
    return flight


def test_every_number_is_read_back_bit_for_bit(flight: Flight, folder: Path) -> None:
    log = read_log(folder / "log.mcap")
    assert log.complete
    assert not log.damage
    assert log.contract == TINY.contract()
    assert [m["tick"] for m in log.messages["/mode"]] == list(range(100))
    evaluated = [tick for tick, _, _ in flight.rows if tick.policy is not None]
    assert len(log.messages["/action"]) == len(evaluated) > 10
    for (tick, state, sent), seen, told, mode, timing, said in zip(
        flight.rows, *(log.messages[t] for t in ("/state", "/command", "/mode", "/timing", "/operator")), strict=True
    ):
        assert state is not None
        for name in ("joint_pos", "joint_vel", "joint_effort"):
            np.testing.assert_array_equal(seen[name], getattr(state, name)[0])
        for name in ("position", "velocity", "effort", "kp", "kd"):
            np.testing.assert_array_equal(told[name], getattr(sent, name))
        assert (seen["stamp_s"], told["expires_s"]) == (state.stamp_s[0], sent.expires_s)
        assert (mode["t_s"], mode["mode"], mode["cause"]) == (tick.now_s, tick.mode.value, tick.cause.value)
        assert (mode["severity"], mode["margin"]) == (tick.severity.name.lower(), tick.margin)
        assert (timing["tick_s"], timing["policy_s"]) == (tick.tick_s, tick.policy_s)
        assert said["request"] == tick.operator.request
        np.testing.assert_array_equal(said["command"], tick.operator.command)
    for tick, message in zip(evaluated, log.messages["/action"], strict=True):
        for name in ("obs", "action", "target", "memory"):
            np.testing.assert_array_equal(message[name], getattr(tick.policy, name))
            assert message[name].dtype == np.float32


def test_every_field_of_a_tick_is_in_the_log() -> None:
    known = {name for fields in TOPICS.values() for name in fields} | {topic.strip("/") for topic in TOPICS}
    known |= {"now_s", "policy", "health"} | {"modified" for name in known if name.startswith("modified_")}
    assert set(Tick._fields) <= known


def test_margins_are_recorded_by_the_name_of_what_is_measured(flight: Flight, folder: Path) -> None:
    numbers = {check.margin: number for number, check in enumerate(CHECKS)}
    for (tick, _, _), message in zip(flight.rows, read_log(folder / "log.mcap").messages["/margins"], strict=True):
        assert message["state_damp"] == tick.margins[numbers[margins.state_damp]]
        assert message["joint_vel"] == tick.margins[numbers[margins.joint_vel]]
        assert message["operator_stop"] == 1.0
        # The hand has no IMU, so nothing is known of its tilt.
        assert math.isnan(message["tilt"])


def test_what_is_not_finite_keeps_its_sign_and_kind(flight: Flight, folder: Path, tmp_path: Path) -> None:
    tick, state, sent = flight.rows[-1]
    assert state is not None
    strange = state.joint_pos.copy()
    strange[0, :4] = np.nan, np.inf, -np.inf, -0.0
    with Recorder(tmp_path / "log.mcap", flight.controller) as recorder:
        recorder.record(tick._replace(age_s=np.inf), dataclasses.replace(state, joint_pos=strange), sent)
        recorder.record(tick, None, sent)
    log = read_log(tmp_path / "log.mcap")
    (seen,) = log.messages["/state"]
    assert seen["joint_pos"].tobytes() == strange[0].tobytes()
    assert [m["age_s"] for m in log.messages["/timing"]] == [np.inf, tick.age_s]


@pytest.mark.parametrize("broken", ["seven", None, [1, [2, 3]]])
def test_a_state_that_is_no_number_is_counted_and_raises_nothing(flight: Flight, tmp_path: Path, broken) -> None:
    tick, _, sent = flight.rows[-1]
    with Recorder(tmp_path / "log.mcap", flight.controller) as recorder:
        recorder.record(tick, RobotState(stamp_s=broken, joint_pos=broken, joint_vel=broken), sent)
        recorder.record(tick, None, sent)
    assert recorder.dropped == 1
    log = read_log(tmp_path / "log.mcap")
    assert [m["tick"] for m in log.messages["/mode"]] == [1]


def test_what_the_driver_changed_is_recorded_beside_what_was_asked(flight: Flight, tmp_path: Path) -> None:
    tick, state, sent = flight.rows[-1]
    clipped = dataclasses.replace(sent, position=sent.position * 0.5)
    with Recorder(tmp_path / "log.mcap", flight.controller) as recorder:
        recorder.record(tick, state, clipped)
    log = read_log(tmp_path / "log.mcap")
    np.testing.assert_array_equal(log.messages["/command"][0]["position"], clipped.position)
    np.testing.assert_array_equal(log.messages["/filtered"][0]["position"], tick.command.position)


def test_the_log_says_what_it_is_of(flight: Flight, folder: Path) -> None:
    about, bundle = read_log(folder / "log.mcap").metadata, flight.bundle
    assert about["contract_digest"] == bundle.manifest.contract_digest
    assert about["bundle_digest"] == json.loads(bundle.manifest.to_json())["digest"]
    assert (about["robot"], about["bundle"]) == ("leap_hand", "bundle")
    assert json.loads(about["safety_profile"])["state_damp_s"] == flight.controller.limits.profile.state_damp_s
    assert float(about["loop_period_s"]) == PERIOD_S


def test_tools_of_others_open_it_in_a_fresh_process(flight: Flight, folder: Path) -> None:
    """mcap's own reader by index, and protobuf's own parser by the schemas in the file: nothing of ours."""
    program = textwrap.dedent("""
        import json, sys
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        from mcap.reader import make_reader

        with open(sys.argv[1], "rb") as file:
            reader = make_reader(file, validate_crcs=True)
            summary = reader.get_summary()
            rows, classes = {}, {}
            for schema, channel, message in reader.iter_messages():
                assert (schema.encoding, channel.message_encoding) == ("protobuf", "protobuf")
                if schema.id not in classes:
                    pool = descriptor_pool.DescriptorPool()
                    for proto in descriptor_pb2.FileDescriptorSet.FromString(schema.data).file:
                        pool.Add(proto)
                    classes[schema.id] = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
                decoded = classes[schema.id].FromString(message.data)
                rows.setdefault(channel.topic, []).append((message.log_time, decoded))
        assert summary.statistics.message_count == sum(map(len, rows.values()))
        assert all(abs(times[-1][0] - times[0][0] - 99 * 50_000_000) < 1_000 for times in (rows["/mode"],))
        print(json.dumps({
            "counts": {topic: len(messages) for topic, messages in rows.items()},
            "modes": [m.mode for _, m in rows["/mode"]],
            "last": list(rows["/state"][-1][1].joint_pos),
        }))
    """)
    result = subprocess.run([sys.executable, "-c", program, folder / "log.mcap"], capture_output=True, check=True)
    found = json.loads(result.stdout)
    assert found["modes"] == [tick.mode.value for tick, _, _ in flight.rows]
    assert found["counts"]["/command"] == 100
    state = flight.rows[-1][1]
    assert state is not None
    assert found["last"] == state.joint_pos[0].tolist()


def test_a_full_ring_refuses_and_counts_and_never_blocks(flight: Flight, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "log.mcap", flight.controller, ring_bytes=16 * 1024)
    # A writer that does not run is the slowest disk there is.
    recorder._writer.send_signal(signal.SIGSTOP)
    started = time.perf_counter()
    for row in flight.rows:
        recorder.record(*row)
    assert time.perf_counter() - started < 1.0
    while_open = recorder.dropped
    recorder._writer.send_signal(signal.SIGCONT)
    recorder.close()
    ticks = [m["tick"] for m in read_log(tmp_path / "log.mcap").messages["/mode"]]
    assert 0 < len(ticks) < 100
    assert ticks == list(range(len(ticks)))
    assert recorder.dropped == while_open == 100 - len(ticks)


def test_a_writer_that_dies_is_told_and_stops_nothing(flight: Flight, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "log.mcap", flight.controller)
    recorder._writer.kill()
    recorder._writer.wait()
    for row in flight.rows:
        recorder.record(*row)
    recorder.close()
    recorder.close()
    assert recorder.error == "the process that writes it ended with -9"
    assert recorder.dropped == 100


def test_a_full_disk_is_told_and_stops_nothing(flight: Flight, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    (tmp_path / "full").symlink_to("/dev/full")
    recorder = _recorder_on(Path("/dev/full"), flight, tmp_path)
    for row in flight.rows:
        recorder.record(*row)
    recorder.close()
    assert "No space left" in recorder.error
    assert recorder.dropped == 100


def _recorder_on(device: Path, flight: Flight, tmp_path: Path) -> Recorder:
    from robot_rl.runtime import recorder as module

    original = module._create
    module._create = lambda path: (path, os.open(device, os.O_WRONLY))
    try:
        return Recorder(tmp_path / "log.mcap", flight.controller)
    finally:
        module._create = original


def test_the_writer_leaves_the_loop_its_core(flight: Flight, tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        with Recorder(tmp_path / "log.mcap", flight.controller) as recorder:
            assert os.sched_getaffinity(recorder._writer.pid) == cores
        assert os.sched_getaffinity(0) == {max(cores)}
    finally:
        os.sched_setaffinity(0, cores)


def test_a_log_that_exists_is_not_overwritten(flight: Flight, tmp_path: Path) -> None:
    (tmp_path / "log.mcap").write_bytes(b"precious")
    with Recorder(tmp_path / "log.mcap", flight.controller) as recorder:
        pass
    assert recorder.path == tmp_path / "log_2.mcap"
    assert (tmp_path / "log.mcap").read_bytes() == b"precious"


def test_a_place_that_cannot_be_written_is_refused_before_the_run(flight: Flight, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        Recorder(tmp_path / "file" / "log.mcap", flight.controller)


KILLED = textwrap.dedent("""
    import os, signal, sys, time
    from pathlib import Path
    from robot_rl.bundle.load import load_bundle
    from robot_rl.runtime.recorder import Recorder
    from robot_rl.testing.flights import Flight

    flight = Flight(load_bundle(sys.argv[1]))
    recorder = Recorder(sys.argv[2], flight.controller)
    for row in flight.ticks(400):
        recorder.record(*row)
    if sys.argv[3] == "both":
        while recorder._ring.written < 400:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(recorder._writer.pid, signal.SIGKILL)
    else:
        print(recorder._writer.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
""")


@pytest.mark.parametrize("killed", ["loop", "both"])
def test_a_run_that_is_killed_leaves_its_log(tmp_path: Path, killed: str) -> None:
    """The loop alone: nothing is missing, though it is killed right after its last tick. With the writer, once that has
    seen the last tick: the open chunk is missing."""
    bundle, path = TINY.write(tmp_path / "bundle"), tmp_path / "log.mcap"
    result = subprocess.run([sys.executable, "-c", KILLED, bundle, path, killed], capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    if killed == "loop":
        _wait_for_end(int(result.stdout))
    log = read_log(path)
    assert log.complete == (killed == "loop")
    assert log.contract == TINY.contract()
    ticks = [m["tick"] for m in log.messages["/mode"]]
    assert ticks == list(range(len(ticks)))
    assert len(ticks) == 400 if killed == "loop" else len(ticks) > 400 - 0.5 / PERIOD_S


def _wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.02)
    raise AssertionError("the writer goes on without its parent")


def test_the_black_box_holds_what_came_before_a_trip_and_just_after(folder: Path, tmp_path: Path) -> None:
    flight = Flight(load_bundle(folder / "bundle"))
    with Recorder(tmp_path / "log.mcap", flight.controller, full=False) as recorder:
        for row in flight.ticks(800):
            recorder.record(*row)
        # Standing up passed through damping, which is no trip.
        assert flight.rows[-1][0].mode == Mode.RUN
        flight.controller.request(Request.ESTOP)
        for row in flight.ticks(60):
            recorder.record(*row)
    assert not (tmp_path / "log.mcap").exists()
    (path,) = tmp_path.glob("*.mcap")
    assert path.name == "log.trip1-operator_stop.mcap"
    log = read_log(path)
    ticks, times = ([m[name] for m in log.messages["/mode"]] for name in ("tick", "t_s"))
    assert ticks == list(range(ticks[0], ticks[-1] + 1))
    assert times[ticks.index(800)] == pytest.approx(times[-1] - 1.0)
    assert times[-1] - times[0] == pytest.approx(30.0, abs=1.01 * PERIOD_S)
    assert log.messages["/mode"][-1]["mode"] == "fault"
    assert log.metadata["trip"] == "operator_stop"
    assert log.complete


def test_a_trip_at_the_very_end_is_dumped_too(folder: Path, tmp_path: Path) -> None:
    flight = Flight(load_bundle(folder / "bundle"))
    with Recorder(tmp_path / "log.mcap", flight.controller) as recorder:
        for row in flight.ticks(80):
            recorder.record(*row)
        flight.controller.request(Request.ESTOP)
        for row in flight.ticks(1):
            recorder.record(*row)
    assert read_log(tmp_path / "log.trip1-operator_stop.mcap").messages["/mode"][-1]["mode"] == "damp"


def test_part_of_a_log_is_read_by_time(flight: Flight, folder: Path) -> None:
    log = read_log(folder / "log.mcap", start_s=1.0 - 1e-6, end_s=2.0 + 1e-6)
    assert [m["tick"] for m in log.messages["/mode"]] == list(range(20, 41))


def test_ring_keeps_order_across_its_end_and_refuses_what_does_not_fit() -> None:
    """Against a list: random sizes, random looks."""
    ring, rng = LogRing(capacity=1024), np.random.default_rng(0)
    expected, taken = [], []
    refused = 0
    for k in range(5000):
        record = rng.bytes(int(rng.integers(0, 200)))
        if ring.put(record):
            expected.append(record)
        else:
            refused += 1
        if k % 5 == 0:
            taken += ring.take()
    taken += ring.take(everything=True)
    assert taken == expected
    assert 0 < refused < 4000
    assert not ring.put(bytes(2000))
    ring.close()


def test_ring_gives_only_what_was_there_at_the_last_look() -> None:
    ring = LogRing(capacity=1024)
    ring.put(b"one")
    assert ring.take() == []
    ring.put(b"two")
    assert ring.take() == [b"one"]
    assert ring.take(everything=True) == [b"two"]
    ring.close()


def test_a_record_survives_its_own_bytes() -> None:
    record_ = LogRecord(7, -3, "tilt", ((0, b"abc"), (3, b""), (9, bytes(300))))
    assert LogRecord.from_bytes(record_.to_bytes()) == record_


def test_a_tick_is_only_read_never_changed(flight: Flight) -> None:
    tick, state, sent = flight.rows[-1]
    assert state is not None
    before = (tick.command.position.copy(), state.joint_pos.copy())
    Encoder().encode(0, 0, tick, state, sent)
    np.testing.assert_array_equal(tick.command.position, before[0])
    np.testing.assert_array_equal(state.joint_pos, before[1])
