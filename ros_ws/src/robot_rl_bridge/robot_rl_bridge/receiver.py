"""What the last hop before the motors asks of a command before obeying it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import JointCommand
from robot_rl_bridge.stamps import StampMapper

ROWS = ("position", "velocity", "effort", "kp", "kd")
"""What a joint command says of each joint, in this order."""


@dataclass(frozen=True, slots=True)
class CommandMessage:
    """A joint command as received: five rows of values, and what the receiver needs to judge it."""

    session: float
    sequence: float
    sent_s: float
    time_to_live_s: float
    values: NDArray[np.float64]
    """(5, n_joints), see ROWS."""


class CommandReceiver:
    """Turns received commands into commands in force, with an expiry on the receiver's clock, or rejects them.

    One sender at a time: a second session is rejected for as long as the first one's last command lives. Commands that
    arrive out of order, or after they have expired, are rejected.
    """

    def __init__(self) -> None:
        self.rejected: Counter[str] = Counter()
        """Number of rejections, by reason."""
        self.last_rejection = ""
        self._session = math.nan
        self._sequence = -math.inf
        self._expires_s = -math.inf
        self._stamps = StampMapper()

    def accept(self, message: CommandMessage, now_s: float) -> JointCommand | None:
        """The command to obey until its `expires_s`, or None."""
        if message.session != self._session:
            if now_s < self._expires_s:
                return self._reject("another sender is in command")
            self._session, self._sequence, self._stamps = message.session, -math.inf, StampMapper()
        if message.sequence <= self._sequence:
            return self._reject("out of order")
        sent_s = self._stamps.map(message.sent_s, now_s)
        if sent_s is None:
            return self._reject("out of order")
        self._sequence = message.sequence
        expires_s = sent_s + message.time_to_live_s
        if expires_s <= now_s:
            return self._reject("arrived after it expired")
        self._expires_s = expires_s
        return JointCommand(*message.values, stamp_s=sent_s, expires_s=expires_s)

    def reject_malformed(self, error: Exception) -> None:
        """Count a message that could not even be decoded."""
        self.rejected["malformed"] += 1
        self.last_rejection = str(error)

    def _reject(self, reason: str) -> None:
        self.rejected[reason] += 1
        self.last_rejection = reason
