"""How operator requests are answered from ticks, without a node."""

import pytest

pytest.importorskip("rclpy")

import numpy as np

from robot_rl.bundle.load import load_bundle
from robot_rl.contract import RobotState
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.controller import Controller, Request
from robot_rl.testing.bundles import TinyPolicy
from robot_rl_bridge.requests import PATIENCE_TICKS, PendingRequest

pytestmark = pytest.mark.ros

PERIOD_S = 0.01


@pytest.fixture
def step(tmp_path):
    """Function () -> next Tick of a controller on a motionless hand; `step.controller` takes requests."""
    bundle = load_bundle(TinyPolicy(LEAP_HAND).write(tmp_path / "tiny.zip"))
    controller = Controller(bundle, LEAP_HAND, PERIOD_S)
    pose = np.array([[j.default_pos_rad for j in LEAP_HAND.joints]])
    time_s = [10.0]

    def tick():
        time_s[0] += PERIOD_S
        state = RobotState(np.array([time_s[0]]), pose, np.zeros((1, 16)), np.zeros((1, 16)))
        return controller.step(state, None, time_s[0])

    tick.controller = controller  # type: ignore[attr-defined]
    tick()
    return tick


def answer(step, request: Request, patience: int = PATIENCE_TICKS):
    pending = PendingRequest(request)
    step.controller.request(request)
    for _ in range(patience):
        if (found := pending.judge(step())) is not None:
            return found
    return None


def test_stand_takes_two_ticks_and_is_then_granted(step) -> None:
    assert answer(step, Request.STAND, patience=1) is None
    assert answer(step, Request.STAND).granted


def test_run_without_standing_is_refused_with_the_reason(step) -> None:
    found = answer(step, Request.RUN)
    assert not found.granted
    assert "not possible in mode idle" in found.reason


def test_run_before_the_pose_has_settled_is_refused_with_the_time_left(step) -> None:
    assert answer(step, Request.STAND).granted
    found = answer(step, Request.RUN)
    assert not found.granted
    assert "standing still" in found.reason


def test_an_emergency_stop_is_granted_from_anywhere_and_only_a_reset_leads_out(step) -> None:
    assert answer(step, Request.ESTOP).granted
    step()
    found = answer(step, Request.STAND)
    assert not found.granted
    assert "fault" in found.reason
    assert answer(step, Request.RESET).granted
