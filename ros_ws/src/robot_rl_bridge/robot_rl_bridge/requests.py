"""One operator request at a time, answered once the controller has granted or refused it. No ROS in here."""

from __future__ import annotations

from dataclasses import dataclass

from robot_rl.runtime.controller import Request, Tick
from robot_rl.runtime.modes import Mode

# The mode that shows a request as granted; None: it is granted unless refused.
_GRANTED: dict[Request, tuple[Mode, ...] | None] = {
    Request.STAND: (Mode.STAND,),
    Request.RUN: (Mode.RUN,),
    Request.STOP: None,
    Request.ESTOP: (Mode.DAMP, Mode.FAULT),
    Request.RESET: (Mode.IDLE,),
}
PATIENCE_TICKS = 5
"""Ticks within which the controller shows what it made of a request: standing up takes two."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request came to."""

    granted: bool
    reason: str


class PendingRequest:
    """Watches ticks until they tell what became of a request."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._ticks = 0

    def judge(self, tick: Tick) -> Answer | None:
        """The answer, or None if it is still open after `tick`."""
        self._ticks += 1
        if tick.note.startswith(f"{self.request.value} refused"):
            return Answer(False, tick.note)
        modes = _GRANTED[self.request]
        if modes is None or tick.mode in modes:
            return Answer(True, f"mode is {tick.mode.value}")
        if self._ticks >= PATIENCE_TICKS:
            return Answer(False, f"mode is {tick.mode.value}, cause {tick.cause.value}")
        return None
