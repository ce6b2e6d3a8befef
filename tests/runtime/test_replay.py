import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.commands.main import main
from robot_rl.errors import LogError
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.controller import Request
from robot_rl.runtime.log_reader import Log, read_log
from robot_rl.runtime.recorder import Recorder
from robot_rl.runtime.replay import Difference, replay_policy, replay_safety
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.flights import TINY, Flight

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a trip and a reset, twice into RUN: log.mcap, its black box, and the bundle."""
    folder = tmp_path_factory.mktemp("replay")
    flight = Flight(load_bundle(TINY.write(folder / "bundle")))
    with Recorder(folder / "log.mcap", flight.controller) as recorder:
        for row in flight.ticks(120):
            recorder.record(*row)
        flight.controller.request(Request.ESTOP)
        for row in flight.ticks(40):
            recorder.record(*row)
        flight.controller.request(Request.RESET)
        for row in flight.ticks(100):
            recorder.record(*row)
    assert recorder.dropped == 0
    return folder


@pytest.fixture
def log(folder: Path) -> Log:
    return read_log(folder / "log.mcap")


def test_the_same_bundle_says_and_does_the_same(folder: Path, log: Log) -> None:
    bundle = load_bundle(folder / "bundle")
    policy, safety = replay_policy(log, bundle, 0.0), replay_safety(log, bundle, LEAP_HAND, 0.0)
    assert policy.same
    assert safety.same
    assert policy.compared == len(log.messages["/action"]) > 60
    assert safety.compared == 260
    assert not policy.skipped
    assert {"obs/joint_pos", "obs/command", "obs/last_action", "target", "action"} == set(policy.terms)
    assert {"mode", "cause", "margin", "modified_rate_limit", "command/position", "command/kp"} <= set(safety.terms)


def test_a_measurement_that_was_altered_is_found_in_its_tick_and_joint(folder: Path, log: Log) -> None:
    at = log.messages["/action"][20]["tick"]
    (state,) = (m for m in log.messages["/state"] if m["tick"] == at)
    state["joint_pos"][3] += 0.02
    found = replay_policy(log, load_bundle(folder / "bundle"), TOLERANCE).terms
    term = found["obs/joint_pos"]
    assert (term.differing, found["obs/last_action"].differing, found["obs/command"].differing) == (1, 0, 0)
    assert term.first is not None
    assert (term.first.tick, term.first.part) == (at, "3")
    assert term.first.size == pytest.approx(0.02, rel=1e-3)
    # What follows from it in the policy, by hand: action = tanh(obs W), target = offset + scale action.
    action = next(m for m in log.messages["/action"] if m["tick"] == at)
    obs = action["obs"].astype(np.float64)
    obs[TINY.frame_dim + 3] += 0.02
    expected = np.abs(np.tanh(obs @ TINY.weight()) - action["action"])
    assert found["action"].largest is not None
    assert found["action"].largest.size == pytest.approx(expected.max(), rel=1e-3)
    assert found["action"].largest.part == LEAP_HAND.joint_names[int(expected.argmax())]


def test_other_weights_are_a_difference_of_the_policy_alone(folder: Path, log: Log, tmp_path: Path) -> None:
    other = load_bundle(dataclasses.replace(TINY, seed=5).write(tmp_path / "other"))
    policy, safety = replay_policy(log, other, TOLERANCE), replay_safety(log, other, LEAP_HAND, TOLERANCE)
    assert {term for term, r in policy.terms.items() if r.differing} == {"action", "target"}
    # An observation of zeros, as in the first ticks of RUN, leads to the same action whatever the weights.
    assert policy.terms["action"].differing == sum(np.abs(m["obs"]).max() > 1e-3 for m in log.messages["/action"]) > 100
    assert safety.same


def test_another_safety_profile_is_a_difference_of_the_filter_alone(folder: Path, log: Log) -> None:
    bundle = load_bundle(folder / "bundle")
    profile = json.loads(log.metadata["safety_profile"])
    profile["target_rate_limit_rad_s"] = [1e-3 * v for v in profile["target_rate_limit_rad_s"]]
    log.metadata["safety_profile"] = json.dumps(profile)
    assert replay_policy(log, bundle, TOLERANCE).same
    differing = {t for t, r in replay_safety(log, bundle, LEAP_HAND, TOLERANCE).terms.items() if r.differing}
    assert {"modified_rate_limit", "command/position"} <= differing
    assert "mode" not in differing


def test_a_request_that_was_not_recorded_is_noticed(folder: Path, log: Log) -> None:
    for message in log.messages["/operator"]:
        message["stop"] = False
    safety = replay_safety(log, load_bundle(folder / "bundle"), LEAP_HAND, TOLERANCE)
    first = safety.terms["mode"].first
    assert first is not None
    assert (first.tick, first.recorded, first.replayed) == (120, "damp", "run")


def test_where_ticks_are_missing_the_policy_alone_is_replayed(folder: Path, log: Log) -> None:
    bundle = load_bundle(folder / "bundle")
    for topic in log.messages:
        log.messages[topic] = [m for m in log.messages[topic] if m["tick"] != 90]
    assert replay_policy(log, bundle, 0.0).same
    with pytest.raises(LogError, match="the log lacks its beginning or some of them"):
        replay_safety(log, bundle, LEAP_HAND, TOLERANCE)


def test_a_black_box_that_begins_in_run_is_replayed(folder: Path) -> None:
    box = read_log(folder / "log.trip1-operator_stop.mcap", start_s=5.0)
    assert box.messages["/mode"][0]["mode"] == "run"
    replay = replay_policy(box, load_bundle(folder / "bundle"), 0.0)
    assert replay.same
    assert replay.compared > 10


def test_a_bundle_of_other_sizes_is_not_compared(folder: Path, log: Log, tmp_path: Path) -> None:
    longer = load_bundle(TinyPolicy(LEAP_HAND, history_length=3).write(tmp_path / "longer"))
    replay = replay_policy(log, longer, TOLERANCE)
    assert replay.compared == 0
    assert sum(replay.skipped.values()) == len(log.messages["/action"])


@pytest.mark.parametrize(
    ("recorded", "replayed", "size"),
    [
        (0.5, 0.6, 0.1),
        (-200.0, -198.0, 0.01),
        (1.0, np.nan, np.inf),
        (np.inf, -np.inf, np.inf),
        ("run", "damp", np.inf),
    ],
)
def test_size_of_a_difference(recorded: float | str, replayed: float | str, size: float) -> None:
    assert Difference(0, 0.0, "x", "", recorded, replayed).size == pytest.approx(size)


def test_the_verb_finds_the_bundle_by_its_digest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(folder / "log.mcap")]) == 0
    out = capsys.readouterr().out
    assert "(as recorded)" in out
    assert "safety/ticks" in out


def test_the_verb_names_what_differs(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = dataclasses.replace(TINY, seed=5).write(tmp_path / "other.zip")
    assert main(["replay", str(folder / "log.mcap"), str(other), "--json", str(tmp_path / "r.json")]) == 1
    captured = capsys.readouterr()
    assert "comes out otherwise: policy/target, policy/action" in captured.err
    assert "(another one)" in captured.out
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["details"]["policy"]["action"]["most"]["part"] in LEAP_HAND.joint_names


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda folder, tmp: folder / "none.mcap", 2, "cannot be read"),
        (lambda folder, tmp: folder / "bundle" / "manifest.json", 1, "is no log of robot-rl"),
        (lambda folder, tmp: _copy(folder / "log.mcap", tmp / "log.mcap"), 2, "no bundle with digest"),
    ],
)
def test_the_verb_refuses_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, make, code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["replay", str(make(folder, tmp_path))]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def _copy(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes())
    return target
