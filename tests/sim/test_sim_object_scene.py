"""A simulated robot with the object of a task: what its camera tells, and the shipped policy turning a cube with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.contract import NumpyState
from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.runtime.checks import Cause
from robot_rl.runtime.controller import Controller, Request, Tick
from robot_rl.runtime.loop import run
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.object_pose import turn_between
from robot_rl.testing.fakes import FakeClock
from robot_rl_sim.object_scene import ObjectScene
from robot_rl_sim.sim_robot import SimRobot
from robot_rl_sim.sim_robot_config import MISMATCHED, NOMINAL, SimRobotConfig

BUNDLE = Path(__file__).resolve().parents[2] / "policies" / "leap_hand" / "leap-cube" / "v1"


@pytest.fixture(scope="module")
def scene() -> ObjectScene:
    return ObjectScene.of("leap-cube")


def placed(scene: ObjectScene, config: SimRobotConfig, seed: int = 0) -> tuple[SimRobot, FakeClock]:
    """A limp hand, the cube just let go in it."""
    clock = FakeClock()
    robot = SimRobot(LEAP_HAND, config, seed=seed, clock=clock, scene=scene)
    robot.connect()
    clock.now_s += 0.2
    robot.place_object()
    return robot, clock


def read(robot: SimRobot) -> NumpyState:
    state = robot.read()
    assert state is not None
    return state


def true_pose(robot: SimRobot) -> tuple[np.ndarray, np.ndarray]:
    """Position and rotation matrix of the cube in the frame of the palm, by MuJoCo's own kinematics."""
    mujoco.mj_kinematics(robot.model, robot.data)
    palm, cube = robot.data.body(LEAP_HAND.root_body), robot.data.body("object")
    turned = palm.xmat.reshape(3, 3).T
    return turned @ (cube.xpos - palm.xpos), turned @ cube.xmat.reshape(3, 3)


def matrix(quat: np.ndarray) -> np.ndarray:
    found = np.empty(9)
    mujoco.mju_quat2Mat(found, quat)
    return found.reshape(3, 3)


def test_no_camera_sees_what_a_person_still_holds(scene: ObjectScene) -> None:
    clock = FakeClock()
    robot = SimRobot(LEAP_HAND, NOMINAL, clock=clock, scene=scene)
    robot.connect()
    for _ in range(10):
        clock.now_s += 0.05
        assert read(robot).object_pos is None
    assert robot.data.body("object").xpos[2] > 0.4, "held up, and not falling"
    assert robot.object_placed_s is None


def test_a_perfect_camera_tells_the_pose_in_the_frame_of_the_palm(scene: ObjectScene) -> None:
    robot, clock = placed(scene, NOMINAL)
    clock.now_s += 0.1
    state = read(robot)
    assert state.object_pos is not None
    assert state.object_quat_wxyz is not None
    position, rotation = true_pose(robot)
    np.testing.assert_allclose(state.object_pos[0], position, atol=1e-6)
    np.testing.assert_allclose(matrix(state.object_quat_wxyz[0]), rotation, atol=1e-5)
    assert state.object_stamp_s is not None
    assert state.object_stamp_s[0] == pytest.approx(clock.now())


def test_the_cube_is_put_where_the_bundle_says_that_episodes_begin(scene: ObjectScene) -> None:
    episode = load_bundle(BUNDLE).manifest.episode
    assert episode is not None
    assert episode.object is not None
    assert episode == scene.mdp.episode
    for seed in range(5):
        robot, clock = placed(scene, NOMINAL, seed)
        clock.now_s += 0.002
        state = read(robot)
        assert state.object_pos is not None
        assert state.object_quat_wxyz is not None
        assert np.linalg.norm(state.object_pos[0] - episode.object.pos_m) < episode.object.pos_tolerance_m
        quat, start = state.object_quat_wxyz[0], np.array(episode.object.quat_wxyz)
        assert turn_between(quat, start, episode.object.free_axis) < episode.object.angle_tolerance_rad


def test_pictures_come_at_their_own_rate_and_are_as_old_as_the_camera_is_slow(scene: ObjectScene) -> None:
    config = dataclasses.replace(NOMINAL, camera_period_s=0.04, camera_latency_s=0.03)
    robot, clock = placed(scene, config)
    ages, stamps = [], set()
    for _ in range(200):
        clock.now_s += 0.005
        state = read(robot)
        if state.object_stamp_s is None:
            continue
        assert clock.now() - state.stamp_s[0] < 0.0021, "joints are not late"
        ages.append(round(clock.now() - float(state.object_stamp_s[0]), 4))
        stamps.add(round(float(state.object_stamp_s[0]), 4))
    # Between 30 ms, and 30 ms and the 40 ms to the next picture.
    assert min(ages) >= 0.03 - 1e-9
    assert max(ages) == pytest.approx(0.065)
    np.testing.assert_allclose(np.diff(sorted(stamps)), 0.04, atol=1e-6)


