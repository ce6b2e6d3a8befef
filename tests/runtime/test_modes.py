import itertools

import pytest

from robot_rl.runtime.modes import POLICY_MODES, STIFF_MODES, TRANSITIONS, Event, Mode, Request, next_mode

ALL = list(itertools.product(Mode, Event))
OPERATOR = {Event(request.value) for request in Request}
DAMPED = (Mode.DAMP, Mode.FAULT)
BACKUPS = (Mode.RECOVER, Mode.HOME, Mode.HOLD, Mode.DAMP)
"""From the one that needs most to the one that needs nothing."""

# Written out a second time, by hand, from the safety specification: (mode, event) -> mode; everything else stays.
EXPECTED = {
    ("init", "sensors_ready"): "idle",
    ("init", "estop"): "damp",
    ("idle", "stand"): "damp",
    ("idle", "estop"): "damp",
    ("damp", "stand"): "stand",
    ("damp", "latched"): "fault",
    ("stand", "run"): "run",
    ("stand", "stop"): "damp",
    ("stand", "to_home"): "home",
    ("stand", "to_hold"): "hold",
    ("stand", "hard_trip"): "damp",
    ("stand", "stand_aborted"): "damp",
    ("stand", "estop"): "damp",
    ("run", "stand"): "stand",
    ("run", "stop"): "stand",
    ("run", "to_recovery"): "recover",
    ("run", "to_home"): "home",
    ("run", "to_hold"): "hold",
    ("run", "hard_trip"): "damp",
    ("run", "estop"): "damp",
    ("recover", "stand"): "stand",
    ("recover", "stop"): "damp",
    ("recover", "to_home"): "home",
    ("recover", "to_hold"): "hold",
    ("recover", "hard_trip"): "damp",
    ("recover", "backup_expired"): "damp",
    ("recover", "estop"): "damp",
    ("home", "stand"): "stand",
    ("home", "stop"): "damp",
    ("home", "to_hold"): "hold",
    ("home", "hard_trip"): "damp",
    ("home", "stand_aborted"): "damp",
    ("home", "backup_expired"): "damp",
    ("home", "estop"): "damp",
    ("hold", "stand"): "stand",
    ("hold", "stop"): "damp",
    ("hold", "hard_trip"): "damp",
    ("hold", "backup_expired"): "damp",
    ("hold", "estop"): "damp",
    ("fault", "reset"): "idle",
}


def reached(start: Mode, *, without: tuple[Mode, ...] = (), events: set[Event] | None = None) -> set[Mode]:
    """All modes that some sequence of events leads to, `start` included, never entering those in `without`."""
    found, frontier = {start}, [start]
    while frontier:
        mode = frontier.pop()
        for event in events or set(Event):
            after = next_mode(mode, event)
            if after not in found and after not in without:
                found.add(after)
                frontier.append(after)
    return found


@pytest.mark.parametrize(("mode", "event"), ALL)
def test_every_pair_of_mode_and_event(mode: Mode, event: Event) -> None:
    assert next_mode(mode, event).value == EXPECTED.get((mode.value, event.value), mode.value)


def test_every_mode_has_its_row() -> None:
    assert set(TRANSITIONS) == set(Mode)


def test_every_mode_is_reached_from_the_start() -> None:
    assert reached(Mode.INIT) == set(Mode)


@pytest.mark.parametrize("start", [m for m in Mode if m not in (Mode.STAND, Mode.RUN)])
def test_no_path_to_run_but_through_stand(start: Mode) -> None:
    assert Mode.RUN not in reached(start, without=(Mode.STAND,))


@pytest.mark.parametrize("start", DAMPED)
def test_damping_is_left_through_stand_alone(start: Mode) -> None:
    assert not reached(start, without=(Mode.STAND,)) & STIFF_MODES


@pytest.mark.parametrize("mode", Mode)
def test_damping_is_one_tick_away_from_everywhere(mode: Mode) -> None:
    assert next_mode(mode, Event.ESTOP) in DAMPED


@pytest.mark.parametrize("mode", sorted(STIFF_MODES))
def test_a_hard_trip_damps_wherever_positions_are_commanded(mode: Mode) -> None:
    assert next_mode(mode, Event.HARD_TRIP) == Mode.DAMP


def test_fault_is_left_by_reset_alone_and_without_torque() -> None:
    leaving = {event: next_mode(Mode.FAULT, event) for event in Event if next_mode(Mode.FAULT, event) != Mode.FAULT}
    assert leaving == {Event.RESET: Mode.IDLE}
    assert reached(Mode.FAULT, events=set(Event) - {Event.RESET}) == {Mode.FAULT}


@pytest.mark.parametrize(("mode", "event"), [(m, e) for m, e in ALL if e not in OPERATOR])
def test_only_an_operator_makes_the_robot_stiffer(mode: Mode, event: Event) -> None:
    after = next_mode(mode, event)
    # A backup from RUN or STAND is no stiffer than they are.
    assert after not in STIFF_MODES or mode in STIFF_MODES
    assert after != Mode.RUN or mode == Mode.RUN
    # A policy takes over from a policy only.
    assert after not in POLICY_MODES or mode in POLICY_MODES


@pytest.mark.parametrize(("mode", "event"), [(m, e) for m, e in ALL if m in BACKUPS and e not in OPERATOR])
def test_backups_only_go_down(mode: Mode, event: Event) -> None:
    after = next_mode(mode, event)
    assert after == Mode.FAULT or BACKUPS.index(after) >= BACKUPS.index(mode)


def test_without_an_operator_everything_stiff_ends_damped_once_time_runs_out() -> None:
    for mode in (Mode.RECOVER, Mode.HOME, Mode.HOLD):
        assert next_mode(mode, Event.BACKUP_EXPIRED) == Mode.DAMP
