"""The controller's modes on a fake robot: the way up, every refusal, and the way down by request."""

from collections.abc import Callable

import numpy as np
import pytest
from controller_rig import Rig, freeze, rig

from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.runtime.checks import Cause, Severity
from robot_rl.runtime.controller import Request
from robot_rl.runtime.modes import Mode
from robot_rl.testing.fakes import with_field


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


def test_severity_and_margin_are_of_the_tick_itself(paths) -> None:
    r = rig(paths)
    r.run()
    tick = r.tick()
    assert tick.severity == Severity.OK
    assert 0 < tick.margin <= 1
