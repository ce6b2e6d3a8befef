"""The fault table in process: regenerated with one seed, and proof that it would show a runtime that fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.contract import JointCommand, damping_command
from robot_rl.robots import LEAP_HAND, UNITREE_G1, get_robot
from robot_rl.runtime.checks import Cause, Severity
from robot_rl.runtime.limits import SafetyLimits
from robot_rl_sim.faults.expect import Expect
from robot_rl_sim.faults.fault import Fault
from robot_rl_sim.faults.rig import Rig, stand_up
from robot_rl_sim.faults.table import FAULTS, Case, select
from robot_rl_sim.faults.trial import Trial, judge, run_bare, run_trial, violation
from robot_rl_sim.sim_robot_config import MISMATCHED

POLICIES = Path(__file__).parents[2] / "policies"
BUNDLE = load_bundle(POLICIES / "leap_hand/leap-reach/v1")
SEED = 3_000
CASES = select(BUNDLE, LEAP_HAND)
KINDS = tuple(dict.fromkeys(c.kind for c in CASES))


@pytest.fixture(scope="module")
def running() -> Rig:
    """The hand reaching for goals, before anything breaks."""
    return stand_up(BUNDLE, LEAP_HAND, 0.01, MISMATCHED, SEED)


def rehearse(running: Rig, case: Case, expect: Expect | None, recover: bool = False) -> Trial:
    fault = case.make(LEAP_HAND, running.controller.limits)
    return run_trial(running.copy(), fault, expect, np.random.default_rng(SEED), recover=recover)


def case(name: str) -> Case:
    return next(c for c in FAULTS if c.name == name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_is_noticed_in_time_or_tolerated(running: Rig, kind: str) -> None:
    limits = running.controller.limits
    for c in CASES:
        if c.kind == kind:
            assert judge(rehearse(running, c, c.expect), c.expect, limits) == "", c.name


def test_faults_of_an_object_are_for_policies_that_handle_one_and_noticed_as_such() -> None:
    """In this phase of the motion the policy's answer gets too old before the object's pose does."""
    assert not [c for c in CASES if c.needs == "object"]
    bundle = load_bundle(POLICIES / "leap_hand/leap-cube/v1")
    cases = [c for c in select(bundle, LEAP_HAND) if c.needs == "object"]
    assert len({c.kind for c in cases}) == 7
    turning = stand_up(bundle, LEAP_HAND, 0.01, MISMATCHED, SEED)
    for c in cases:
        assert judge(rehearse(turning, c, c.expect), c.expect, turning.controller.limits) == "", c.name


def test_the_table_is_as_broad_as_promised() -> None:
    kinds = {c.kind for c in FAULTS} - {"none"}
    assert len(kinds) >= 20
    assert len([c for c in FAULTS if c.kind == "tilt_push"]) == 5
    assert len({c.name for c in FAULTS}) == len(FAULTS)
    assert all(c.reason for c in FAULTS if c.expect is None)
    assert {c.needs for c in select(load_bundle(POLICIES / "unitree_g1/g1-balance/v2"), UNITREE_G1)} >= {
        "imu",
        "deadman",
    }


def test_a_trial_is_repeated_exactly(running: Rig) -> None:
    c = case("spike/offset")
    first, second = rehearse(running, c, c.expect), rehearse(running, c, c.expect)
    assert first == second
    assert first.detected_s is not None


def test_a_fault_that_nobody_notices_fails(running: Rig) -> None:
    c, limits = case("none/none"), running.controller.limits
    expect = Expect((Cause.STATE_STALE,), Severity.HOLD, lambda _: 0.05)
    assert judge(rehearse(running, c, expect), expect, limits) == "not detected"
    expect = Expect((), Severity.DAMP, lambda _: 0.1, by="robot")
    assert judge(rehearse(running, c, expect), expect, limits) == "not detected"


def test_a_fault_noticed_for_another_reason_or_late_or_not_tolerated_fails(running: Rig) -> None:
    c, limits = case("nan/lasting"), running.controller.limits
    trial = rehearse(running, c, c.expect)
    # Two bad ticks: the second one is one period after the first.
    assert trial.detected_s == pytest.approx(limits.loop_period_s)
    wrong = Expect((Cause.TILT,), Severity.DAMP, lambda _: 1.0)
    assert judge(rehearse(running, c, wrong), wrong, limits) == "not detected; tripped by state_invalid"
    hasty = Expect((Cause.STATE_INVALID,), Severity.DAMP, lambda _: -0.005)
    assert judge(rehearse(running, c, hasty), hasty, limits) == "detected 0.0050 s too late"
    assert judge(rehearse(running, c, None), None, limits) == "not tolerated: state_invalid after 0.010 s"


@pytest.mark.parametrize("name", ["drop_state/one", "estop/pressed"])
def test_the_policy_runs_again_once_the_fault_is_over(running: Rig, name: str) -> None:
    c = case(name)
    assert rehearse(running, c, c.expect, recover=True).recovered is True


def test_a_command_outside_the_limits_fails(running: Rig) -> None:
    limits = running.controller.limits
    zero = np.zeros(16)

    def command(position=limits.default_pos, kp=limits.kp, expires_s=0.1) -> JointCommand:
        return JointCommand(np.array(position), zero, zero, np.array(kp), limits.kd, 0.0, expires_s)

    assert violation(command(), limits, LEAP_HAND) == ""
    assert violation(damping_command(limits.damping_kd, 0.0, 0.1), limits, LEAP_HAND) == ""
    outside = limits.default_pos.copy()
    outside[3] = 0.5 * (limits.upper[3] + limits.soft_upper[3])
    assert "if_dip" in violation(command(outside), limits, LEAP_HAND)
    assert "finite" in violation(command(limits.default_pos * np.nan), limits, LEAP_HAND)
    assert "exceeds" in violation(command(kp=1.5 * limits.kp), limits, LEAP_HAND)
    assert "longer than" in violation(command(expires_s=1.0), limits, LEAP_HAND)
    trial = Trial(violations=["a", "b"])
    assert judge(trial, None, limits) == "2 commands that no robot must get, first: a"


def test_the_filter_keeps_a_wild_policy_from_asking_for_wild_torque(running: Rig) -> None:
    c = case("policy_step/lasting")
    filtered = rehearse(running, c, c.expect).peaks
    bare = run_bare(running.copy(), c.make(LEAP_HAND, running.controller.limits), np.random.default_rng(SEED))
    # A target two ranges away, kp 3 N m/rad and 0.22 N m of effort limit: tens of times what the motor has.
    assert bare.torque_share > 20.0
    assert filtered.torque_share < 0.1 * bare.torque_share


def test_without_a_fault_the_bare_runner_moves_the_robot_too(running: Rig) -> None:
    rig = running.copy()
    before = rig.robot.joint_pos
    peaks = run_bare(rig, Fault(), np.random.default_rng(SEED))
    assert np.abs(rig.robot.joint_pos - before).max() > 0.1
    assert peaks.joint_pos_rad < 0.01


@pytest.mark.parametrize("folder", ["leap_hand/leap-reach/v1", "leap_hand/leap-cube/v1", "unitree_g1/g1-balance/v2"])
def test_committed_tables_are_of_these_faults_and_thresholds(folder: str) -> None:
    bundle = load_bundle(POLICIES / folder)
    spec = get_robot(bundle.contract.robot)
    data = json.loads((POLICIES / folder / "faults.json").read_text())
    assert data["contract_digest"] == bundle.contract.digest()
    limits = SafetyLimits.make(spec, bundle.contract, data["loop_period_s"])
    expected = {c.name: None if c.expect is None else c.expect.within(limits) for c in select(bundle, spec)}
    assert {name: row["threshold_s"] for name, row in data["faults"].items()} == pytest.approx(expected)
    assert data["ordinary"]["minutes"] >= 20
    assert not data["ordinary"]["problem"]


@pytest.mark.parametrize("folder", ["leap_hand/leap-reach/v1", "leap_hand/leap-cube/v1", "unitree_g1/g1-balance/v2"])
def test_committed_tables_pass(folder: str) -> None:
    data = json.loads((POLICIES / folder / "faults.json").read_text())
    assert data["passed"], data["reason"]
    assert (POLICIES / folder / "FAULTS.md").read_text().startswith("# Faults: passed")
