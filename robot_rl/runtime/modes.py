"""Modes of the control loop and the only ways between them.

    INIT -> IDLE -> DAMP -> STAND -> RUN
    RUN, STAND -> HOLD (time-limited) -> STAND, else DAMP
    any -> DAMP -> FAULT (if the cause is latched) -> IDLE by the operator's reset, with every check green

INIT and IDLE send no torque; DAMP and FAULT send damping; the others send position targets. Nothing but an operator's
request makes the robot stiffer: trips only lead downwards, and DAMP and FAULT lead back to RUN through STAND alone.
"""

from __future__ import annotations

from enum import Enum


class Mode(str, Enum):
    """What the loop does with the robot."""

    INIT = "init"
    """No torque; waiting for the first valid state."""
    IDLE = "idle"
    """No torque; sensors checked."""
    DAMP = "damp"
    """Zero stiffness, damping: needs no state."""
    STAND = "stand"
    """Ramp from the measured pose to the default pose, and stay there."""
    RUN = "run"
    """The policy's targets."""
    HOLD = "hold"
    """Frozen at the measured pose, for at most the profile's hold limit."""
    FAULT = "fault"
    """Damping, until an operator resets."""


class Event(str, Enum):
    """What can change the mode."""

    SENSORS_READY = "sensors_ready"
    """A first valid and fresh state has come."""
    STAND = "stand"
    """Operator: stand."""
    RUN = "run"
    """Operator: run the policy; every start gate is passed."""
    STOP = "stop"
    """Operator: end gently."""
    ESTOP = "estop"
    """Operator: damp at once."""
    RESET = "reset"
    """Operator: leave FAULT; every check is green."""
    SOFT_TRIP = "soft_trip"
    """A check of severity HOLD tripped, on a robot whose backup is to hold."""
    HARD_TRIP = "hard_trip"
    """A check of severity DAMP tripped, or a softer one on a robot that must not hold."""
    STAND_ABORTED = "stand_aborted"
    """The joints did not follow the stand ramp."""
    HOLD_EXPIRED = "hold_expired"
    """HOLD reached its time limit."""
    LATCHED = "latched"
    """What led to DAMP needs an operator's reset."""


# What is not listed leaves the mode as it is. A trip in INIT or IDLE changes nothing, because no torque flows; the
# checks keep the robot from leaving IDLE. STAND asked in IDLE passes through DAMP: torque comes on as damping first.
TRANSITIONS: dict[Mode, dict[Event, Mode]] = {
    Mode.INIT: {
        Event.SENSORS_READY: Mode.IDLE,
        Event.ESTOP: Mode.DAMP,
    },
    Mode.IDLE: {
        Event.STAND: Mode.DAMP,
        Event.ESTOP: Mode.DAMP,
    },
    Mode.DAMP: {
        Event.STAND: Mode.STAND,
        Event.LATCHED: Mode.FAULT,
    },
    Mode.STAND: {
        Event.RUN: Mode.RUN,
        Event.STOP: Mode.DAMP,
        Event.SOFT_TRIP: Mode.HOLD,
        Event.HARD_TRIP: Mode.DAMP,
        Event.STAND_ABORTED: Mode.DAMP,
        Event.ESTOP: Mode.DAMP,
    },
    Mode.RUN: {
        Event.STAND: Mode.STAND,
        Event.STOP: Mode.STAND,
        Event.SOFT_TRIP: Mode.HOLD,
        Event.HARD_TRIP: Mode.DAMP,
        Event.ESTOP: Mode.DAMP,
    },
    Mode.HOLD: {
        Event.STAND: Mode.STAND,
        Event.STOP: Mode.DAMP,
        Event.HARD_TRIP: Mode.DAMP,
        Event.HOLD_EXPIRED: Mode.DAMP,
        Event.ESTOP: Mode.DAMP,
    },
    Mode.FAULT: {
        Event.RESET: Mode.IDLE,
    },
}

STIFF_MODES = frozenset({Mode.STAND, Mode.RUN, Mode.HOLD})
"""Modes that send position targets."""


def next_mode(mode: Mode, event: Event) -> Mode:
    """The mode after `event`; the same mode where the event means nothing."""
    return TRANSITIONS[mode].get(event, mode)
