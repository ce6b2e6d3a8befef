"""StatePace against a scripted executor: whose events come when they were due, and each of which ends a spin."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from robot_rl_bridge import pace as module
from robot_rl_bridge.pace import EARLY, LATE, StatePace

pytestmark = pytest.mark.ros

PERIOD_S = 0.01
EARLY_S, LATE_S = EARLY * PERIOD_S, LATE * PERIOD_S


class Script:
    """Time, and states in it, which arrive as soon as they are measured unless nobody listens."""

    def __init__(self, states_s: list[float], others_s: tuple[float, ...] = ()) -> None:
        self.now_s, self.stamp_s = 0.0, -1e9
        self._events = sorted([(t, True) for t in states_s] + [(t, False) for t in others_s])
        self.served = 0

    def spin_once(self, timeout_sec: float) -> None:
        if self._events and self._events[0][0] <= self.now_s + timeout_sec:
            event_s, is_state = self._events.pop(0)
            self.now_s = max(event_s, self.now_s)
            self.served += 1
            if is_state:
                self.stamp_s = event_s
        else:
            self.now_s += timeout_sec


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch):
    """Function (script, deadline) -> (error, when it returned)."""

    def run(script: Script, due_s: float) -> tuple[float, float]:
        monkeypatch.setattr(module.time, "monotonic", lambda: script.now_s)
        return StatePace(script, lambda: script.stamp_s, PERIOD_S)(due_s), script.now_s

    return run


@pytest.mark.parametrize("error_s", [-0.9 * EARLY_S, 0.0, 0.9 * LATE_S])
def test_a_state_near_the_deadline_starts_the_tick(wait, error_s: float) -> None:
    found_s, now_s = wait(Script([0.001, 0.006 + error_s], others_s=(0.002, 0.0055)), 0.006)
    assert found_s == pytest.approx(error_s)
    assert now_s == pytest.approx(0.006 + error_s)


def test_a_state_elsewhere_is_not_waited_for_but_followed(wait) -> None:
    error_s, now_s = wait(Script([0.003]), 0.006)
    assert error_s == pytest.approx(-0.003)
    assert now_s == pytest.approx(0.006 + LATE_S)
    # More than half a period early is nearer to the one before.
    assert wait(Script([0.0005]), 0.006)[0] == pytest.approx(0.0045)


def test_without_states_it_waits_for_the_deadline_alone(wait) -> None:
    error_s, now_s = wait(Script([]), 0.006)
    assert error_s == 0.0
    assert now_s == pytest.approx(0.006 + LATE_S)


def test_a_late_loop_still_serves_callbacks(wait) -> None:
    script = Script([], others_s=(0.02, 0.02))
    script.now_s = 0.02
    wait(script, 0.006)
    assert script.served == 2


def test_a_state_that_came_while_nobody_listened_begins_the_tick_at_once(wait) -> None:
    script = Script([0.0055])
    script.now_s = 0.0063
    error_s, now_s = wait(script, 0.006)
    # Its deadlines follow the time of measurement, not that of being heard: else being late would last.
    assert error_s == pytest.approx(-0.0005)
    assert now_s == pytest.approx(0.0063)
