"""What the policy node records: every tick of a run over ROS 2, which can be computed again from its log."""

from __future__ import annotations

import itertools
import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node

from robot_rl.bundle.load import load_bundle
from robot_rl.errors import LogError
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.log_reader import Log, read_log
from robot_rl.runtime.replay import replay_policy, replay_safety
from robot_rl.testing.bundles import TinyPolicy
from robot_rl_bridge import ros_compat
from robot_rl_bridge.operator import Operator

pytestmark = pytest.mark.ros

LOOP_S = 0.01
RUN_S = 1.0


@pytest.fixture
def recorded(start_node, ros_domain, tmp_path: Path):
    """(operator, policy process, bundle, log) of a policy in RUN that records."""
    bundle, log = TinyPolicy(LEAP_HAND).write(tmp_path / "bundle"), tmp_path / "run.mcap"
    start_node("emulator_node", "emulator", robot="leap_hand")
    start_node("watchdog_node", "watchdog", robot="leap_hand")
    policy = start_node("policy_node", "policy", robot="leap_hand", bundle=str(bundle), log=str(log))
    with ros_compat.ros_context([]) as executor:
        desk = Node("desk", enable_rosout=False)
        executor.add_node(desk)
        operator = Operator(desk, executor)
        operator.up()
        operator.send_command([0.1, 0.2, 0.3])
        operator.bring_to("run")
        ros_compat.spin_until(executor, time.monotonic() + RUN_S)
        yield operator, policy, bundle, log


def check_gapless(log: Log) -> None:
    """Nothing is missing between first and last tick, and the filter knew of every tick that came late."""
    assert not log.damage
    assert log.dropped == 0
    t_s, ticks = log.column("/mode", "t_s"), len(log.messages["/mode"])
    assert [m["tick"] for m in log.messages["/mode"]] == list(range(ticks))
    for topic in ("/command", "/margins", "/timing", "/operator"):
        assert len(log.messages[topic]) == ticks
    late = 1 + np.flatnonzero(np.diff(t_s) > 1.5 * LOOP_S)
    assert (np.diff(t_s) > 0.0).all()
    assert (log.column("/margins", "late")[late] < 0.0).all()
    # A state in every tick, from the first on: activation waits for one.
    assert len(log.messages["/state"]) == ticks
    assert (np.diff(log.column("/state", "stamp_s")) >= 0.0).all()


def test_a_run_over_ros_is_in_its_log_and_comes_out_the_same_again(recorded) -> None:
    operator, _, path, file = recorded
    operator.request("estop")
    operator.wait_for_mode("fault")
    operator.insist("reset", "not green")
    operator.wait_for_mode("idle")
    operator.down()
    operator.wait_for(lambda status: status["mode"] == "none", 5.0, "the end of the loop")
    log, status = read_log(file), operator.status
    assert (status["log"], status["log_dropped"]) == (str(file), "0")
    assert log.complete
    check_gapless(log)
    assert len(log.messages["/mode"]) == int(status["ticks"])
    modes = [mode for mode, _ in itertools.groupby(m["mode"] for m in log.messages["/mode"])]
    assert modes[: modes.index("idle")] in ([], ["init"])  # which lasts until a state is fresh
    assert [m for m in modes if m in ("stand", "run")][-2:] == ["stand", "run"]
    assert modes[-3:] == ["damp", "fault", "idle"]
    assert sum(m["mode"] == "run" for m in log.messages["/mode"]) >= 0.8 * RUN_S / LOOP_S
    bundle = load_bundle(path)
    said, done = replay_policy(log, bundle, 0.0), replay_safety(log, bundle, LEAP_HAND, 0.0)
    assert said.same, said.terms
    assert done.same, done.terms
    assert said.compared == len(log.messages["/action"]) > 20
    assert done.compared == len(log.messages["/mode"])


def test_the_log_of_a_killed_policy_node_is_whole_up_to_its_last_tick(recorded) -> None:
    _, policy, _, file = recorded
    killed_s = policy.send(signal.SIGKILL)
    policy.wait()
    deadline_s = time.monotonic() + 20.0
    while not (log := _read(file)).complete and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert log.complete
    check_gapless(log)
    last = log.messages["/mode"][-1]
    assert last["mode"] == "run"
    assert abs(killed_s - last["t_s"]) < 5 * LOOP_S


def _read(file: Path) -> Log:
    try:
        return read_log(file)
    except LogError:
        # While it is being written.
        return Log(None)
