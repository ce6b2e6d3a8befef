"""A humanoid on its own feet whose policy fails: a recovery policy keeps it standing, without one it is damped."""

from pathlib import Path

import numpy as np
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.robots import UNITREE_G1
from robot_rl.runtime.checks import Cause
from robot_rl.runtime.controller import Controller, Request, Tick
from robot_rl.runtime.modes import Mode
from robot_rl.testing.fakes import FakeClock
from robot_rl_sim.sim_robot import SimRobot
from robot_rl_sim.sim_robot_config import NOMINAL

BUNDLE = Path(__file__).parents[2] / "policies" / "unitree_g1" / "g1-balance" / "v2"


@pytest.mark.parametrize("recovers", [True, False])
def test_a_policy_that_answers_nonsense_on_two_legs(recovers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, clock = load_bundle(BUNDLE), FakeClock()
    robot = SimRobot(UNITREE_G1, NOMINAL, clock=clock)
    robot.suspended = True
    robot.connect()
    controller = Controller(bundle, UNITREE_G1, recovery=load_bundle(BUNDLE) if recovers else None)

    def tick(request: Request | None = None) -> Tick:
        clock.advance(controller.loop_period_s)
        controller.feed_deadman(clock.now())
        if request is not None:
            controller.request(request)
        done = controller.step(robot.read(), None, clock.now())
        robot.write(done.command)
        return done

    for _ in range(400):
        mode = tick({Mode.IDLE: Request.STAND, Mode.STAND: Request.RUN}.get(controller.mode)).mode
        if mode == Mode.RUN:
            break
    assert mode == Mode.RUN
    robot.suspended = False
    for _ in range(100):
        assert tick().mode == Mode.RUN
    run = bundle.policy.run
    monkeypatch.setattr(bundle.policy, "run", lambda inputs: {k: v * np.nan for k, v in run(inputs).items()})
    after = [tick() for _ in range(150)]
    assert after[-1].cause == Cause.POLICY_INVALID
    height = robot.data.body(UNITREE_G1.root_body).xpos[2]
    if recovers:
        assert after[-1].mode == Mode.RECOVER
        assert height > 0.7
    else:
        assert after[-1].mode == Mode.FAULT
        assert height < 0.4
