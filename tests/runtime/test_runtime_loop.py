import gc
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.controller import Controller, Request
from robot_rl.runtime.interface import MonotonicClock
from robot_rl.runtime.loop import READY_S, REHEARSAL_FADE, REHEARSAL_SHARE, run
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.signals import STOPPING
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.fakes import FakeClock, FakeRobot

PERIOD_S = 0.02


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyPolicy(LEAP_HAND, control_period_s=PERIOD_S, command_dim=0).write(
        tmp_path_factory.mktemp("b") / "bundle"
    )


class Rig:
    def __init__(self, path: Path, loop_period_s: float | None = None) -> None:
        self.clock = FakeClock()
        self.robot = FakeRobot(LEAP_HAND, self.clock)
        self.controller = Controller(load_bundle(path), LEAP_HAND, loop_period_s)

    def run(self, **arguments):
        return run(self.controller, self.robot, self.clock, **arguments)

    def operate(self, tick) -> None:
        """To RUN, as soon as it is granted."""
        if tick.mode in (Mode.IDLE, Mode.STAND):
            self.controller.request(Request.STAND if tick.mode == Mode.IDLE else Request.RUN)

    def assert_damped_out(self) -> None:
        """The last second of commands is damping at loop rate, and then the robot was stopped."""
        last = self.robot.commands[-round(1.0 / PERIOD_S) :]
        assert not any(c.kp.any() for c in last)
        assert all((c.kd == self.controller.limits.damping_kd).all() for c in last)
        stamps = np.array([c.stamp_s for c in last])
        np.testing.assert_allclose(np.diff(stamps), PERIOD_S)
        assert self.robot.stops >= 1


def test_ends_after_its_duration_and_damps(path: Path) -> None:
    rig = Rig(path)
    report = rig.run(duration_s=4.0, on_tick=rig.operate)
    assert (report.ticks, report.overruns, report.reason) == (200, 0, "duration")
    assert rig.controller.mode == Mode.RUN
    rig.assert_damped_out()


def test_ends_when_until_says_so(path: Path) -> None:
    rig = Rig(path)
    report = rig.run(until=lambda tick: tick.mode == Mode.RUN, on_tick=rig.operate)
    assert report.reason == "until"
    rig.assert_damped_out()


