"""Modes of the control loop and the only ways between them.

    INIT -> IDLE -> DAMP -> STAND -> RUN
    RUN -> RECOVER, HOME, HOLD; STAND -> HOME, HOLD (backups: time-limited) -> STAND on request, else DAMP
    any -> DAMP -> FAULT (if the cause is latched) -> IDLE by the operator's reset, with every check green

INIT and IDLE send no torque; DAMP and FAULT send damping; the others send position targets. Nothing but an operator's
request makes the robot stiffer: trips only lead downwards, RECOVER to HOME to HOLD to DAMP, and DAMP and FAULT lead
back to RUN through STAND alone.
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
    """Ramp from the measured pose to that in which the policy's episodes begin, and stay there."""
    RUN = "run"
    """The policy's targets."""
    RECOVER = "recover"
    """Backup: the recovery policy's targets, for a limited time."""
    HOME = "home"
    """Backup: ramp from the measured pose to the same, for a limited time."""
    HOLD = "hold"
    """Backup: frozen at the measured pose, for at most the profile's hold limit."""
    FAULT = "fault"
    """Damping, until an operator resets."""


class Request(str, Enum):
    """What an operator asks for; each is the Event of the same name."""

    STAND = "stand"
    RUN = "run"
    STOP = "stop"
    ESTOP = "estop"
    RESET = "reset"


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
    TO_RECOVERY = "to_recovery"
    """A check of severity HOLD tripped, and the recovery policy is the backup to fall to; likewise the next two."""
    TO_HOME = "to_home"
    TO_HOLD = "to_hold"
    HARD_TRIP = "hard_trip"
    """A check of severity DAMP tripped, or a softer one where no other backup is left."""
    STAND_ABORTED = "stand_aborted"
    """The joints did not follow the ramp."""
    BACKUP_EXPIRED = "backup_expired"
    """A backup reached its time limit."""
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
        Event.TO_HOME: Mode.HOME,
        Event.TO_HOLD: Mode.HOLD,
        Event.HARD_TRIP: Mode.DAMP,
        Event.STAND_ABORTED: Mode.DAMP,
        Event.ESTOP: Mode.DAMP,
    },
    Mode.RUN: {
        Event.STAND: Mode.STAND,
        Event.STOP: Mode.STAND,
        Event.TO_RECOVERY: Mode.RECOVER,
        Event.TO_HOME: Mode.HOME,
        Event.TO_HOLD: Mode.HOLD,
        Event.HARD_TRIP: Mode.DAMP,
        Event.ESTOP: Mode.DAMP,
    },
    Mode.RECOVER: {
        Event.STAND: Mode.STAND,
        Event.STOP: Mode.DAMP,
        Event.TO_HOME: Mode.HOME,
        Event.TO_HOLD: Mode.HOLD,
        Event.HARD_TRIP: Mode.DAMP,
        Event.BACKUP_EXPIRED: Mode.DAMP,
        Event.ESTOP: Mode.DAMP,
    },
    Mode.HOME: {
        Event.STAND: Mode.STAND,
        Event.STOP: Mode.DAMP,
        Event.TO_HOLD: Mode.HOLD,
        Event.HARD_TRIP: Mode.DAMP,
        Event.STAND_ABORTED: Mode.DAMP,
        Event.BACKUP_EXPIRED: Mode.DAMP,
        Event.ESTOP: Mode.DAMP,
    },
    Mode.HOLD: {
        Event.STAND: Mode.STAND,
        Event.STOP: Mode.DAMP,
        Event.HARD_TRIP: Mode.DAMP,
        Event.BACKUP_EXPIRED: Mode.DAMP,
        Event.ESTOP: Mode.DAMP,
    },
    Mode.FAULT: {
        Event.RESET: Mode.IDLE,
    },
}

STIFF_MODES = frozenset({Mode.STAND, Mode.RUN, Mode.RECOVER, Mode.HOME, Mode.HOLD})
"""Modes that send position targets."""
POLICY_MODES = frozenset({Mode.RUN, Mode.RECOVER})
"""Modes in which a policy moves the robot, so that a deadman button must be held where there is one."""


def next_mode(mode: Mode, event: Event) -> Mode:
    """The mode after `event`; the same mode where the event means nothing."""
    return TRANSITIONS[mode].get(event, mode)
