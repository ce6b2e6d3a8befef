"""What each fault of the robot's states, clock and operator leads to on a fake robot, and how fast."""

from collections.abc import Callable

import numpy as np
import pytest
from controller_rig import freeze, rig, stale

from robot_rl.contract import NumpyState
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.runtime.checks import Cause
from robot_rl.runtime.controller import Request
from robot_rl.runtime.modes import Mode
from robot_rl.testing.fakes import with_field


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
