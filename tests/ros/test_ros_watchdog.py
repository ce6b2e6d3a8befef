"""The watchdog's rules, without ROS: who may command the robot, what gets through, and what a trip takes to end."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.contract import JointCommand, damping_command
from robot_rl.robots import FRANKA_PANDA, LEAP_HAND, ROBOTS, check_contract, get_robot
from robot_rl.testing.fakes import check_command
from robot_rl_bridge.receiver import CommandMessage
from robot_rl_bridge.watchdog import RELEASE_S, Trip, Watchdog, torque_free, widest_contract

pytestmark = pytest.mark.ros

P = 0.01
N = len(LEAP_HAND.joints)
DEFAULT = np.array([j.default_pos_rad for j in LEAP_HAND.joints])
KP = np.array([j.kp_nm_rad for j in LEAP_HAND.joints])
KD = np.array([j.kd_nms_rad for j in LEAP_HAND.joints])


class Sender:
    """Feeds a watchdog the way the node does."""

    def __init__(self, watchdog: Watchdog, name: str = "a", session: float = 1.0) -> None:
        self.watchdog, self.name, self.session, self.sequence = watchdog, name, session, 0

    def send(self, now: float, position=DEFAULT, kp=KP, sent=None, life=0.1, **rows) -> JointCommand | None:
        self.sequence += 1
        values = np.stack([position, rows.get("velocity", np.zeros(N)), rows.get("effort", np.zeros(N)), kp, KD])
        message = CommandMessage(self.session, self.sequence, now if sent is None else sent, life, values)
        return self.watchdog.judge(message, now) if self.watchdog.admits(self.name, now) else None

    def damp(self, now: float) -> JointCommand | None:
        return self.send(now, kp=np.zeros(N))


@pytest.fixture
def watchdog() -> Watchdog:
    watchdog = Watchdog(LEAP_HAND, P)
    watchdog.listeners(1, 0.0)
    return watchdog


@pytest.fixture
def fed(watchdog: Watchdog) -> Sender:
    """A sender whose stiff commands pass, last fed at 10.0 s."""
    sender = Sender(watchdog)
    assert sender.damp(9.99) is not None
    assert sender.send(10.0) is not None
    return sender


def test_a_sender_must_begin_without_torque(watchdog: Watchdog) -> None:
    sender = Sender(watchdog)
    assert sender.send(1.0) is None
    assert watchdog.trip == Trip.NO_SENDER
    assert sender.damp(1.01) is not None
    assert sender.send(1.02) is not None
    assert watchdog.passing


def test_nothing_passes_before_a_robot_listens() -> None:
    watchdog = Watchdog(LEAP_HAND, P)
    sender = Sender(watchdog)
    assert sender.damp(1.0) is None
    assert watchdog.trip == Trip.NO_ROBOT
    watchdog.listeners(0, 1.005)
    assert sender.damp(1.01) is None
    watchdog.listeners(2, 1.015)
    assert not watchdog.passing
    assert sender.send(1.02) is None
    assert sender.damp(1.03) is not None
    assert watchdog.trips == {}


def test_a_robot_that_no_longer_listens_trips_until_the_sender_begins_again(fed: Sender) -> None:
    watchdog = fed.watchdog
    watchdog.listeners(0, 10.005)
    assert (watchdog.trip, watchdog.tripped_s, watchdog.trips) == (Trip.NO_ROBOT, 10.005, {"no_robot": 1})
    assert fed.damp(10.01) is None
    watchdog.listeners(1, 10.015)
    assert fed.send(10.02) is None
    assert fed.damp(10.03) is not None


def test_a_stop_is_not_forgotten_when_the_robot_goes(fed: Sender) -> None:
    fed.watchdog.estop("button", 10.001)
    fed.watchdog.listeners(0, 10.005)
    assert fed.damp(10.01) is None
    assert fed.watchdog.trip == Trip.ESTOP


def test_silence_trips_after_three_ticks_and_not_before(fed: Sender) -> None:
    watchdog = fed.watchdog
    assert watchdog.deadline_s == pytest.approx(10.0 + 3 * P)
    watchdog.watch(10.0 + 3 * P - 1e-6)
    assert watchdog.passing
    watchdog.watch(10.0 + 3 * P + 1e-6)
    assert (watchdog.trip, watchdog.tripped_s) == (Trip.FEED_LOST, 10.0 + 3 * P + 1e-6)
    # Back from the dead with the old target: refused until it has damped.
    assert fed.send(10.05) is None
    assert fed.damp(10.06) is not None
    assert fed.send(10.07) is not None


def test_a_command_that_expires_sooner_trips_sooner(fed: Sender) -> None:
    fed.send(10.01, life=0.015)
    assert fed.watchdog.deadline_s == pytest.approx(10.025)
    fed.watchdog.watch(10.026)
    assert fed.watchdog.trip == Trip.EXPIRED


def test_stale_commands_do_not_count_as_food(fed: Sender) -> None:
    # The same age again and again: each arrives after it expired.
    for k in range(1, 5):
        assert fed.send(10.0 + k * P, sent=10.0 + k * P - 0.2) is None
    fed.watchdog.watch(10.0 + 3 * P)
    assert fed.watchdog.trip == Trip.FEED_LOST


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"position": DEFAULT + np.eye(N)[3] * 9.0}, f"{LEAP_HAND.joint_names[3]}: position"),
        ({"kp": KP * 2.5}, "kp"),
        ({"effort": np.full(N, 50.0)}, "effort"),
        ({"velocity": np.full(N, -1e3)}, "velocity"),
    ],
)
def test_a_command_outside_the_limits_trips_and_names_it(fed: Sender, change: dict, name: str) -> None:
    assert fed.send(10.01, **change) is None
    assert fed.watchdog.trip == Trip.LIMIT
    assert name in fed.watchdog.reason
    assert fed.send(10.02) is None
    assert fed.damp(10.03) is not None


def test_a_position_without_stiffness_is_no_excess(fed: Sender) -> None:
    assert fed.send(10.01, position=np.full(N, 99.0), kp=np.zeros(N)) is not None


def test_a_malformed_command_trips(fed: Sender) -> None:
    fed.watchdog.malformed(ValueError("position not finite"), 10.01)
    assert (fed.watchdog.trip, fed.watchdog.reason) == (Trip.MALFORMED, "position not finite")


def test_one_sender_at_a_time_until_it_has_been_silent_for_long(fed: Sender) -> None:
    watchdog, rival = fed.watchdog, Sender(fed.watchdog, "b", 2.0)
    assert rival.damp(10.005) is None
    assert watchdog.refused == {"b": 1}
    assert watchdog.passing
    watchdog.watch(10.1)
    # Silent, and damped, but not yet given up.
    assert rival.damp(10.0 + RELEASE_S - 0.01) is None
    assert rival.damp(10.0 + RELEASE_S + 0.01) is not None
    assert fed.damp(10.0 + RELEASE_S + 0.02) is None
    assert watchdog.sender == "b"


def test_a_stop_outranks_and_outlasts_everything_but_a_reset(fed: Sender) -> None:
    watchdog = fed.watchdog
    watchdog.watch(11.0)
    watchdog.estop("button", 11.1)
    assert watchdog.trip == Trip.ESTOP
    assert fed.damp(11.2) is None
    watchdog.reset(11.3)
    assert not watchdog.passing
    assert fed.send(11.4) is None
    assert fed.damp(11.5) is not None


@pytest.mark.parametrize("name", ROBOTS)
def test_the_widest_contract_is_just_accepted_by_its_robot(name: str) -> None:
    robot = get_robot(name)
    contract = widest_contract(robot, P)
    check_contract(contract, robot)
    joint = contract.joints[0]
    for change in ({"kp_nm_rad": joint.kp_nm_rad * 1.01}, {"upper_rad": joint.upper_rad + 0.01}):
        wider = replace(contract, joints=(replace(joint, **change), *contract.joints[1:]))
        with pytest.raises(Exception, match=joint.name):
            check_contract(wider, robot)


any_float = st.floats(allow_nan=False, allow_infinity=False, width=64)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.lists(st.one_of(any_float, st.floats(-2, 2)), min_size=7, max_size=7), min_size=5, max_size=5),
    life=st.floats(1e-3, 1.0),
)
def test_whatever_passes_is_a_command_that_the_robot_may_get(rows: list, life: float) -> None:
    watchdog = Watchdog(FRANKA_PANDA, P)
    watchdog.listeners(1, 0.0)
    n = 7
    zero = damping_command(np.full(n, 0.1), 0.0, 0.1)
    start = CommandMessage(1.0, 1, 0.0, 0.1, np.stack([zero.position, zero.velocity, zero.effort, zero.kp, zero.kd]))
    assert watchdog.admits("a", 0.0)
    watchdog.judge(start, 0.0)
    assert watchdog.passing
    values = np.array(rows, np.float64)[:, :n]
    values[3:] = np.abs(values[3:])
    command = watchdog.judge(CommandMessage(1.0, 2, P, life, values), P)
    if command is not None:
        check_command(command, FRANKA_PANDA)
    else:
        assert watchdog.trip == Trip.LIMIT


def test_torque_free_means_no_stiffness_effort_or_velocity() -> None:
    damping = damping_command(KD, 0.0, 0.1)
    assert torque_free(damping)
    for row in ("kp", "effort", "velocity"):
        assert not torque_free(replace(damping, **{row: np.eye(N)[0]}))


def test_the_watchdog_process_loads_neither_policies_nor_simulators() -> None:
    code = (
        "import sys, robot_rl_bridge.watchdog_node\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'mujoco', 'onnx', 'onnxruntime'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert math.isfinite(Watchdog(LEAP_HAND, P).limits.time_to_live_s)