@pytest.mark.parametrize("where", ["read", "on_tick", "get_command", "recorder"])
def test_an_exception_anywhere_damps_and_goes_on(path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(path)
    calls = 0

    def fail(*_):
        nonlocal calls
        calls += 1
        if calls > 150:
            raise ZeroDivisionError("in the loop")

    arguments = {"on_tick": rig.operate}
    if where == "read":
        good = rig.robot.read
        monkeypatch.setattr(rig.robot, "read", lambda: fail() or good())
    elif where == "recorder":
        arguments["recorder"] = type("Recorder", (), {"record": staticmethod(fail)})()
    elif where == "on_tick":
        arguments["on_tick"] = lambda tick: fail() or rig.operate(tick)
    else:
        arguments["get_command"] = fail
    with pytest.raises(ZeroDivisionError):
        rig.run(**arguments)
    rig.assert_damped_out()


def test_a_write_that_fails_does_not_keep_the_next_damping_back(path: Path) -> None:
    rig = Rig(path)
    attempts: list[float] = []

    def broken(command):
        attempts.append(command.stamp_s)
        raise OSError("cable")

    rig.robot.write = broken  # type: ignore[method-assign]
    with pytest.raises(OSError, match="cable"):
        rig.run(duration_s=1.0)
    assert len(attempts) == 1 + round(1.0 / PERIOD_S)
    assert rig.robot.stops == 1


def test_deadlines_are_absolute_and_missed_ones_are_left_out(path: Path) -> None:
    rig = Rig(path)
    starts: list[float] = []

    def slow(tick) -> None:
        starts.append(tick.now_s - 100.0)
        # The third tick takes 2.5 periods.
        rig.clock.advance(2.5 * PERIOD_S if len(starts) == 3 else 0.3 * PERIOD_S)

    report = rig.run(duration_s=0.2, on_tick=slow)
    np.testing.assert_allclose(np.array(starts) / PERIOD_S, [0, 1, 2, 5, 6, 7, 8, 9])
    assert report.overruns == 2


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_each_tick_is_rehearsed_in_time_before_its_deadline(
    path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    rig = Rig(path)
    times: list[float] = []

    def rehearse() -> None:
        times.append(rig.clock.now() - 100.0)
        rig.clock.advance(share * PERIOD_S)

    monkeypatch.setattr(rig.controller, "rehearse", rehearse)
    ticks = []
    rig.run(duration_s=0.1, on_tick=ticks.append)
    # From the second on it is known how long a rehearsal takes; of that a little is forgotten each time.
    ahead_s = READY_S + REHEARSAL_FADE * share * PERIOD_S
    assert times[0] == pytest.approx(PERIOD_S - READY_S)
    np.testing.assert_allclose(times[1:], [k * PERIOD_S - ahead_s for k in range(2, 5)])
    # The first one made its tick late.
    np.testing.assert_allclose([t.now_s - 100.0 for t in ticks][2:], [k * PERIOD_S for k in range(2, 5)])
    times.clear()
    rig.run(duration_s=0.1, on_tick=lambda _: rig.clock.advance(0.99 * PERIOD_S))
    assert not times
    rig.run(duration_s=0.1, rehearse=False)
    assert not times


def test_in_a_fast_loop_the_rehearsal_ends_a_tenth_of_a_period_ahead(path: Path, monkeypatch) -> None:
    rig = Rig(path, loop_period_s=0.002)
    times: list[float] = []
    monkeypatch.setattr(rig.controller, "rehearse", lambda: times.append(rig.clock.now() - 100.0))
    rig.run(duration_s=0.02)
    np.testing.assert_allclose(times, [0.002 * k - 0.0002 for k in range(1, len(times) + 1)])
    assert len(times) > 5


def test_a_rehearsal_that_takes_too_long_is_left_out_until_that_is_forgotten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(path)
    times: list[float] = []

    def rehearse() -> None:
        times.append(rig.clock.now() - 100.0)
        rig.clock.advance(0.6 * PERIOD_S)

    monkeypatch.setattr(rig.controller, "rehearse", rehearse)
    report = rig.run(duration_s=1.0)
    room = REHEARSAL_SHARE - READY_S / PERIOD_S
    periods = math.ceil(math.log(room / 0.6) / math.log(REHEARSAL_FADE))
    assert len(times) == pytest.approx(1.0 / PERIOD_S / periods, abs=1)
    assert report.overruns == 0


def test_no_garbage_is_collected_while_running(path: Path) -> None:
    rig = Rig(path)
    seen = []
    rig.run(duration_s=0.1, on_tick=lambda _: seen.append(gc.isenabled()))
    assert not any(seen)
    assert gc.isenabled()


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan")])
def test_a_duration_that_makes_no_sense(path: Path, duration_s: float) -> None:
    with pytest.raises(ConfigError, match="duration_s must be positive"):
        Rig(path).run(duration_s=duration_s)


@pytest.mark.usefixtures("hangup_is_heard")
@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_ends_the_run_and_the_handlers_come_back(path: Path, number: signal.Signals) -> None:
    rig = Rig(path)
    before = signal.getsignal(number)

    def kill(tick) -> None:
        rig.operate(tick)
        if tick.mode == Mode.RUN:
            os.kill(os.getpid(), number)

    report = rig.run(on_tick=kill)
    assert report.reason == number.name
    assert signal.getsignal(number) is before
    rig.assert_damped_out()


def test_nohup_goes_on_when_its_terminal_is_lost(path: Path) -> None:
    rig = Rig(path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def hang_up(tick) -> None:
        rig.operate(tick)
        os.kill(os.getpid(), signal.SIGHUP)

    try:
        assert rig.run(on_tick=hang_up, duration_s=0.5).reason == "duration"
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_does_not_cut_the_damping_short(path: Path) -> None:
    rig = Rig(path)
    good = rig.robot.write

    def write(command):
        if len(rig.robot.commands) in (5, 20, 30):
            os.kill(os.getpid(), signal.SIGINT)
        return good(command)

    rig.robot.write = write  # type: ignore[method-assign]
    assert rig.run().reason == "SIGINT"
    rig.assert_damped_out()


def test_runs_in_a_thread_too(path: Path) -> None:
    rig = Rig(path)
    thread = threading.Thread(target=lambda: rig.run(duration_s=0.1))
    thread.start()
    thread.join(10)
    rig.assert_damped_out()


def test_in_real_time_and_killed_by_the_terminal(path: Path) -> None:
    """A process of its own, a real clock, a real SIGTERM: every command after the signal damps, for a second."""
    program = textwrap.dedent("""
        import sys
        from robot_rl.bundle.load import load_bundle
        from robot_rl.robots import LEAP_HAND
        from robot_rl.runtime.controller import Controller, Request
        from robot_rl.runtime.interface import MonotonicClock
        from robot_rl.runtime.loop import run
        from robot_rl.testing.fakes import FakeRobot

        clock = MonotonicClock()
        robot = FakeRobot(LEAP_HAND, clock)
        controller = Controller(load_bundle(sys.argv[1]), LEAP_HAND)
        controller.request(Request.STAND)

        def on_tick(tick):
            if tick.mode.value == "idle":
                controller.request(Request.STAND)
            if tick.mode.value == "stand":
                print("standing", flush=True)

        report = run(controller, robot, clock, on_tick=on_tick)
        stiff = [c.stamp_s for c in robot.commands if c.kp.any()]
        print(report.reason, robot.stops, round(robot.commands[-1].stamp_s - stiff[-1], 2), flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "standing\n"
    process.send_signal(signal.SIGTERM)
    last = process.stdout.read().splitlines()[-1].split()
    assert process.wait(10) == 0
    assert last[:2] == ["SIGTERM", "1"]
    assert float(last[2]) == pytest.approx(1.0, abs=0.1)


def test_the_real_clock_keeps_its_deadlines() -> None:
    clock = MonotonicClock()
    start_s = clock.now()
    clock.sleep_until(start_s + 0.02)
    assert 0.02 <= clock.now() - start_s < 0.2
    clock.sleep_until(start_s)
    assert clock.now() - start_s < 0.3


@pytest.mark.parametrize("rate", [0.996, 1.0, 1.004])
def test_ticks_follow_a_robot_whose_clock_differs(path: Path, rate: float) -> None:
    """States at multiples of their own period: ticks come to start with them, never faster than the bound allows."""
    rig = Rig(path)
    period_s, phase_s = PERIOD_S / rate, 0.37 * PERIOD_S
    ticks_s: list[float] = []

    def wait(due_s: float) -> float:
        late_s = (due_s - phase_s) % period_s
        error_s = -late_s if late_s < period_s / 2 else period_s - late_s
        # In a window about the deadline the state itself ends the wait.
        rig.clock.sleep_until(due_s + (error_s if abs(error_s) < 0.001 else 0.001))
        return error_s

    rig.run(duration_s=6.0, wait_for_state=wait, on_tick=lambda tick: ticks_s.append(tick.now_s))
    settled = np.array(ticks_s[200:])
    offset_s = (settled - phase_s + period_s / 2) % period_s - period_s / 2
    assert np.abs(offset_s).max() < 1e-6
    np.testing.assert_allclose(np.diff(settled), period_s, atol=1e-6)
    # On the way there: no tick further from its neighbours than the window and the step per tick.
    assert np.abs(np.diff(ticks_s) - PERIOD_S).max() < 0.001 + 0.011 * PERIOD_S


def test_ticks_go_on_by_themselves_where_no_state_comes(path: Path) -> None:
    rig = Rig(path)

    def wait(due_s: float) -> float:
        rig.clock.sleep_until(due_s)
        return 0.0

    report = rig.run(duration_s=2.0, wait_for_state=wait)
    assert (report.ticks, report.overruns) == (100, 0)