def test_the_camera_errs_as_in_training(scene: ObjectScene) -> None:
    config = dataclasses.replace(NOMINAL, object_pos_noise_m=0.005, object_turn_noise_rad=0.05)
    robot, clock = placed(scene, config)
    errors = []
    for _ in range(300):
        clock.now_s += 0.004
        state = read(robot)
        assert state.object_pos is not None
        errors.append(state.object_pos[0] - true_pose(robot)[0])
    errors = np.array(errors)
    assert np.abs(errors).max() <= 0.005 + 1e-6
    # Of a uniform error: half-width over the square root of three.
    np.testing.assert_allclose(errors.std(0), 0.005 / np.sqrt(3), rtol=0.15)


def test_only_a_task_with_an_object_has_one_to_place() -> None:
    with pytest.raises(ConfigError, match="task 'leap-reach' has no object"):
        ObjectScene.of("leap-reach")
    with pytest.raises(ConfigError, match="robot 'unitree_g1' is alone"):
        SimRobot(UNITREE_G1, NOMINAL, clock=FakeClock()).place_object()


class Session:
    """The shipped policy on a simulated hand in virtual time, operated as `deploy --auto-run` operates it."""

    def __init__(self, scene: ObjectScene, *, loop_period_s: float = 0.01, seed: int = 0) -> None:
        from robot_rl.commands.object_goals import object_goals

        self.clock = FakeClock()
        self.controller = Controller(load_bundle(BUNDLE), LEAP_HAND, loop_period_s)
        self.robot = SimRobot(LEAP_HAND, MISMATCHED, seed=seed, clock=self.clock, scene=scene)
        self.robot.connect()
        goals = object_goals(self.controller, self.robot, again=True, tell=print)
        assert goals is not None
        self.goals = goals
        self.modes: list[tuple[Mode, Cause]] = []

    def on_tick(self, tick: Tick) -> None:
        if not self.modes or self.modes[-1] != (tick.mode, tick.cause):
            self.modes.append((tick.mode, tick.cause))
        self.goals.on_tick(tick)
        if tick.mode == Mode.IDLE:
            self.controller.request(Request.STAND)
        elif tick.mode == Mode.STAND:
            self.controller.request(Request.RUN)

    def run(self, seconds: float) -> None:
        run(
            self.controller,
            self.robot,
            self.clock,
            duration_s=seconds,
            get_command=self.goals.command,
            on_tick=self.on_tick,
            rehearse=False,
        )


def test_run_is_refused_until_the_cube_is_in_the_hand(scene: ObjectScene) -> None:
    session = Session(scene, loop_period_s=0.05)
    session.goals._place = None
    session.run(3.0)
    assert session.modes[-1] == (Mode.STAND, Cause.NONE)
    session.controller.request(Request.RUN)
    tick = session.controller.step(session.robot.read(), None, session.clock.now())
    assert "no pose of the object has been seen" in tick.note


@pytest.mark.slow
def test_the_shipped_policy_turns_the_cube_from_goal_to_goal(scene: ObjectScene, capsys) -> None:
    """Other friction, masses, motors and time steps than training's, and a camera that is late."""
    session = Session(scene)
    session.run(12.0)
    assert session.modes[-1] == (Mode.RUN, Cause.NONE)
    # What a random policy reaches in twenty seconds is a third of a goal.
    assert session.goals.most >= 5
    printed = capsys.readouterr().out
    assert "object put down" in printed
    assert f"goal {session.goals.most} after" in printed


@pytest.mark.slow
def test_a_camera_that_sees_no_more_ends_the_policy_and_the_cube_is_held(scene: ObjectScene) -> None:
    session = Session(scene)
    seen, blind_s, held_s = session.robot.read, session.clock.now() + 5.0, []

    def read() -> NumpyState | None:
        state = seen()
        if state is None or session.clock.now() < blind_s:
            return state
        return dataclasses.replace(state, object_pos=None, object_quat_wxyz=None)

    def on_tick(tick: Tick) -> None:
        Session.on_tick(session, tick)
        if tick.mode == Mode.HOLD:
            held_s.append(tick.now_s)
            assert (tick.command.kp > 0).all()

    session.robot.read = read  # type: ignore[method-assign]
    session.on_tick = on_tick  # type: ignore[method-assign]
    session.run(5.5)
    assert session.modes[-2:] == [(Mode.RUN, Cause.NONE), (Mode.HOLD, Cause.OBJECT_LOST)]
    # The contract's 0.1 s, counted from the last picture, which was late already.
    assert 0.05 < held_s[0] - blind_s <= 0.1
    assert held_s[-1] - held_s[0] > 0.35


def test_only_the_simulated_robot_is_filmed(tmp_path: Path) -> None:
    from robot_rl.commands.deploy import DeployArgs
    from robot_rl.commands.deploy import run as deploy

    with pytest.raises(ConfigError, match="--video films the interface 'sim', not 'mock'"):
        deploy(DeployArgs(BUNDLE, interface="mock", video=tmp_path / "film.mp4"))


def test_a_film_has_a_frame_in_each_tick_of_a_slow_loop(scene: ObjectScene, monkeypatch) -> None:
    from robot_rl_sim import robot_film

    class NoScreen:
        def __init__(self, model: mujoco.MjModel) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(robot_film, "FrameRenderer", NoScreen)
    session = Session(scene, loop_period_s=0.05)
    film = session.robot.film()
    monkeypatch.setattr(session.goals, "on_tick", film.on_tick)
    session.run(2.0)
    # One in each tick, of which there are fewer.
    assert len(film._states) == 40
