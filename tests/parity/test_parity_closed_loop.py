"""Parity on runs of a policy on a simulated hand that has the mistake while it runs: `bench parity`, reduced."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from robot_rl.bundle.load import Bundle, load_bundle
from robot_rl.contract import RobotState
from robot_rl.parity.causes import Cause
from robot_rl.parity.diagnose import diagnose
from robot_rl.parity.flight import Flight
from robot_rl.robots import LEAP_HAND
from robot_rl_sim.parity.benchmark import LOOP_PERIOD_S, Case, is_it, judge, policy_path, table, to_wiggle
from robot_rl_sim.parity.expectation import errors, expect
from robot_rl_sim.parity.flights import fly
from robot_rl_sim.parity.mismatches import Mismatch, MismatchedRobot
from robot_rl_sim.sim_robot import SimRobot


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    path = Path(policy_path("leap_hand"))
    if not path.exists():
        pytest.skip("the shipped policies are not beside the sources")
    return load_bundle(path)


def test_a_good_hand_does_what_the_simulator_expects(bundle: Bundle) -> None:
    flight = fly(bundle, (), 3, LOOP_PERIOD_S)
    assert diagnose(flight).causes == ()
    error = errors(flight, expect(flight))
    # Training's noise is uniform within 0.01 rad: 0.006 rms. Its dynamics are off by a tenth, and it slips 0.02 rad.
    assert error["joint_pos"].max() < 0.02


@pytest.mark.parametrize(
    "mismatch",
    [Mismatch("sign", "joint_vel", (5,)), Mismatch("permutation", "target", (2, 9))],
    ids=["sign of a velocity", "swapped targets"],
)
def test_a_mistake_that_is_there_while_the_policy_runs(bundle: Bundle, mismatch: Mismatch) -> None:
    causes = diagnose(fly(bundle, (mismatch,), 5, LOOP_PERIOD_S)).causes
    assert len(causes) == 1
    assert is_it(causes[0], mismatch)


def test_few_rows_are_not_explained_by_a_factor_that_no_driver_has(bundle: Bundle) -> None:
    """With a lag as well, a joint that goes the wrong way once looked like one with 276 times its target."""
    case = judge(bundle, 2, 130_066)
    assert [(m.kind, m.signal) for m in case.mismatches] == [("sign", "target"), ("lag", "target")]
    assert case.wrong == ()
    assert case.missing == ()


@pytest.mark.parametrize(
    ("value", "seed"),
    [(180 / math.pi, 20_196), (math.pi / 180, 20_036)],
)
def test_a_unit_of_targets_that_drives_servos_to_their_limits(bundle: Bundle, value: float, seed: int) -> None:
    """Too few joints move freely to tell of it by themselves."""
    mismatch = Mismatch("unit", "target", (), value)
    causes = diagnose(fly(bundle, (mismatch,), seed, LOOP_PERIOD_S)).causes
    assert [is_it(cause, mismatch) for cause in causes] == [True]
    assert causes[0].value == pytest.approx(value)


def test_what_is_late_was_struck_by_the_other_mistakes_as_well() -> None:
    n = len(LEAP_HAND.joints)
    states = [
        RobotState(joint_pos=np.full((1, n), k), joint_vel=np.full((1, n), k + 1.0), stamp_s=np.array([0.01 * k]))
        for k in range(10)
    ]
    robot = cast(SimRobot, SimpleNamespace(spec=LEAP_HAND, read=iter(states).__next__))
    mistakes = [Mismatch("sign", "joints", (2,)), Mismatch("lag", "joint_vel", (), 0.03)]
    for order in (mistakes, mistakes[::-1]):
        robot.read = iter(states).__next__
        struck = MismatchedRobot(robot, order, dict.fromkeys(("joint_pos", "joint_vel"), 0.0), np.ones(n), 0)
        last = [struck.read() for _ in states][-1]
        assert last is not None
        assert (last.joint_vel[0, 1:3].tolist(), last.joint_pos[0, 1:3].tolist()) == ([7.0, -7.0], [9.0, -9.0])


def test_what_is_wiggled() -> None:
    names = tuple(f"joint_{i}" for i in range(3))
    ended, ran = (cast(Flight, SimpleNamespace(joint_names=names, mode=np.array([m]))) for m in ("damp", "run"))
    assert to_wiggle(ended, [Cause("unclear", "target", (1,)), Cause("limits", "joint_pos", (2,))]) == [*names[1:]]
    assert to_wiggle(ended, []) == [*names]
    assert to_wiggle(ran, []) == []
    assert to_wiggle(ended, [Cause("unclear", "target", (1,)), Cause("lag", "target")]) == []


def test_the_table_counts_cases_and_mistakes() -> None:
    mistake = Mismatch("lag", "target", (), 0.05)
    cases = [
        Case("leap_hand", 0, (mistake,), ((),), wiggled=True, missing=(), wrong=()),
        Case("leap_hand", 1, (mistake,), ((),), wiggled=False, missing=(mistake,), wrong=()),
    ]
    assert "| single/leap_hand | 1 | 2 | 50% |" in table(cases)
    assert "| kind/lag | 1 | 2 | 50% |" in table(cases)
    assert "| by the first flight alone | 0 | 2 | 0.0% |" in table(cases)
    assert "| by the first flight and its wiggled joints | 1 | 2 | 50.0% |" in table(cases)
