"""When a tick begins: as its state arrives, at the loop's own rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from robot_rl_bridge.ros_compat import MIN_SERVICE_S

EARLY, MOST_EARLY_S = 0.125, 0.0005
"""By how much of a period, and how much time, a state may begin its tick early: less than half the interval of states
that come up to four times per tick, and than what the loop rehearses before a deadline."""
LATE = 0.25
"""Of a period: how long a tick waits for a state that is late. A fresh state late is worth more than an old one."""


class StatePace:
    """Waits for the state of a tick, until a little after its deadline; `wait_for_state` of the control loop.

    `arrived_s` says when the newest state came, on the monotonic clock. A tick that began by its deadline alone would
    find a state that had been waiting for up to an interval of states.
    """

    def __init__(self, executor: Any, arrived_s: Callable[[], float], period_s: float) -> None:
        self._executor, self._arrived_s, self._period_s = executor, arrived_s, period_s
        self._early_s = min(EARLY * period_s, MOST_EARLY_S)

    def __call__(self, due_s: float) -> float:
        """How much later than `due_s` the nearest state came, s; 0 if none comes."""
        opens_s = due_s - self._early_s
        closes_s = max(due_s + LATE * self._period_s, time.monotonic() + MIN_SERVICE_S)
        while True:
            now, arrived_s = time.monotonic(), self._arrived_s()
            if arrived_s >= opens_s or now >= closes_s:
                break
            # Callbacks end the wait, and what arrived is looked at again.
            self._executor.spin_once(timeout_sec=(opens_s if now < opens_s else closes_s) - now)
        if now - arrived_s > 2 * self._period_s:
            return 0.0
        half_s = self._period_s / 2
        return (arrived_s - due_s + half_s) % self._period_s - half_s
