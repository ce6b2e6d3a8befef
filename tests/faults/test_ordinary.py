"""How often the filter trips a sound robot: counted by hand, and on hands whose joints lean on their end stops."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.env import get_task
from robot_rl.robots import ROBOTS
from robot_rl.runtime.checks import Cause
from robot_rl_sim.faults.ordinary import Ordinary, figures, run_ordinary
from robot_rl_sim.randomization import RandomizationConfig
from robot_rl_sim.sensor_config import SensorConfig, SensorsConfig

POLICIES = Path(__file__).parents[2] / "policies"
BUNDLE = load_bundle(POLICIES / "shadow_hand/shadow-reach/v1")


def shadow(joint_pos_error_rad: float) -> Ordinary:
    env = get_task("shadow-reach").make_env(num_envs=96, seed=7)
    robot = env.mdp.robot  # type: ignore[attr-defined]
    env.mdp.robot = replace(robot, safety=replace(robot.safety, joint_pos_error_rad=joint_pos_error_rad))  # type: ignore[attr-defined]
    return run_ordinary(BUNDLE, env, 0.0, 7)  # type: ignore[arg-type]


def test_the_filter_bears_the_errors_of_training_and_would_not_without_being_told_of_them() -> None:
    sound = shadow(0.03)
    assert sound.hours > 0
    assert sound.wrong.total() == 0
    strict = shadow(0.0)
    assert strict.episodes == sound.episodes
    assert set(strict.wrong) == {Cause.JOINT_LIMIT}


def test_an_object_is_seen_as_late_as_in_training_and_held_against_nobody() -> None:
    bundle = load_bundle(POLICIES / "leap_hand/leap-cube/v1")
    env = get_task("leap-cube").make_env(num_envs=8, seed=7)
    ordinary = run_ordinary(bundle, env, 0.0, 7)  # type: ignore[arg-type]
    # A whole episode in each world, and none that only began with the last step.
    assert (ordinary.episodes - ordinary.failed, ordinary.ticks) == (8, 8 * env.max_episode_steps)
    assert not ordinary.wrong


@pytest.mark.parametrize(("delay_s", "wrong"), [(0.06, set()), (0.2, {Cause.OBJECT_LOST})])
def test_pictures_that_take_longer_than_the_policy_may_go_by_them_are_noticed(
    delay_s: float, wrong: set[Cause]
) -> None:
    bundle = load_bundle(POLICIES / "leap_hand/leap-cube/v1")
    camera = SensorConfig(delay_s=(delay_s, delay_s))
    sensors = SensorsConfig(object_pos=camera, object_quat_wxyz=camera)
    env = get_task("leap-cube").make_env(num_envs=4, seed=7, randomize=RandomizationConfig(sensors=sensors))
    assert set(run_ordinary(bundle, env, 0.0, 7).wrong) == wrong  # type: ignore[arg-type]


def test_figures_by_hand() -> None:
    ordinary = Ordinary(period_s=0.02, episodes=100, ticks=180_000)
    assert figures(ordinary)["trips_per_hour"] == 0.0
    # No success in n trials: 1 - 0.025^(1/n).
    assert ordinary.interval == pytest.approx((0.0, 1.0 - 0.025**0.01), abs=1e-9)
    assert ordinary.problem == ""
    ordinary.wrong[Cause.TILT] += 1
    assert ordinary.problem == ""  # one may be chance
    ordinary.wrong[Cause.TILT] += 5
    assert figures(ordinary)["trips_per_hour"] == pytest.approx(6.0)
    assert ordinary.problem == "a sound robot tripped in 6 of 100 episodes: tilt (6)"


def test_profiles_state_at_least_the_errors_of_trainings_sensors() -> None:
    sensors = SensorsConfig()
    for robot in ROBOTS.values():
        assert robot.safety.joint_pos_error_rad >= sensors.joint_pos.noise + sensors.joint_pos.bias
        assert robot.safety.attitude_error_rad >= math.sqrt(3) * sensors.imu_quat_wxyz.noise
