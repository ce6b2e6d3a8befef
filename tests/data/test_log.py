from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.contract import Command
from robot_rl.data import log as log_module
from robot_rl.data import read_dataset
from robot_rl.errors import ConfigError, RobotRLError
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.controller import Controller, Request
from robot_rl.runtime.log_reader import Log
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.recorder import Recorder
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.fakes import FakeClock, FakeRobot

# Actions large enough that the filter limits the speed of their targets.
TINY = TinyPolicy(LEAP_HAND, action_scale_rad=0.8, weight_scale=0.3)
CONTRACT = TINY.contract()
SCALE, OFFSET = np.array(CONTRACT.action.scale_rad), np.array(CONTRACT.action.offset_rad)
PERIOD_S = CONTRACT.control_period_s


@pytest.fixture(scope="module", params=[1, 2])
def flight(request, tmp_path_factory):
    """(log, ticks and what was sent) of two stretches of RUN, with one or two ticks per evaluation of the policy."""
    folder, period_s = tmp_path_factory.mktemp("log"), PERIOD_S / request.param
    clock, rng = FakeClock(), np.random.default_rng(0)
    controller = Controller(load_bundle(TINY.write(folder / "bundle")), LEAP_HAND, loop_period_s=period_s)
    robot, rows = FakeRobot(LEAP_HAND, clock), []
    command = np.zeros(3, np.float32)
    with Recorder(folder / "flight.mcap", controller) as recorder:
        for n in range(400):
            clock.advance(period_s)
            if controller.mode != Mode.RUN:
                command = np.zeros(3, np.float32)
            elif n % (5 * request.param) == 0:
                command = rng.normal(size=3).astype(np.float32)
            state = robot.read()
            tick = controller.step(state, Command(command, clock.now()), clock.now())
            sent = robot.write(tick.command)
            recorder.record(tick, state, sent)
            rows.append((tick, sent))
            if tick.mode in (Mode.IDLE, Mode.STAND):
                controller.request(Request.STAND if tick.mode == Mode.IDLE else Request.RUN)
            if n == 250:
                controller.request(Request.STAND)
    return folder / "flight.mcap", rows


def test_rows_are_evaluations_with_what_came_of_them(flight):
    path, rows = flight
    dataset = read_dataset(path)
    batch = dataset.transitions
    ticks = [tick for tick, _ in rows]
    evaluated = {tick.now_s: i for i, tick in enumerate(ticks) if tick.policy is not None}
    times = sorted(evaluated)
    changed = 0
    for k, start_s in enumerate(dataset.time_s.tolist()):
        at, following = evaluated[start_s], evaluated[times[times.index(start_s) + 1]]
        np.testing.assert_allclose(batch.obs[k], ticks[at].policy.obs, rtol=1e-6)
        np.testing.assert_allclose(batch.next_obs[k], ticks[following].policy.obs, rtol=1e-6)
        np.testing.assert_allclose(dataset.action_proposed[k], ticks[at].policy.action, atol=1e-6)
        assert all(tick.mode == Mode.RUN for tick in ticks[at:following])
        # The executed action, taken through the action specification, is the last target sent before the next obs.
        sent = rows[following - 1][1].position
        np.testing.assert_allclose(OFFSET + SCALE * batch.action[k].double().numpy(), sent, atol=1e-6)
        changed += int((np.abs(batch.action[k].numpy() - ticks[at].policy.action) > 1e-3).sum())
    assert 0 < changed < batch.action.numel()


def test_every_stretch_of_run_is_an_episode_that_is_cut_off(flight):
    path, rows = flight
    dataset = read_dataset(path)
    runs = sum(a[0].mode != Mode.RUN and b[0].mode == Mode.RUN for a, b in pairwise(rows))
    assert runs >= 2
    batch = dataset.transitions
    assert batch.terminated.sum() == 0
    assert int(batch.truncated.sum()) == len(dataset.episodes()) >= runs
    for stretch in dataset.episodes():
        np.testing.assert_array_equal(batch.next_obs[stretch][:-1], batch.obs[stretch][1:])
    assert not dataset.reward_known
    assert dataset.about["fps"] == "20"
    assert dataset.about["contract"] == CONTRACT.digest()
    assert any("the last one before RUN ended" in note for note in dataset.notes)


