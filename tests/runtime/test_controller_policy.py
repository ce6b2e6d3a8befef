"""The policy in the controller: what it sees, when it is evaluated, what it is commanded, and how it may fail."""

from pathlib import Path

import numpy as np
import pytest
from controller_rig import answering, raising, rig, tiny

from robot_rl.bundle.load import load_bundle
from robot_rl.errors import BundleError, ConfigError
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.runtime.checks import Cause
from robot_rl.runtime.controller import Controller, Request
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.safety import MODIFICATIONS
from robot_rl.testing.fakes import with_field


@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1])
def test_the_policy_sees_what_training_would_have_shown_it(paths, robot: RobotSpec) -> None:
    """Obs, actions and targets of the controller against the numpy policy fed by hand, over 100 ticks."""
    policy = tiny(robot)
    r = rig(paths, robot, follow=0.3)
    contract = policy.contract()
    low, high = (np.array(v, np.float32) for v in (contract.action.low_rad, contract.action.high_rad))
    r.run()
    n, memory = len(robot.joints), None
    for _ in range(100):
        tick = r.ticks[-1]
        before, measured = (state.joint_pos.astype(np.float32) for state in r.states[-2:])
        if memory is None:
            memory = {"last_action": np.zeros((1, n), np.float32), "last_target": np.clip(measured, low, high)}
            # What it saw while the robot still stood, and nothing of which it was obeyed.
            gravity = [[0.0, 0.0, -1.0]] if policy.imu else np.zeros((1, 0))
            default = np.array(contract.action.offset_rad, np.float32)
            frame = np.concatenate([before - default, gravity, np.zeros((1, 3)), memory["last_action"]], axis=1)
            memory["history"] = frame.astype(np.float32)
        inputs = {"joint_pos": measured, "velocity": r.command[None], **memory}
        if policy.imu:
            inputs["imu_quat_wxyz"] = np.array([[1.0, 0, 0, 0]], np.float32)
        expected = policy.evaluate(inputs)
        np.testing.assert_allclose(tick.obs, expected["obs"][0], atol=1e-6)
        np.testing.assert_allclose(tick.action, expected["action"][0], atol=1e-6)
        np.testing.assert_allclose(tick.target, expected["joint_target"][0], atol=1e-6)
        memory = {
            "last_action": expected["next_last_action"],
            # What the filter let through, not what the policy asked for.
            "last_target": tick.applied[None].astype(np.float32),
            "history": expected["next_history"],
        }
        r.command = np.array([0.3, -0.2, 0.1], np.float32)
        r.tick()


def test_soft_start_begins_at_the_standing_pose(paths) -> None:
    r = rig(paths)
    first = r.run()
    np.testing.assert_allclose(first.applied, r.ticks[-2].applied)
    for _ in range(20):
        tick = r.tick()
    np.testing.assert_allclose(tick.applied, tick.target, atol=1e-6)


@pytest.mark.parametrize(("factor", "evaluations"), [(1, 20), (2, 10), (10, 2)])
def test_a_faster_loop_keeps_the_policys_rate(paths, factor: int, evaluations: int) -> None:
    r = rig(paths, loop_period_s=0.02 / factor)
    r.run()
    ticks = [r.tick() for _ in range(20)]
    assert sum(t.policy is not None for t in ticks) == evaluations


def test_a_late_evaluation_does_not_shift_the_policys_phase(paths) -> None:
    r = rig(paths, loop_period_s=0.004)
    r.run()
    pattern = ""
    for k in range(20):
        # The first tick at which the policy is due sees a state that cannot be believed.
        broken = k == 4
        r.robot.fault = (lambda s, _: with_field(s, "joint_vel", np.full((1, 16), np.nan))) if broken else None
        pattern += "P" if r.tick().policy is not None else "."
    assert pattern == ".....P...P....P....P"


@pytest.mark.parametrize("loop_period_s", [0.013, 0.03, 0.0, -0.02, float("nan")])
def test_a_loop_period_that_does_not_divide_the_policys(paths, loop_period_s: float) -> None:
    with pytest.raises(ConfigError, match="does not divide the policy's control period"):
        rig(paths, loop_period_s=loop_period_s)


def test_a_bundle_that_fails_its_golden_rows_never_gets_a_controller(tmp_path: Path) -> None:
    policy = tiny(LEAP_HAND)
    golden = policy.golden()
    golden["out/action"] += 0.001
    bundle = load_bundle(policy.write(tmp_path / "bundle", golden=golden))
    with pytest.raises(BundleError, match="output 'action' is off by"):
        Controller(bundle, LEAP_HAND)


