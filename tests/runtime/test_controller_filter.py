"""What reaches the safety filter through the controller: observations, commands, health, and a low-pass of training."""

from pathlib import Path

import numpy as np
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.contract import Command
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.checks import Cause
from robot_rl.runtime.controller import Controller, Request, Tick
from robot_rl.runtime.interface import Health
from robot_rl.runtime.loop import run
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.safety import MODIFICATIONS
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.fakes import FakeClock, FakeRobot

POLICY = TinyPolicy(LEAP_HAND)
DT = POLICY.control_period_s


class Rig:
    """A LEAP hand that runs a tiny policy."""

    def __init__(self, folder: Path, **changes) -> None:
        bundle = load_bundle(POLICY.write(folder / "tiny", **changes))
        self.clock = FakeClock()
        self.robot = FakeRobot(LEAP_HAND, self.clock)
        self.robot.connect()
        self.controller = Controller(bundle, LEAP_HAND)
        self.velocity = 0.0
        self.command = Command(np.zeros(3, np.float32), self.clock.now())
        for wish, mode in ((None, Mode.IDLE), (Request.STAND, Mode.STAND), (Request.RUN, Mode.RUN)):
            for _ in range(200):
                if self.tick(request=wish).mode == mode:
                    break
        assert self.controller.mode == Mode.RUN

    def tick(self, *, request: Request | None = None, health: Health | None = None, say: bool = True) -> Tick:
        self.clock.advance(DT)
        now_s = self.clock.now()
        if request is not None:
            self.controller.request(request)
        if say:
            self.command = Command(np.full(3, self.velocity, np.float32), now_s)
        tick = self.controller.step(self.robot.read(), self.command, now_s, health=health)
        self.robot.write(tick.command)
        return tick


def test_an_observation_far_from_training_is_told_by_the_bundles_statistics(tmp_path: Path) -> None:
    dim = POLICY.contract().observation_dim
    # All of its observations lie 2 from a mean of 2, of which 0.19 is more than ten standard deviations.
    rig = Rig(tmp_path, obs_mean=[2.0] * dim, obs_std=[0.19] * dim)
    assert rig.tick().cause == Cause.OBS_OUT_OF_DISTRIBUTION
    # Two seconds of them, and the hand holds.
    assert any(rig.tick().mode == Mode.HOLD for _ in range(42))
    assert rig.tick().cause == Cause.OBS_OUT_OF_DISTRIBUTION


def test_an_observation_near_those_of_training_is_fine(tmp_path: Path) -> None:
    dim = POLICY.contract().observation_dim
    rig = Rig(tmp_path, obs_mean=[0.0] * dim, obs_std=[0.19] * dim)
    assert all(rig.tick().cause == Cause.NONE for _ in range(30))


def test_an_operator_who_falls_silent(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    causes = [rig.tick(say=False).cause for _ in range(6)]
    # Its command may be 0.2 s old: four ticks.
    assert causes == [Cause.NONE] * 4 + [Cause.COMMAND_EXPIRED] * 2
    assert rig.controller.mode == Mode.RUN


def test_health_reaches_the_checks(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    hot = [rig.tick(health=Health(rig.clock.now() + DT, motor_temperature_c=np.full(16, 90.0))) for _ in range(2)]
    assert [(t.mode, t.cause) for t in hot] == [(Mode.RUN, Cause.NONE), (Mode.HOLD, Cause.TEMPERATURE)]


def test_the_loop_asks_the_robot_for_its_health(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    flat = Health(rig.clock.now(), battery_share=0.05)
    rig.robot.health = lambda: flat  # type: ignore[attr-defined]
    ticks: list[Tick] = []
    run(rig.controller, rig.robot, rig.clock, duration_s=5 * DT, on_tick=ticks.append,
        get_command=lambda now_s: Command(np.zeros(3, np.float32), now_s))  # fmt: skip
    assert (ticks[-1].mode, ticks[-1].cause) == (Mode.HOLD, Cause.BATTERY)


@pytest.mark.parametrize(("config", "smoothed"), [({}, False), ({"low_pass_hz": 0.2}, True)])
def test_a_policy_trained_behind_a_low_pass_runs_behind_it(tmp_path: Path, config: dict, smoothed: bool) -> None:
    rig = Rig(tmp_path, config=config)
    for _ in range(20):  # until the soft start is over
        before = rig.tick()
    rig.velocity = 1.0
    tick = rig.tick()
    assert before.applied is not None
    assert tick.applied is not None
    assert tick.target is not None
    assert np.abs(tick.target - before.applied).max() > 1e-3
    share = 1.0 - np.exp(-2.0 * np.pi * 0.2 * DT) if smoothed else 1.0
    np.testing.assert_allclose(tick.applied, before.applied + share * (tick.target - before.applied), atol=1e-6)
    row = rig.controller.modifications[MODIFICATIONS.index("low_pass")]
    assert row.any() == smoothed
