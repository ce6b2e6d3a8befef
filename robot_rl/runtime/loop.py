"""The control loop: read, step, write, at absolute deadlines; and damping on every way out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import Command, JointCommand, NumpyState, damping_command
from robot_rl.errors import ConfigError
from robot_rl.runtime.interface import Clock, Health, MonotonicClock, RobotInterface
from robot_rl.runtime.signals import no_garbage_collection, stop_on_signals

if TYPE_CHECKING:
    # Who only damps needs no policy, and none of what runs it.
    from robot_rl.runtime.controller import Controller, Tick

DAMP_OUT_S = 1.0
"""How long damping is streamed before the robot is released."""

READY_S, READY_SHARE = 0.0005, 0.1
"""How long before a deadline the rehearsal is over: the state is on its way by then, and those that carry it need a
core. In a fast loop it is this share of a period."""
REHEARSAL_SHARE = 1 / 2
"""Of a period: the most that rehearsing and being ready may take. What would take more is left out."""
REHEARSAL_FADE = 0.95
"""A rehearsal is given the time of the longest one so far, which is forgotten at this rate per tick."""

PHASE_GAIN = 0.2
PHASE_STEP = 0.01
"""Deadlines follow the robot's clock by a share of the difference, and by this share of a period per tick at most."""

_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Takes what happened in a tick; must return at once."""

    def record(self, tick: Tick, state: NumpyState | None, sent: JointCommand) -> None: ...


class CommandSink(Protocol):
    """What of a RobotInterface damping needs."""

    def write(self, command: JointCommand) -> JointCommand: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LoopReport:
    """How a run went."""

    ticks: int
    overruns: int
    """Deadlines that passed before their tick could start; each such tick was left out."""
    worst_late_s: float
    """Latest start of a tick after its deadline."""
    reason: str
    """Why it ended: "duration", "until" or the name of a signal."""


def run(
    controller: Controller,
    robot: RobotInterface,
    clock: Clock,
    *,
    duration_s: float | None = None,
    until: Callable[[Tick], bool] | None = None,
    get_command: Callable[[float], Command | None] | None = None,
    on_tick: Callable[[Tick], None] | None = None,
    recorder: Recorder | None = None,
    rehearse: bool = True,
    wait_for_state: Callable[[float], float] | None = None,
) -> LoopReport:
    """Run a connected robot for `duration_s`, until `until` is true of a tick, or until one of STOPPING comes.

    `get_command` gives the operator's newest command for a time; `on_tick` sees every tick, and is where requests are
    made; `rehearse` warms the caches just before each deadline. `wait_for_state`, in place of the clock, waits until
    about a deadline for a state, and tells how much later than the deadline one came, s: the deadlines then follow the
    robot's clock, so that a tick begins when its state arrives, at the rate that was asked for.

    Whatever ends the run, an exception included, damping is streamed for DAMP_OUT_S at loop rate and `robot.stop()` is
    called; the exception then goes on. Only SIGKILL and a dead host are beyond this: for them commands carry an expiry,
    which the driver must honour.
    """
    if duration_s is not None and not duration_s > 0:
        raise ConfigError(f"duration_s must be positive, got {duration_s}")
    with stop_on_signals() as stopping, no_garbage_collection():
        try:
            ticks, overruns, worst_late_s, reason = 0, 0, 0.0, ""
            period_s = controller.loop_period_s
            start_s = clock.now()
            deadline = 0
            rehearsal = _Rehearsal(controller, robot, clock)
            read_health: Callable[[], Health | None] = getattr(robot, "health", lambda: None)
            while not reason:
                due_s = start_s + deadline * period_s
                if rehearse:
                    rehearsal.before(due_s)
                if wait_for_state is None:
                    clock.sleep_until(due_s)
                else:
                    step_s = PHASE_STEP * period_s
                    start_s += min(max(PHASE_GAIN * wait_for_state(due_s), -step_s), step_s)
                now_s = clock.now()
                late_s = now_s - due_s
                worst_late_s = max(worst_late_s, late_s)
                state = robot.read()
                # Time of the read, not of the deadline: the state's age is measured, never assumed.
                now_s = clock.now()
                tick = controller.step(state, get_command(now_s) if get_command else None, now_s, health=read_health())
                sent = robot.write(tick.command)
                ticks += 1
                if recorder is not None:
                    recorder.record(tick, state, sent)
                if on_tick is not None:
                    on_tick(tick)
                # Deadlines stay a whole number of periods from the start; those that have passed are left out.
                following = max(deadline + 1, math.ceil((clock.now() - start_s) / period_s - 1e-6))
                overruns += following - (deadline + 1)
                deadline = following
                if stopping.signal is not None:
                    reason = stopping.signal.name
                elif until is not None and until(tick):
                    reason = "until"
                elif duration_s is not None and deadline * period_s > duration_s - 1e-9:
                    reason = "duration"
            return LoopReport(ticks, overruns, worst_late_s, reason)
        finally:
            damp_out(robot, controller.limits.damping_kd, controller.loop_period_s, clock)


class _Rehearsal:
    """A tick that has no effect, shortly before the real one: what that needs is then in the caches."""

    def __init__(self, controller: Controller, robot: RobotInterface, clock: Clock) -> None:
        period_s = controller.loop_period_s
        self._clock, self._most_s = clock, REHEARSAL_SHARE * period_s
        self._ready_s = min(READY_S, READY_SHARE * period_s)
        self._rehearse: Callable[[], None] = controller.rehearse
        self._rehearse_robot: Callable[[], None] = getattr(robot, "rehearse", lambda: None)
        self._takes_s = 0.0

    def before(self, due_s: float) -> None:
        """Be done a little before `due_s`; or let it be, if that takes too long or the loop is late."""
        self._takes_s *= REHEARSAL_FADE
        ahead_s = self._ready_s + self._takes_s
        if ahead_s > self._most_s or self._clock.now() >= due_s - ahead_s:
            return
        self._clock.sleep_until(due_s - ahead_s)
        begun_s = self._clock.now()
        self._rehearse()
        self._rehearse_robot()
        self._takes_s = max(self._takes_s, self._clock.now() - begun_s)


def damp_out(
    robot: CommandSink,
    damping_kd: NDArray[np.float64],
    period_s: float,
    clock: Clock,
    duration_s: float = DAMP_OUT_S,
) -> None:
    """Stream damping for `duration_s`, then stop the robot. Raises nothing: a failed write must not skip the next."""
    start_s = clock.now()
    for tick in range(max(1, math.ceil(duration_s / period_s))):
        try:
            robot.write(damping_command(damping_kd, clock.now(), max(0.1, 3 * period_s)))
        except Exception:
            _log.exception("damping command was not sent")
        try:
            clock.sleep_until(start_s + (tick + 1) * period_s)
        except Exception:
            # A clock that serves callbacks raises what they raise; it is perhaps why we are here.
            _log.exception("damping goes on without callbacks")
            clock = MonotonicClock()
    robot.stop()