def test_a_stale_velocity_command_becomes_zero(paths) -> None:
    r = rig(paths)
    r.run()
    r.command = np.array([1.0, 2.0, 3.0], np.float32)
    r.tick()
    r.command = None
    shown = [r.tick().obs[-16 - 3 : -16].copy() for _ in range(15)]
    np.testing.assert_array_equal(shown[8], [1, 2, 3])  # 0.18 s old
    np.testing.assert_array_equal(shown[11], [0, 0, 0])  # 0.24 s old


@pytest.mark.parametrize("bad", [np.zeros(2, np.float32), np.full(3, np.nan, np.float32), np.array(["a", "b", "c"])])
def test_a_command_of_no_use_is_ignored_and_said_so(paths, bad: np.ndarray) -> None:
    r = rig(paths)
    r.run()
    r.command = np.array([1.0, 2.0, 3.0], np.float32)
    r.tick()
    r.command = bad
    tick = r.tick()
    assert tick.mode == Mode.RUN
    assert "command ignored: 'velocity' must be (3,)" in tick.note
    np.testing.assert_array_equal(tick.obs[-19:-16], [1, 2, 3])


@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1])
@pytest.mark.parametrize(
    ("change", "cause", "evaluations"),
    [
        (raising, Cause.POLICY_ERROR, 1),
        (answering(np.nan), Cause.POLICY_INVALID, 2),
        (answering(np.inf), Cause.POLICY_INVALID, 2),
    ],
)
@pytest.mark.parametrize("factor", [1, 4])
def test_a_policy_that_fails(paths, robot, change, cause, evaluations, factor, monkeypatch) -> None:
    r = rig(paths, robot, loop_period_s=0.02 / factor)
    r.run()
    for _ in range(3 * factor - 1):
        r.tick()
    good = r.bundle.policy.run
    monkeypatch.setattr(r.bundle.policy, "run", lambda inputs: change(good(inputs)))
    start_s = r.clock.now()
    backup = Mode.DAMP if "hold" not in robot.safety.backup else Mode.HOLD
    tick = r.until(backup, seconds=0.3)
    assert tick.cause == cause
    assert tick.now_s - start_s <= (evaluations - 1) * 0.02 + r.controller.loop_period_s + 1e-9
    if cause == Cause.POLICY_ERROR:
        assert tick.note == "policy failed: RuntimeError: the graph broke"
    after = [r.tick() for _ in range(10)]
    assert all(t.mode in (backup, Mode.FAULT) for t in after)


def test_one_bad_answer_is_bridged_and_does_not_spoil_the_memory(paths, monkeypatch) -> None:
    r = rig(paths)
    r.run()
    for _ in range(30):
        before = r.tick()
    good = r.bundle.policy.run
    monkeypatch.setattr(r.bundle.policy, "run", lambda inputs: answering(np.nan)(good(inputs)))
    bridged = r.tick()
    monkeypatch.undo()
    assert bridged.mode == Mode.RUN
    np.testing.assert_array_equal(bridged.applied, before.applied)
    for _ in range(5):
        tick = r.tick()
        assert tick.mode == Mode.RUN
        assert np.isfinite(tick.obs).all()


def test_a_policy_that_asks_for_the_impossible_is_limited(paths, monkeypatch) -> None:
    r = rig(paths)
    r.run()
    good = r.bundle.policy.run
    monkeypatch.setattr(
        r.bundle.policy, "run", lambda inputs: good(inputs) | {"joint_target": np.full((1, 16), 1e30, np.float32)}
    )
    for _ in range(60):
        previous, tick = r.ticks[-1], r.tick()
        assert tick.mode == Mode.RUN
        assert np.abs(tick.applied - previous.applied).max() <= r.controller.limits.max_step.max() * 2
    changed = {name for name, row in zip(MODIFICATIONS, r.controller.modifications, strict=True) if row.any()}
    assert {"action_bound", "soft_start"} <= changed
    assert "not_finite" not in changed


def test_rehearsing_changes_nothing(paths) -> None:
    once, twice = rig(paths), rig(paths)
    for r in (once, twice):
        r.run()
    for _ in range(30):
        for _ in range(3):
            twice.controller.rehearse()
        np.testing.assert_array_equal(once.tick().command.position, twice.tick().command.position)
        np.testing.assert_array_equal(once.ticks[-1].obs, twice.ticks[-1].obs)
    for r in (once, twice):
        r.controller.request(Request.STOP)
    twice.controller.rehearse()
    assert twice.controller.mode == Mode.RUN
    assert twice.tick().mode == once.tick().mode != Mode.RUN
    np.testing.assert_array_equal(once.controller.modifications, twice.controller.modifications)
