import numpy as np
import pytest

from robot_rl.contract import STATE_FIELDS, JointCommand, damping_command
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.testing.fakes import FakeClock
from robot_rl_hardware.mock import MockRobot

DEFAULT = np.array([j.default_pos_rad for j in LEAP_HAND.joints])
KP = np.array([j.kp_nm_rad for j in LEAP_HAND.joints])


def target(position: np.ndarray, now_s: float, life_s: float = 10.0) -> JointCommand:
    zero = np.zeros(16)
    return JointCommand(position, zero, zero, KP, zero, now_s, now_s + life_s)


def test_first_order_lag() -> None:
    clock = FakeClock()
    robot = MockRobot(LEAP_HAND, clock, lag_s=0.05)
    robot.connect()
    robot.write(target(DEFAULT + 0.2, clock.now()))
    for _ in range(10):
        clock.advance(0.005)
        state = robot.read()
    assert state is not None
    # After one time constant 1 - 1/e of the way, whatever the steps it was read in.
    np.testing.assert_allclose(state.joint_pos[0] - DEFAULT, 0.2 * (1 - np.exp(-1)))
    np.testing.assert_allclose(state.joint_vel[0], 0.2 * np.exp(-1) / 0.05, rtol=0.06)
    assert state.stamp_s[0] == clock.now()


def test_stays_inside_its_limits_and_stops_when_damped_or_expired() -> None:
    clock = FakeClock()
    robot = MockRobot(LEAP_HAND, clock)
    robot.write(target(np.full(16, 9.0), clock.now(), life_s=0.04))
    clock.advance(0.02)
    moved = robot.read()
    assert (moved.joint_pos > DEFAULT).all()
    clock.advance(1.0)
    expired = robot.read()
    np.testing.assert_array_equal(expired.joint_pos, moved.joint_pos)
    assert not expired.joint_vel.any()
    robot.write(damping_command(np.ones(16), clock.now(), 1.0))
    clock.advance(0.5)
    np.testing.assert_array_equal(robot.read().joint_pos, moved.joint_pos)
    robot.write(target(np.full(16, 9.0), clock.now()))
    clock.advance(5.0)
    np.testing.assert_allclose(robot.read().joint_pos[0], [j.upper_rad for j in LEAP_HAND.joints])


@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1])
def test_measures_exactly_what_its_spec_says(robot) -> None:
    with MockRobot(robot, FakeClock()) as mock:
        state = mock.read()
    measured = {name for name in STATE_FIELDS if getattr(state, name) is not None}
    assert measured == set(robot.state_fields)
    mock.stop()
    mock.stop()
