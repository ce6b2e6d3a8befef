"""Which backup takes over: the tables themselves, and the controller on a fake robot that falls back."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from controller_rig import PERIOD_S, Rig, answering, freeze, tiny

from robot_rl.bundle.load import load_bundle
from robot_rl.errors import BundleError, ConfigError, ContractError
from robot_rl.robots import LEAP_HAND, ROBOTS, UNITREE_G1, RobotSpec
from robot_rl.robots.spec import BACKUPS
from robot_rl.runtime.backups import TIERS, TRUSTED_AFTER, Information, choose, trusted
from robot_rl.runtime.checks import Cause, Severity, Target
from robot_rl.runtime.controller import Controller, Request
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.measurement import Measurement
from robot_rl.runtime.modes import STIFF_MODES, Mode
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.fakes import with_field

NAMES = tuple(t.name for t in TIERS)
PREFERENCES = [
    tuple(name for name, wanted in zip(NAMES, picked, strict=True) if wanted)
    for picked in itertools.product((True, False), repeat=3)
    for picked in [(*picked, True)]
]


# --- the pure choice --------------------------------------------------------------------------------


def test_each_tier_needs_less_than_the_one_above_and_the_last_nothing() -> None:
    needs = [t.needs for t in TIERS]
    assert needs == sorted(needs, reverse=True)
    assert len(set(needs)) == len(needs)
    assert needs[-1] == Information.NOTHING


@pytest.mark.parametrize("tiers", PREFERENCES)
@pytest.mark.parametrize("known", Information)
@pytest.mark.parametrize("current", [None, *NAMES])
def test_the_choice_is_the_best_that_is_trusted_and_never_above_the_present_one(tiers, known, current) -> None:
    chosen = choose(tiers, known, current)
    # By hand: those of the profile that are trusted and not above; the first of them.
    first = NAMES.index(current) if current else 0
    needs = {"recovery": 3, "home": 2, "hold": 1, "damp": 0}
    assert chosen == next(n for n in NAMES[first:] if n in tiers and needs[n] <= known)


@pytest.mark.parametrize(
    ("robot", "known", "tier"),
    [
        # Rows of the safety specification: what each kind of robot does when all is trusted, and when less is.
        ("leap_hand", Information.POLICY, "hold"),
        ("leap_hand", Information.JOINTS, "hold"),
        ("leap_hand", Information.NOTHING, "damp"),
        ("shadow_hand", Information.POLICY, "hold"),
        ("franka_panda", Information.POLICY, "hold"),
        ("unitree_g1", Information.POLICY, "recovery"),
        ("unitree_g1", Information.BASE, "damp"),
        ("unitree_g1", Information.JOINTS, "damp"),
    ],
)
def test_the_robots_own_preferences(robot: str, known: Information, tier: str) -> None:
    assert choose(ROBOTS[robot].safety.backup, known) == tier


@pytest.mark.parametrize(
    ("kind", "known", "tier"),
    [
        ("fixed_base", 1, "hold"),
        ("fixed_base", 0, "damp"),
        ("hand", 1, "hold"),
        ("quadruped", 2, "home"),
        ("quadruped", 1, "damp"),
        ("biped", 3, "recovery"),
        ("biped", 2, "damp"),
        ("arm_with_payload", 1, "hold"),
        ("arm_with_payload", 0, "damp"),
    ],
)
def test_the_preferences_of_each_kind_of_robot(kind: str, known: int, tier: str) -> None:
    assert choose(BACKUPS[kind], Information(known)) == tier
    # A robot that has no recovery policy is damped at once.
    assert choose(("damp",), Information(known)) == "damp"


def limits(robot: RobotSpec, *, recovery: bool = True) -> SafetyLimits:
    return SafetyLimits.make(robot, TinyPolicy(robot, control_period_s=0.02).contract(), 0.02, recovery=recovery)


def measured(robot: RobotSpec, *, imu: bool = True) -> Measurement:
    zero = np.zeros(len(robot.joints))
    return Measurement(0.0, zero, zero, np.array([1.0, 0, 0, 0]) if imu else None, np.zeros(3) if imu else None)


RUNNING = Target(np.zeros(29), "policy")


@pytest.mark.parametrize(
    ("cause", "known"),
    [
        (Cause.STATE_INVALID, Information.NOTHING),
        (Cause.STATE_JUMP, Information.NOTHING),
        (Cause.CLOCK, Information.NOTHING),
        (Cause.STATE_STALE, Information.JOINTS),
        (Cause.OVERRUN, Information.JOINTS),
        (Cause.BATTERY, Information.BASE),
        (Cause.JOINT_VEL, Information.POLICY),
        (Cause.POLICY_ERROR, Information.POLICY),
    ],
)
def test_what_a_cause_leaves_to_be_trusted(cause: Cause, known: Information) -> None:
    assert trusted(cause, measured(UNITREE_G1), RUNNING, limits(UNITREE_G1)) == known


@pytest.mark.parametrize("cause", Cause)
def test_nothing_makes_more_trusted_than_its_sources(cause: Cause) -> None:
    g1, hand = limits(UNITREE_G1), limits(LEAP_HAND)
    assert trusted(cause, None, RUNNING, g1) == Information.NOTHING
    assert trusted(cause, measured(UNITREE_G1, imu=False), RUNNING, g1) <= Information.JOINTS
    assert trusted(cause, measured(UNITREE_G1), Target(np.zeros(29), "stand"), g1) <= Information.BASE
    # A hand is bolted down: without an IMU it knows which way is up.
    assert trusted(cause, measured(LEAP_HAND, imu=False), RUNNING, hand) == TRUSTED_AFTER.get(cause, Information.POLICY)


@pytest.mark.parametrize("cause", [Cause.POLICY_ERROR, Cause.POLICY_INVALID, Cause.POLICY_STALE])
def test_a_recovery_policy_that_fails_is_not_asked_again(cause: Cause) -> None:
    recovering = RUNNING._replace(tier="recovery")
    assert trusted(cause, measured(UNITREE_G1), recovering, limits(UNITREE_G1)) == Information.BASE


@pytest.mark.parametrize("backup", [(), ("hold",), ("damp", "hold"), ("damp", "damp"), ("pray", "damp"), "damp"])
def test_a_preference_must_end_in_damping_and_only_go_down(backup) -> None:
    with pytest.raises(ContractError, match="must be some of recovery, home, hold, damp, in this order"):
        dataclasses.replace(LEAP_HAND.safety, backup=backup)


def test_without_a_recovery_policy_there_is_no_such_backup() -> None:
    assert limits(UNITREE_G1, recovery=False).backup == ("damp",)
    assert limits(UNITREE_G1).backup == ("recovery", "damp")


# --- the controller ---------------------------------------------------------------------------------


HOMING_HAND = dataclasses.replace(
    LEAP_HAND, safety=dataclasses.replace(LEAP_HAND.safety, backup=("home", "hold", "damp"))
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("backups")
    paths = {r.name: tiny(r).write(folder / r.name) for r in (LEAP_HAND, UNITREE_G1)}
    return paths | {"recovery": tiny(UNITREE_G1, seed=7).write(folder / "recovery")}


def g1(bundles: dict[str, Path], **options) -> Rig:
    loaded = load_bundle(bundles["unitree_g1"]), load_bundle(bundles["recovery"])
    return Rig(loaded[0], UNITREE_G1, recovery=loaded[1], **options)


def hand(bundles: dict[str, Path], robot: RobotSpec = HOMING_HAND, **options) -> Rig:
    return Rig(load_bundle(bundles["leap_hand"]), robot, **options)


def broken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    good = rig.bundle.policy.run
    monkeypatch.setattr(rig.bundle.policy, "run", lambda inputs: answering(np.nan)(good(inputs)))


def test_the_recovery_policy_takes_over_from_one_that_fails(bundles, monkeypatch) -> None:
    r = g1(bundles)
    r.run()
    for _ in range(30):
        r.tick()
    broken(r, monkeypatch)
    tick = r.until(Mode.RECOVER, seconds=0.2)
    assert tick.cause == Cause.POLICY_INVALID
    # In its own tick nobody has anything to say yet: the pose is held, and then the other policy answers.
    np.testing.assert_allclose(tick.command.position, r.states[-1].joint_pos[0], atol=1e-6)
    tick = r.tick()
    state = r.states[-1]
    policy = tiny(UNITREE_G1, seed=7)
    contract = policy.contract()
    low, high = (np.array(v, np.float32) for v in (contract.action.low_rad, contract.action.high_rad))
    pos = state.joint_pos.astype(np.float32)
    memory = {"last_action": np.zeros((1, 29), np.float32), "last_target": np.clip(pos, low, high)}
    frame = np.concatenate(
        [pos - np.array(contract.action.offset_rad, np.float32), [[0, 0, -1]], np.zeros((1, 3)), np.zeros((1, 29))], 1
    )
    inputs = {
        "joint_pos": pos,
        "velocity": np.zeros((1, 3), np.float32),
        "imu_quat_wxyz": state.imu_quat_wxyz.astype(np.float32),
        "history": frame.astype(np.float32),
        **memory,
    }
    np.testing.assert_allclose(tick.target, policy.evaluate(inputs)["joint_target"][0], atol=1e-5)
    # It takes over at once and whole: a fall does not wait.
    np.testing.assert_allclose(tick.command.position, tick.target, atol=1e-5)


def test_recovery_is_limited_in_time_and_left_upwards_through_stand_alone(bundles, monkeypatch) -> None:
    r = g1(bundles)
    r.run()
    broken(r, monkeypatch)
    recovering = r.until(Mode.RECOVER, seconds=0.2)
    refused = r.tick(Request.RUN)
    assert refused.mode == Mode.RECOVER
    assert refused.note == "run refused: not possible in mode recover"
    damped = r.until(Mode.DAMP, seconds=11.0)
    assert damped.now_s - recovering.now_s == pytest.approx(10.0, abs=0.041)
    assert not damped.command.kp.any()


def test_an_operator_takes_over_from_a_recovery_policy(bundles, monkeypatch) -> None:
    r = g1(bundles)
    r.run()
    broken(r, monkeypatch)
    r.until(Mode.RECOVER, seconds=0.2)
    monkeypatch.undo()
    # What tripped must have passed.
    assert r.tick(Request.STAND).note == "stand refused: check policy_invalid is not green"
    tick = r.tick(Request.STAND)
    assert tick.mode == Mode.STAND
    # A robot that is stiff does not go soft.
    assert tick.command.kp[0] == pytest.approx(UNITREE_G1.joints[0].kp_nm_rad)
    r.until(Mode.RUN, Request.RUN)


def test_a_recovery_policy_that_fails_too_leaves_damping(bundles, monkeypatch) -> None:
    r = g1(bundles)
    r.run()
    broken(r, monkeypatch)
    r.until(Mode.RECOVER, seconds=0.2)
    recovery = r.controller._recovery.runner.policy
    good = recovery.run
    monkeypatch.setattr(recovery, "run", lambda inputs: answering(np.inf)(good(inputs)))
    tick = r.until(Mode.DAMP, seconds=0.1)
    assert tick.cause == Cause.POLICY_INVALID
    assert r.until(Mode.FAULT, seconds=0.1)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (lambda s, now: None, Cause.STATE_STALE),
        (lambda s, now: with_field(s, "imu_ang_vel_b", np.full((1, 3), 4.0)), Cause.BASE_ANG_VEL),
    ],
)
def test_no_policy_recovers_what_it_cannot_see_or_must_not_try(bundles, fault, cause, monkeypatch) -> None:
    r = g1(bundles)
    r.run()
    r.robot.fault = fault
    tick = r.until(Mode.DAMP, seconds=0.2)
    assert tick.cause == cause
    assert all(t.mode != Mode.RECOVER for t in r.ticks)


def test_a_recovery_policy_needs_the_deadman_button_too(bundles, monkeypatch) -> None:
    r = g1(bundles)
    r.run()
    broken(r, monkeypatch)
    r.until(Mode.RECOVER, seconds=0.2)
    r.deadman = False
    assert r.until(Mode.DAMP, seconds=0.4).cause == Cause.DEADMAN_LOST


def test_a_robot_that_only_stands_gets_no_policy_as_its_backup(bundles) -> None:
    r = g1(bundles)
    r.stand()
    for _ in range(20):
        r.tick()
    # Joints faster than their trip, yet slow enough to be believed: a soft trip.
    r.robot.fault = lambda s, _: with_field(s, "joint_vel", s.joint_vel + 60.0)
    tick = r.until(Mode.DAMP, seconds=0.2)
    assert tick.cause == Cause.JOINT_VEL


def test_a_recovery_bundle_is_proven_as_the_first_one_is(bundles, tmp_path: Path) -> None:
    main = load_bundle(bundles["unitree_g1"])
    golden = tiny(UNITREE_G1).golden()
    golden["out/action"] += 0.001
    spoilt = load_bundle(tiny(UNITREE_G1).write(tmp_path / "spoilt", golden=golden))
    with pytest.raises(BundleError, match="output 'action' is off by"):
        Controller(main, UNITREE_G1, recovery=spoilt)
    with pytest.raises((BundleError, ContractError), match="policy is for leap_hand"):
        Controller(main, UNITREE_G1, recovery=load_bundle(bundles["leap_hand"]))
    slow = load_bundle(TinyPolicy(UNITREE_G1, control_period_s=PERIOD_S["unitree_g1"] * 1.5).write(tmp_path / "slow"))
    with pytest.raises(ConfigError, match="does not divide the policy's control period"):
        Controller(main, UNITREE_G1, recovery=slow)
    with pytest.raises(ConfigError, match="falls back to hold, damp: it has no use for a recovery policy"):
        Controller(load_bundle(bundles["leap_hand"]), LEAP_HAND, recovery=load_bundle(bundles["leap_hand"]))


def test_home_ramps_from_the_measured_pose_stiffly_and_ends_damped(bundles, monkeypatch) -> None:
    r = hand(bundles)
    r.run()
    r.robot.joint_pos = r.robot.joint_pos + 0.04
    broken(r, monkeypatch)
    first = r.until(Mode.HOME, seconds=0.2)
    start = first.command.position
    default = np.array([j.default_pos_rad for j in LEAP_HAND.joints])
    half = first
    while half.now_s - first.now_s < 1.0 - 1e-6:
        half = r.tick()
    np.testing.assert_allclose(half.command.position, (start + default) / 2, atol=2e-3)
    assert half.command.kp[0] == pytest.approx(3.0)
    damped = r.until(Mode.DAMP)
    # Two seconds of ramp and two of holding its end.
    assert damped.now_s - first.now_s == pytest.approx(4.0, abs=0.041)


def test_a_state_that_goes_stale_on_the_way_home_is_held_and_then_damped(bundles, monkeypatch) -> None:
    r = hand(bundles)
    r.run()
    broken(r, monkeypatch)
    r.until(Mode.HOME, seconds=0.2)
    r.robot.fault = freeze(r.clock.now())
    assert r.until(Mode.HOLD, seconds=0.2).cause == Cause.STATE_STALE
    assert r.until(Mode.DAMP, seconds=0.2).cause == Cause.STATE_STALE
    assert [m for m, _ in itertools.groupby(t.mode for t in r.ticks)][-4:] == [
        Mode.RUN, Mode.HOME, Mode.HOLD, Mode.DAMP,
    ]  # fmt: skip


def test_home_goes_on_through_trips_that_it_does_not_depend_on(bundles, monkeypatch) -> None:
    r = hand(bundles)
    r.run()
    r.robot.joint_pos = r.robot.joint_pos + 0.04
    broken(r, monkeypatch)
    r.until(Mode.HOME, seconds=0.2)
    for k in range(20):
        # Every second tick a reading too fast, twice in a row: a soft trip again and again.
        r.robot.fault = (lambda s, _: with_field(s, "joint_vel", s.joint_vel + 20.0)) if k % 4 < 2 else None
        previous, tick = r.ticks[-1], r.tick()
        assert tick.mode == Mode.HOME
        # The ramp goes on towards the default pose, instead of starting from the measured pose again.
        assert (tick.command.position <= previous.command.position + 1e-9).all()


# --- start gates ------------------------------------------------------------------------------------


def settled(r: Rig) -> Rig:
    r.stand()
    for _ in range(round(4.0 / r.controller.loop_period_s)):
        r.tick()
    return r


def test_a_policy_that_fails_in_its_dry_runs_never_runs(bundles, monkeypatch) -> None:
    r = g1(bundles)
    broken(r, monkeypatch)
    tick = settled(r).tick(Request.RUN)
    assert tick.mode == Mode.STAND
    assert tick.note.startswith("run refused: the policy fails: ValueError: its ")
    monkeypatch.undo()
    for _ in range(5):
        r.tick()
    assert r.tick(Request.RUN).mode == Mode.RUN


def test_run_waits_for_a_history_of_consecutive_observations(bundles, tmp_path: Path) -> None:
    long = load_bundle(tiny(LEAP_HAND, history_length=8).write(tmp_path / "long"))
    r = settled(Rig(long, LEAP_HAND))
    # One gap, and what was seen before it is history no more.
    r.robot.fault = lambda s, _: with_field(s, "joint_vel", np.full((1, 16), np.nan))
    r.tick()
    r.robot.fault = None
    notes = [r.tick(Request.RUN).note for _ in range(12)]
    granted = next(i for i, t in enumerate(r.ticks[-12:]) if t.mode == Mode.RUN)
    assert "the policy has seen 1 of 8 observations" in " ".join(notes[:3])
    assert granted >= 8


def test_run_is_refused_far_from_the_default_pose(bundles) -> None:
    r = hand(bundles, LEAP_HAND, follow=0.5)
    settled(r)
    pushed = r.robot.joint_pos.copy()
    pushed[3] += 0.35
    # It is being held away, slowly enough that tracking has not yet given up.
    for share in np.linspace(0, 1, 12):
        r.robot.joint_pos = r.robot.joint_pos.copy()
        r.robot.joint_pos[3] = pushed[3] * share + (1 - share) * (pushed[3] - 0.35)
        tick = r.tick(Request.RUN) if share == 1 else r.tick()
    assert "joint 3 is 0.3" in tick.note
    assert "from the pose to stand in, must be within 0.3 rad" in tick.note


def test_run_is_refused_on_an_old_state(bundles) -> None:
    r = settled(hand(bundles, LEAP_HAND))
    since_s = r.clock.now()
    r.robot.fault = freeze(since_s)
    for _ in range(2):
        r.tick()
    tick = r.tick(Request.RUN)
    assert tick.mode != Mode.RUN
    assert "the state is 0.060 s old, must be at most 0.05 s" in tick.note


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_a_person_is_needed_to_move_the_robot_again(bundles, seed: int) -> None:
    """Requests, faults and a policy that fails, all at random: what must hold of any two ticks in a row."""
    rng = np.random.default_rng(seed)
    robot = UNITREE_G1 if seed % 2 else HOMING_HAND
    recovery = load_bundle(bundles["recovery"]) if seed % 2 else None
    # A short ramp, so that a walk gets far.
    robot = dataclasses.replace(robot, safety=dataclasses.replace(robot.safety, stand_duration_s=0.04))
    r = Rig(load_bundle(bundles[robot.name]), robot, recovery=recovery)
    policy = r.bundle.policy
    good = policy.run
    faults = [
        lambda s, _: None,
        lambda s, _: with_field(s, "joint_vel", s.joint_vel + 60.0),
        lambda s, _: with_field(s, "joint_pos", s.joint_pos + np.nan),
    ]
    mode = r.tick().mode
    for _ in range(1500):
        if rng.random() < 0.3:
            r.robot.fault = faults[rng.integers(len(faults))] if rng.random() < 0.03 else None
        if rng.random() < 0.3:
            policy.run = good if rng.random() > 0.08 else lambda inputs: answering(np.nan)(good(inputs))
        request = rng.choice([None, *Request], p=[0.54, 0.1, 0.24, 0.01, 0.01, 0.1])
        tick = r.tick(request)
        if tick.mode == Mode.RUN and mode != Mode.RUN:
            assert (mode, request) == (Mode.STAND, Request.RUN)
        if tick.mode in (Mode.RECOVER, Mode.HOME, Mode.HOLD) and mode != tick.mode:
            assert tick.severity == Severity.HOLD
            assert mode in (Mode.RUN, Mode.STAND, Mode.RECOVER, Mode.HOME)
        if mode in (Mode.DAMP, Mode.FAULT) and tick.mode in STIFF_MODES:
            assert (tick.mode, mode) == (Mode.STAND, Mode.DAMP)
        if mode == Mode.FAULT and tick.mode != Mode.FAULT:
            assert request == Request.RESET
        if request == Request.ESTOP:
            assert not tick.command.kp.any()
            assert tick.mode in (Mode.DAMP, Mode.FAULT)
        mode = tick.mode
    backup = Mode.RECOVER if recovery else Mode.HOME
    assert {t.mode for t in r.ticks} >= {Mode.RUN, backup, Mode.DAMP, Mode.FAULT, Mode.STAND}
