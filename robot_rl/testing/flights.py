"""Short flights of a fake robot with a tiny policy, for tests of logs and of what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_rl.bundle.load import Bundle, load_bundle
from robot_rl.contract import Command, JointCommand, NumpyState
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.controller import Controller, Request, Tick
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.recorder import Recorder
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.fakes import FakeClock, FakeRobot

TINY = TinyPolicy(LEAP_HAND)
PERIOD_S = TINY.control_period_s


@dataclass
class Flight:
    """A controller and a robot that are stepped by `ticks`, led into RUN."""

    bundle: Bundle

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.robot = FakeRobot(LEAP_HAND, self.clock)
        self.controller = Controller(self.bundle, LEAP_HAND)
        self.rows: list[tuple[Tick, NumpyState | None, JointCommand]] = []

    def ticks(self, count: int) -> Iterator[tuple[Tick, NumpyState | None, JointCommand]]:
        for _ in range(count):
            self.clock.advance(PERIOD_S)
            state = self.robot.read()
            running = self.controller.mode == Mode.RUN
            command = Command(np.full(3, running * np.sin(self.clock.now()), np.float32), self.clock.now())
            tick = self.controller.step(state, command, self.clock.now())
            row = (tick, state, self.robot.write(tick.command))
            self.rows.append(row)
            if tick.mode in (Mode.IDLE, Mode.STAND):
                self.controller.request(Request.STAND if tick.mode == Mode.IDLE else Request.RUN)
            yield row


def record(path: Path, folder: Path, count: int = 100) -> Flight:
    """A flight of `count` ticks, recorded to `path`; the bundle is in `folder`."""
    flight = Flight(load_bundle(TINY.write(folder / "bundle")))
    with Recorder(path, flight.controller) as recorder:
        for row in flight.ticks(count):
            recorder.record(*row)
    assert recorder.dropped == 0
    assert not recorder.error
    return flight
