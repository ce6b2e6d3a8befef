from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.env import Step
from robot_rl.errors import EnvError
from robot_rl.replay.ring_buffer import RingBuffer
from robot_rl.testing.point_mass import PointMassEnv
from robot_rl.training.collect import collect, updates_due


@settings(deadline=None, max_examples=60)
@given(
    num_envs=st.integers(1, 100),
    ratio=st.sampled_from(["0.01", "0.06", "0.1", "0.3", "1", "1.7", "4"]),
    steps=st.integers(1, 300),
)
def test_updates_follow_the_ratio_exactly_whatever_the_number_of_envs(num_envs, ratio, steps):
    done = 0
    for t in range(1, steps + 1):
        done += updates_due(t * num_envs, float(ratio), done)
        assert done == int(Fraction(ratio) * t * num_envs)  # floor of the exact product


def test_no_updates_during_warm_up():
    assert updates_due(-100, 1.0, 0) == 0
    assert updates_due(0, 1.0, 0) == 0


def test_collect_stores_the_true_last_observation_at_a_time_limit():
    env = PointMassEnv(3, seed=0, max_episode_steps=3)
    replay = RingBuffer(100, 2, 1)
    obs = env.reset()
    for t in range(3):
        step = collect(env, replay, obs, torch.full((3, 1), 0.1))
        # One step of the dynamics from the stored obs, by hand: whatever the reset did is not in here.
        vel = obs[:, 1] + 0.25 * 0.1
        rows = replay.state_dict()["rows"][3 * t : 3 * t + 3]
        torch.testing.assert_close(rows[:, -2:], torch.stack((obs[:, 0] + 0.25 * vel, vel), -1))
        assert (rows[:, 4] == 0).all()
        assert (rows[:, 5] == (1.0 if t == 2 else 0.0)).all()
        obs = step.obs
    assert (obs[:, 1] == 0).all()


@pytest.mark.parametrize("name", ["reward", "observation"])
def test_a_value_that_is_not_finite_is_named_and_not_stored(name):
    env, replay = PointMassEnv(3, seed=0), RingBuffer(100, 2, 1)
    original = env.step

    def step(action):
        s = original(action)
        reward, obs = s.reward.clone(), s.final_obs.clone()
        (reward if name == "reward" else obs)[2] = float("nan")
        return Step(s.obs, reward, s.terminated, s.truncated, obs, s.info)

    env.step = step
    with pytest.raises(EnvError, match=f"{name} of env 2 is not finite"):
        collect(env, replay, env.reset(), torch.zeros(3, 1))
    assert len(replay) == 0
