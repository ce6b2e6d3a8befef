"""When a tick begins: as its state arrives, at the loop's own rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from robot_rl_bridge.ros_compat import MIN_SERVICE_S

EARLY = 0.125
"""Of a period: how long before its deadline a state may have been measured to begin its tick. Less than half the
interval of states that come up to four times per tick."""
LATE = 0.25
"""Of a period: how long a tick waits for a state that is late. A fresh state late is worth more than an old one."""


class StatePace:
    """Waits for the state of a tick, until a little after its deadline; `wait_for_state` of the control loop.

    `stamp_s` says when the newest state was measured, on the monotonic clock. A tick that began by its deadline alone
    would find a state that had been waiting for up to an interval of states. The time of arrival would not do in its
    place: a state that comes while this process is busy arrives late, and a loop that follows it stays late, and busy.
    """

    def __init__(self, executor: Any, stamp_s: Callable[[], float], period_s: float) -> None:
        self._executor, self._stamp_s, self._period_s = executor, stamp_s, period_s

    def __call__(self, due_s: float) -> float:
        """How much later than `due_s` the nearest state was measured, s; 0 if none comes."""
        opens_s = due_s - EARLY * self._period_s
        closes_s = max(due_s + LATE * self._period_s, time.monotonic() + MIN_SERVICE_S)
        while True:
            now, stamp_s = time.monotonic(), self._stamp_s()
            if stamp_s >= opens_s or now >= closes_s:
                break
            # Callbacks end the wait, and what arrived is looked at again.
            self._executor.spin_once(timeout_sec=(opens_s if now < opens_s else closes_s) - now)
        if now - stamp_s > 2 * self._period_s:
            return 0.0
        half_s = self._period_s / 2
        return (stamp_s - due_s + half_s) % self._period_s - half_s
