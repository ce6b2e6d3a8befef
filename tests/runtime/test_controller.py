"""The controller on a fake robot: the way up, every refusal, and what each fault leads to and how fast."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robot_rl.bundle.load import Bundle, load_bundle
from robot_rl.contract import Command, NumpyState
from robot_rl.errors import BundleError, ConfigError
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.runtime.checks import Cause, Severity
from robot_rl.runtime.controller import Controller, Request, Tick
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.safety import MODIFICATIONS
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.fakes import FakeClock, FakeRobot, with_field

PERIOD_S = {"leap_hand": 0.02, "unitree_g1": 0.02}


def tiny(robot: RobotSpec, **fields) -> TinyPolicy:
    return TinyPolicy(robot, control_period_s=PERIOD_S[robot.name], **fields)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {r.name: tiny(r).write(folder / r.name) for r in (LEAP_HAND, UNITREE_G1)}


class Rig:
    """Controller, fake robot and fake clock, ticked together. Everything the robot is sent is checked by the robot."""

    def __init__(
        self,
        bundle: Bundle,
        robot: RobotSpec,
        loop_period_s: float | None = None,
        recovery: Bundle | None = None,
        **options,
    ) -> None:
        self.bundle = bundle
        self.clock = FakeClock()
        self.robot = FakeRobot(robot, self.clock, **options)
        self.controller = Controller(bundle, robot, loop_period_s, recovery=recovery)
        self.command: np.ndarray | None = np.zeros(3, np.float32)
        self.deadman = True
        self.ticks: list[Tick] = []
        self.states: list[NumpyState | None] = []

    def tick(self, request: Request | None = None, dt: float | None = None) -> Tick:
        self.clock.advance(self.controller.loop_period_s if dt is None else dt)
        now_s = self.clock.now()
        if request is not None:
            self.controller.request(request)
        if self.deadman:
            self.controller.feed_deadman(now_s)
        command = None if self.command is None else Command(self.command, now_s)
        self.states.append(self.robot.read())
        tick = self.controller.step(self.states[-1], command, now_s)
        self.robot.write(tick.command)
        self.ticks.append(tick)
        return tick

    def until(self, mode: Mode, request: Request | None = None, seconds: float = 6.0) -> Tick:
        for _ in range(round(seconds / self.controller.loop_period_s)):
            tick = self.tick(request)
            if tick.mode == mode:
                return tick
        raise AssertionError(f"{mode} was not reached; in {tick.mode}, {tick.cause}, {tick.note}")

    def stand(self) -> Tick:
        self.tick()
        return self.until(Mode.STAND, Request.STAND)

    def run(self) -> Tick:
        self.stand()
        return self.until(Mode.RUN, Request.RUN)


def rig(paths: dict[str, Path], robot: RobotSpec = LEAP_HAND, loop_period_s: float | None = None, **options) -> Rig:
    return Rig(load_bundle(paths[robot.name]), robot, loop_period_s, **options)


# --- the way up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1])
def test_nothing_moves_until_somebody_asks(paths, robot: RobotSpec) -> None:
    r = rig(paths, robot)
    for _ in range(200):
        tick = r.tick()
        assert tick.mode == Mode.IDLE
        for gain in (tick.command.kp, tick.command.kd, tick.command.effort):
            assert not gain.any()


@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1])
def test_the_way_up(paths, robot: RobotSpec) -> None:
    r = rig(paths, robot)
    r.run()
    modes = [t.mode for t in r.ticks]
    assert [m for i, m in enumerate(modes) if i == 0 or m != modes[i - 1]] == [
        Mode.IDLE, Mode.DAMP, Mode.STAND, Mode.RUN,
    ]  # fmt: skip
    stood_s = sum(m == Mode.STAND for m in modes) * r.controller.loop_period_s
    # The ramp and half a second of standing still, to within two ticks.
    assert stood_s == pytest.approx(robot.safety.stand_duration_s + 0.5, abs=0.05)


def test_init_waits_for_a_state(paths) -> None:
    r = rig(paths, fault=lambda state, now: None if now < 101.0 else state)
    assert r.tick(Request.STAND).mode == Mode.INIT
    assert "not possible in mode init" in r.ticks[-1].note
    assert r.until(Mode.IDLE).now_s == pytest.approx(101.0, abs=0.021)


def test_stand_ramps_from_the_measured_pose_gently(paths) -> None:
    start = np.array([j.default_pos_rad for j in LEAP_HAND.joints]) + 0.25
    r = rig(paths, joint_pos=start)
    first = r.stand()
    assert np.abs(first.command.position - start).max() < 0.01
    assert first.command.kp[0] == pytest.approx(0.1 * 3.0)
    r.until(Mode.RUN, Request.RUN)
    ramp = np.array([t.command.position[0] for t in r.ticks if t.mode == Mode.STAND])
    assert (np.diff(ramp) <= 1e-12).all()
    # A cosine is steepest half-way: π/2 times the mean speed of 0.25 rad in 2 s.
    assert np.abs(np.diff(ramp)).max() == pytest.approx(np.pi / 2 * 0.25 / 2 * 0.02, rel=0.01)
    assert r.ticks[-2].command.kp[0] == pytest.approx(3.0)


def test_a_blocked_joint_ends_the_ramp(paths) -> None:
    start = np.array([j.default_pos_rad for j in LEAP_HAND.joints]) + 0.5
    r = rig(paths, joint_pos=start, follow=0.0)
    r.stand()
    tick = r.until(Mode.DAMP)
    assert tick.cause == Cause.STAND_TRACKING
    lost = next(t for t in r.ticks if t.applied is not None and np.abs(t.applied - start).max() > 0.3)
    assert tick.now_s - lost.now_s == pytest.approx(0.3, abs=0.041)
    # Nobody has to reset after that: standing is tried again on request.
    r.robot.follow = 0.5
    assert r.until(Mode.STAND, Request.STAND)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda r: None, "standing still for 0.00 s of 0.5 s"),
        (lambda r: None, "the policy has seen 1 of 5 observations"),
        (lambda r: setattr(r, "command", np.ones(3, np.float32)), "'velocity' must be zero, is [1.0, 1.0, 1.0]"),
        (lambda r: setattr(r, "command", None), "no command 'velocity' received yet"),
        (lambda r: setattr(r, "deadman", False), "the deadman button is not held"),
    ],
)
def test_run_is_refused_with_every_reason(paths, prepare: Callable[[Rig], None], message: str) -> None:
    r = rig(paths, UNITREE_G1)
    prepare(r)
    r.stand()
    tick = r.tick(Request.RUN)
    assert tick.mode == Mode.STAND
    assert tick.note.startswith("run refused: ")
    assert message in tick.note


def test_run_is_refused_to_a_tilted_humanoid(paths) -> None:
    tilt = 0.25
    quat = np.array([[np.cos(tilt / 2), np.sin(tilt / 2), 0, 0]])
    r = rig(paths, UNITREE_G1, fault=lambda state, _: with_field(state, "imu_quat_wxyz", quat))
    r.stand()
    for _ in range(300):
        tick = r.tick(Request.RUN)
    assert tick.note == "run refused: tilt is 0.25 rad, must be below 0.2"


@pytest.mark.parametrize("request_", [Request.RUN, Request.RESET])
def test_requests_out_of_place_are_refused_in_words(paths, request_: Request) -> None:
    r = rig(paths)
    r.tick()
    tick = r.tick(request_)
    assert tick.mode == Mode.IDLE
    assert tick.note.startswith(f"{request_.value} refused: ")


def test_stop_goes_back_to_standing_then_to_damping(paths) -> None:
    r = rig(paths)
    r.run()
    assert r.tick(Request.STOP).mode == Mode.STAND
    # A robot that stands on its joints must not go soft on the way.
    assert r.ticks[-1].command.kp[0] == pytest.approx(3.0)
    tick = r.tick(Request.STOP)
    assert (tick.mode, tick.cause) == (Mode.DAMP, Cause.STOPPED)


# --- what the policy sees ---------------------------------------------------------------------------


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


# --- faults -----------------------------------------------------------------------------------------


def stale(state: NumpyState, since_s: float) -> NumpyState:
    return dataclasses.replace(state, stamp_s=np.array([since_s]))


def freeze(since_s: float):
    return lambda state, now: stale(state, since_s) if now > since_s else state


def from_now(now_s: float, change: Callable[[NumpyState], NumpyState | None]):
    return lambda state, now: change(state) if now > now_s else state


def jumped(state: NumpyState) -> NumpyState:
    pos = state.joint_pos.copy()
    # Further than the fastest motor here turns in a tick.
    pos[0, 4] += 1.5
    return with_field(state, "joint_pos", pos)


# name: (fault from now on, mode where the backup is to hold, cause, seconds that the check waits before it trips)
FAULTS = {
    "no state": (lambda s: None, "damp", Cause.STATE_STALE, 0.0),
    "nan": (lambda s: with_field(s, "joint_vel", np.full_like(s.joint_vel, np.nan)), "damp", Cause.STATE_INVALID, 0.02),
    "short": (lambda s: with_field(s, "joint_pos", s.joint_pos[:, 1:]), "damp", Cause.STATE_INVALID, 0.02),
    "jump": (jumped, "damp", Cause.STATE_JUMP, 0.02),
    "speed": (lambda s: with_field(s, "joint_vel", s.joint_vel + 60.0), "hold", Cause.JOINT_VEL, 0.02),
}
HUMANOID_FAULTS = {
    "quaternion order": (
        lambda s: with_field(s, "imu_quat_wxyz", s.imu_quat_wxyz[:, [1, 2, 3, 0]]), "damp", Cause.STATE_JUMP, 0.02,
    ),
    "quaternion zero": (lambda s: with_field(s, "imu_quat_wxyz", np.zeros((1, 4))), "damp", Cause.STATE_INVALID, 0.02),
    "spin": (lambda s: with_field(s, "imu_ang_vel_b", np.full((1, 3), 4.0)), "damp", Cause.BASE_ANG_VEL, 0.05),
    "no imu": (lambda s: with_field(s, "imu_quat_wxyz", None), "damp", Cause.STATE_INVALID, 0.02),
}  # fmt: skip
CASES = [(r, name, *f) for r in (LEAP_HAND, UNITREE_G1) for name, f in FAULTS.items()]
CASES += [(UNITREE_G1, name, *f) for name, f in HUMANOID_FAULTS.items()]


@pytest.mark.parametrize(
    ("robot", "name", "change", "mode", "cause", "after_s"),
    CASES,
    ids=lambda v: getattr(v, "name", v if isinstance(v, str) else ""),
)
@pytest.mark.parametrize("factor", [1, 4])
def test_a_fault_while_running(paths, robot, name, change, mode, cause, after_s, factor) -> None:
    r = rig(paths, robot, loop_period_s=0.02 / factor)
    r.run()
    for _ in range(50):
        r.tick()
    period_s = r.controller.loop_period_s
    start_s = r.clock.now()
    r.robot.fault = from_now(start_s, change)
    expected = Mode.DAMP if "hold" not in robot.safety.backup else Mode(mode)
    tick = r.until(expected, seconds=0.2)
    assert tick.cause == cause
    assert tick.now_s - start_s <= after_s + period_s + 1e-9
    if expected == Mode.DAMP:
        assert not tick.command.kp.any()
        assert tick.command.kd.all()
        # Damped ever after, whatever the state does then; the operator's reset is needed where the cause is latched.
        r.robot.fault = None
        later = [r.tick(Request.RUN) for _ in range(20)]
        assert not any(t.command.kp.any() for t in later)
        latched = cause != Cause.STATE_STALE
        assert {t.mode for t in later[1:]} == {Mode.FAULT if latched else Mode.DAMP}
        assert later[-1].cause == cause


@pytest.mark.parametrize("factor", [1, 4])
def test_a_state_that_stops_coming_holds_then_damps(paths, factor: int) -> None:
    r = rig(paths, loop_period_s=0.02 / factor)
    r.run()
    for _ in range(50):
        r.tick()
    period_s, start_s = r.controller.loop_period_s, r.clock.now()
    r.robot.fault = freeze(start_s)
    hold = r.until(Mode.HOLD, seconds=0.2)
    assert 0.05 < hold.now_s - start_s <= 0.05 + period_s + 1e-9
    damp = r.until(Mode.DAMP, seconds=0.2)
    assert 0.1 < damp.now_s - start_s <= 0.1 + period_s + 1e-9
    assert (hold.cause, damp.cause) == (Cause.STATE_STALE, Cause.STATE_STALE)
    # Back again: the robot stays damped until it is asked to stand, and then gets to run only through STAND.
    r.robot.fault = None
    for _ in range(20):
        assert r.tick(Request.RUN).mode == Mode.DAMP
    r.until(Mode.STAND, Request.STAND)
    r.until(Mode.RUN, Request.RUN)


def test_a_state_that_comes_back_within_the_hold_stays_held(paths) -> None:
    r = rig(paths)
    r.run()
    start_s = r.clock.now()
    r.robot.fault = lambda s, now: stale(s, start_s) if now < start_s + 0.09 else s
    r.until(Mode.HOLD, seconds=0.2)
    for _ in range(20):
        assert r.tick().mode == Mode.HOLD
    assert r.tick(Request.STAND).mode == Mode.STAND


def test_hold_is_limited_in_time(paths) -> None:
    r = rig(paths)
    r.run()
    r.robot.fault = freeze(r.clock.now())
    held = r.until(Mode.HOLD, seconds=0.2)
    r.robot.fault = None
    damped = r.until(Mode.DAMP)
    assert damped.now_s - held.now_s == pytest.approx(2.0, abs=0.041)
    np.testing.assert_allclose(
        [t.command.position for t in r.ticks if t.mode == Mode.HOLD][10:],
        np.broadcast_to(held.command.position, (len([t for t in r.ticks if t.mode == Mode.HOLD]) - 10, 16)),
        atol=0.02,
    )


def raising(*_):
    raise RuntimeError("the graph broke")


def answering(value: float):
    def change(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.full_like(v, value) for name, v in outputs.items()}

    return change


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


@pytest.mark.parametrize(("robot", "mode"), [(LEAP_HAND, Mode.HOLD), (UNITREE_G1, Mode.DAMP)])
def test_a_tick_that_comes_much_too_late(paths, robot: RobotSpec, mode: Mode) -> None:
    r = rig(paths, robot)
    r.run()
    tick = r.tick(dt=4.2 * 0.02)
    assert (tick.mode, tick.cause) == (mode, Cause.OVERRUN)


def test_losing_the_deadman(paths) -> None:
    r = rig(paths, UNITREE_G1)
    r.run()
    start_s = r.clock.now()
    r.deadman = False
    tick = r.until(Mode.DAMP, seconds=0.4)
    assert tick.cause == Cause.DEADMAN_LOST
    assert 0.2 < tick.now_s - start_s <= 0.2 + 0.02 + 1e-9


@pytest.mark.parametrize("mode", [Mode.IDLE, Mode.DAMP, Mode.STAND, Mode.RUN, Mode.HOLD])
def test_the_emergency_stop_damps_in_the_same_tick_and_latches(paths, mode: Mode) -> None:
    r = rig(paths)
    if mode == Mode.IDLE:
        r.tick()
    elif mode == Mode.DAMP:
        r.stand()
        r.tick(Request.STOP)
    elif mode == Mode.STAND:
        r.stand()
    else:
        r.run()
    if mode == Mode.HOLD:
        r.robot.fault = freeze(r.clock.now())
        r.until(Mode.HOLD, seconds=0.2)
        r.robot.fault = None
    assert r.ticks[-1].mode == mode
    r.controller.request(Request.ESTOP)
    # Nothing said after it undoes it.
    tick = r.tick(Request.STAND)
    assert not tick.command.kp.any()
    assert tick.mode == Mode.DAMP
    tick = r.tick(Request.STAND)
    assert (tick.mode, tick.cause) == (Mode.FAULT, Cause.OPERATOR_STOP)
    assert tick.command.kd.all()


def test_fault_is_left_by_reset_alone_and_only_when_all_is_green(paths) -> None:
    r = rig(paths)
    r.run()
    r.tick(Request.ESTOP)
    r.tick()
    for request in (Request.STAND, Request.RUN, Request.STOP):
        assert r.tick(request).mode == Mode.FAULT
    r.robot.fault = lambda *_: None
    tick = r.tick(Request.RESET)
    assert tick.mode == Mode.FAULT
    assert tick.note == "reset refused: check state_stale is not green"
    r.robot.fault = None
    assert r.tick(Request.RESET).mode == Mode.IDLE
    r.until(Mode.STAND, Request.STAND)
    r.until(Mode.RUN, Request.RUN)


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


def test_severity_and_margin_are_of_the_tick_itself(paths) -> None:
    r = rig(paths)
    r.run()
    tick = r.tick()
    assert tick.severity == Severity.OK
    assert 0 < tick.margin <= 1
