import itertools

import pytest

from robot_rl.runtime.modes import STIFF_MODES, TRANSITIONS, Event, Mode, next_mode

ALL = list(itertools.product(Mode, Event))

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
    ("stand", "soft_trip"): "hold",
    ("stand", "hard_trip"): "damp",
    ("stand", "stand_aborted"): "damp",
    ("stand", "estop"): "damp",
    ("run", "stand"): "stand",
    ("run", "stop"): "stand",
    ("run", "soft_trip"): "hold",
    ("run", "hard_trip"): "damp",
    ("run", "estop"): "damp",
    ("hold", "stand"): "stand",
    ("hold", "stop"): "damp",
    ("hold", "hard_trip"): "damp",
    ("hold", "hold_expired"): "damp",
    ("hold", "estop"): "damp",
    ("fault", "reset"): "idle",
}


@pytest.mark.parametrize(("mode", "event"), ALL)
def test_every_pair_of_mode_and_event(mode: Mode, event: Event) -> None:
    assert next_mode(mode, event).value == EXPECTED.get((mode.value, event.value), mode.value)


def test_every_mode_has_its_row() -> None:
    assert set(TRANSITIONS) == set(Mode)


@pytest.mark.parametrize("start", [Mode.DAMP, Mode.FAULT, Mode.INIT, Mode.IDLE, Mode.HOLD])
def test_no_path_to_run_but_through_stand(start: Mode) -> None:
    reached, frontier = {start}, [start]
    while frontier:
        mode = frontier.pop()
        for event in Event:
            after = next_mode(mode, event)
            if after not in reached and after != Mode.STAND:
                reached.add(after)
                frontier.append(after)
    assert Mode.RUN not in reached


@pytest.mark.parametrize("mode", [m for m in Mode if m not in (Mode.FAULT, Mode.DAMP)])
def test_damp_is_one_tick_away(mode: Mode) -> None:
    # DAMP and FAULT send damping already.
    assert next_mode(mode, Event.ESTOP) == Mode.DAMP


@pytest.mark.parametrize("mode", sorted(STIFF_MODES))
def test_a_hard_trip_damps_wherever_positions_are_commanded(mode: Mode) -> None:
    assert next_mode(mode, Event.HARD_TRIP) == Mode.DAMP


def test_fault_is_left_by_reset_alone_and_without_torque() -> None:
    leaving = {event: next_mode(Mode.FAULT, event) for event in Event if next_mode(Mode.FAULT, event) != Mode.FAULT}
    assert leaving == {Event.RESET: Mode.IDLE}


@pytest.mark.parametrize(
    ("mode", "event"), [(m, e) for m, e in ALL if e not in (Event.STAND, Event.RUN, Event.STOP, Event.RESET)]
)
def test_only_an_operator_makes_the_robot_stiffer(mode: Mode, event: Event) -> None:
    after = next_mode(mode, event)
    # HOLD from RUN or STAND is no stiffer than they are.
    assert after not in STIFF_MODES or mode in STIFF_MODES
    assert after != Mode.RUN or mode == Mode.RUN
