"""A controller, a fake robot and a fake clock, ticked together, and what can go wrong with them."""

import dataclasses
from pathlib import Path

import numpy as np

from robot_rl.bundle.load import Bundle, load_bundle
from robot_rl.contract import Command, NumpyState
from robot_rl.robots import LEAP_HAND, RobotSpec
from robot_rl.runtime.controller import Controller, Request, Tick
from robot_rl.runtime.modes import Mode
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.fakes import FakeClock, FakeRobot

PERIOD_S = {"leap_hand": 0.02, "unitree_g1": 0.02}


def tiny(robot: RobotSpec, **fields) -> TinyPolicy:
    return TinyPolicy(robot, control_period_s=PERIOD_S[robot.name], **fields)


class Rig:
    """Controller, fake robot and fake clock, ticked together. Everything the robot is sent is checked by the robot."""

    def __init__(
        self,
        bundle: Bundle,
        robot: RobotSpec,
        loop_period_s: float | None = None,
        recovery: Bundle | None = None,
        **options,
    ) -> None:
        self.bundle = bundle
        self.clock = FakeClock()
        self.robot = FakeRobot(robot, self.clock, **options)
        self.controller = Controller(bundle, robot, loop_period_s, recovery=recovery)
        self.command: np.ndarray | None = np.zeros(3, np.float32)
        self.deadman = True
        self.ticks: list[Tick] = []
        self.states: list[NumpyState | None] = []

    def tick(self, request: Request | None = None, dt: float | None = None) -> Tick:
        self.clock.advance(self.controller.loop_period_s if dt is None else dt)
        now_s = self.clock.now()
        if request is not None:
            self.controller.request(request)
        if self.deadman:
            self.controller.feed_deadman(now_s)
        command = None if self.command is None else Command(self.command, now_s)
        self.states.append(self.robot.read())
        tick = self.controller.step(self.states[-1], command, now_s)
        self.robot.write(tick.command)
        self.ticks.append(tick)
        return tick

    def until(self, mode: Mode, request: Request | None = None, seconds: float = 6.0) -> Tick:
        for _ in range(round(seconds / self.controller.loop_period_s)):
            tick = self.tick(request)
            if tick.mode == mode:
                return tick
        raise AssertionError(f"{mode} was not reached; in {tick.mode}, {tick.cause}, {tick.note}")

    def stand(self) -> Tick:
        self.tick()
        return self.until(Mode.STAND, Request.STAND)

    def run(self) -> Tick:
        self.stand()
        return self.until(Mode.RUN, Request.RUN)


def rig(paths: dict[str, Path], robot: RobotSpec = LEAP_HAND, loop_period_s: float | None = None, **options) -> Rig:
    return Rig(load_bundle(paths[robot.name]), robot, loop_period_s, **options)


def stale(state: NumpyState, since_s: float) -> NumpyState:
    return dataclasses.replace(state, stamp_s=np.array([since_s]))


def freeze(since_s: float):
    return lambda state, now: stale(state, since_s) if now > since_s else state


def raising(*_):
    raise RuntimeError("the graph broke")


def answering(value: float):
    def change(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.full_like(v, value) for name, v in outputs.items()}

    return change
