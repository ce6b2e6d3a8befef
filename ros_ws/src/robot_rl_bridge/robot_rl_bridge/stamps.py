"""Other clocks' time stamps, brought to this process's monotonic clock."""

from __future__ import annotations

import math

DRIFT = 500e-6
"""Largest rate difference that two clocks are allowed, s/s: what NTP slews by."""
RESTART_S = 1.0
"""A sender silent, or sending no newer stamp, for this long has restarted."""


class StampMapper:
    """Time at which a message was stamped, on the receiver's clock, whatever the sender's clock reads.

    The shortest transit seen so far is taken as none, so a message that waited in a queue or a stalled process shows
    its age, which its time of arrival hides. A constant delay cannot be seen this way.
    """

    def __init__(self) -> None:
        self._offset_s = math.inf
        self._newest_s = -math.inf
        self._accepted_s = -math.inf

    def map(self, stamp_s: float, now_s: float) -> float | None:
        """`stamp_s` on the clock of `now_s`, never later than it; None if it is no newer than one seen before."""
        if not math.isfinite(stamp_s):
            return None
        if stamp_s <= self._newest_s:
            if now_s - self._accepted_s < RESTART_S:
                return None
            self._offset_s = math.inf
        elapsed_s = now_s - self._accepted_s if math.isfinite(self._accepted_s) else 0.0
        self._offset_s = min(self._offset_s + DRIFT * elapsed_s, now_s - stamp_s)
        self._newest_s, self._accepted_s = stamp_s, now_s
        return stamp_s + self._offset_s