def messages(actions, targets, obs=None, times=None, modes=None, contract=CONTRACT, start=0.0) -> Log:
    """A log of evaluations with one tick each, all in RUN unless said otherwise."""
    n, joints = len(actions), len(SCALE)
    times = [PERIOD_S * i for i in range(n)] if times is None else times
    topics = {name: [] for name in ("/state", "/command", "/action", "/mode", "/timing")}
    for i, t in enumerate(times):
        topics["/state"].append({"t_s": t, "joint_pos": [start] * joints})
        topics["/command"].append({"t_s": t, "position": [targets[i]] * joints})
        row = {"t_s": t, "action": [actions[i]] * joints, "obs": [float(i)] if obs is None else [obs[i]]}
        topics["/action"].append(row)
        topics["/mode"].append({"t_s": t, "mode": "run" if modes is None else modes[i]})
    return Log(contract, topics, complete=True)


def read_messages(monkeypatch, log: Log):
    monkeypatch.setattr(log_module, "read_log", lambda path: log)
    return read_dataset("made.mcap")


def test_small_steps_are_counted_from_the_target_before(monkeypatch):
    """position_delta: the first step from where the joints were, the others from what was last sent."""
    spec = replace(
        CONTRACT.action, kind="position_delta", scale_rad=(0.5,) * 16, low_rad=(-3.0,) * 16, high_rad=(3.0,) * 16
    )
    log = messages([0.5, 0.5, 0.5, 0.5], [1.25, 1.5, 1.3, 1.3], contract=replace(CONTRACT, action=spec), start=1.0)
    dataset = read_messages(monkeypatch, log)
    np.testing.assert_allclose(dataset.transitions.action[:, 0], [0.5, 0.5, -0.4], atol=1e-6)


def relative(actions, **more) -> Log:
    """Every target as the action asks for it; all joints alike, so with an action specification of equal joints."""
    spec = replace(CONTRACT.action, offset_rad=(0.0,) * 16, scale_rad=(1.0,) * 16)
    return messages([0.0] * len(actions), actions, contract=replace(CONTRACT, action=spec), **more)


@pytest.mark.parametrize(
    ("log", "kept", "why"),
    [
        (
            relative([0.1, 0.2, 0.3, 0.4], times=[0.0, PERIOD_S, 3 * PERIOD_S, 4 * PERIOD_S]),
            [0, 2],
            "the next one is missing",
        ),
        (relative([0.1, 1.5, 0.3, 0.4]), [0, 2], "no action in [-1, 1] asks for the target that was executed"),
        (relative([0.1, 0.2, 0.3, 0.4], obs=[0.0, None, 2.0, 3.0]), [2], "a value is not finite"),
        (relative([0.1, 0.2, 0.3, 0.4], modes=["run", "hold", "run", "run"]), [0, 2], "the last one before RUN ended"),
    ],
)
def test_what_makes_no_transition_is_left_out_counted_and_cuts_the_episode(monkeypatch, log, kept, why):
    dataset = read_messages(monkeypatch, log)
    assert dataset.transitions.obs[:, 0].tolist() == [float(i) for i in kept]
    cuts = [float(b != a + 1) for a, b in zip(kept, [*kept[1:], -1], strict=True)]
    assert dataset.transitions.truncated.tolist() == cuts
    assert any(note.endswith(f"evaluations left out: {why}") for note in dataset.notes)


def test_logs_that_hold_no_transitions_are_refused(tmp_path, monkeypatch):
    (tmp_path / "x.mcap").write_bytes(b"nothing")
    with pytest.raises(RobotRLError, match="is no log of robot-rl"):
        read_dataset(tmp_path / "x.mcap")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_dataset(tmp_path / "none.mcap")
    with pytest.raises(ConfigError, match="has no contract"):
        read_messages(monkeypatch, replace(messages([0.0], [0.0]), contract=None))
    with pytest.raises(ConfigError, match="no two consecutive evaluations"):
        read_messages(monkeypatch, messages([0.0], [0.0]))


def test_a_log_without_an_end_says_so(monkeypatch):
    log = replace(relative([0.1, 0.2, 0.3]), complete=False)
    assert any("killed" in note for note in read_messages(monkeypatch, log).notes)
