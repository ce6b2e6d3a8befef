"""Our environments under Stable-Baselines3."""

import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from robot_rl.env import get_task
from robot_rl.errors import ConfigError
from robot_rl.interop.sb3 import Sb3Env

LENGTH = 40


@pytest.fixture
def env() -> Sb3Env:
    return Sb3Env(get_task("leap-reach").make_env(num_envs=4, seed=0, num_threads=1))


def test_sac_trains_and_stores_the_true_last_observation(env: Sb3Env) -> None:
    model = SAC("MlpPolicy", env, learning_starts=80, buffer_size=1000, batch_size=32, gradient_steps=1, seed=0)
    model.learn(400)
    assert model.num_timesteps == 400
    assert model.replay_buffer is not None
    # 400 steps of 4 environments are 100 rows; rows 39 and 79 end episodes, by the clock and not by failure.
    assert model.replay_buffer.dones[LENGTH - 1].all()
    assert model.replay_buffer.timeouts[LENGTH - 1].all()
    after = model.replay_buffer.next_observations[LENGTH - 1]
    first_of_next = model.replay_buffer.observations[LENGTH]
    assert not np.allclose(after, first_of_next)


def test_end_of_episode_info(env: Sb3Env) -> None:
    env.seed(3)
    env.reset()
    total = np.zeros(4)
    for i in range(LENGTH):
        obs, reward, done, infos = env.step(np.full((4, 16), 0.1, np.float32))
        total += reward
        assert done.all() == (i == LENGTH - 1)
    for i, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert info["episode"]["l"] == LENGTH
        assert info["episode"]["r"] == pytest.approx(total[i], rel=1e-4)
        assert info["terminal_observation"].shape == obs[i].shape
        assert not np.allclose(info["terminal_observation"], obs[i])
        assert info["is_success"] is False


def test_seed_repeats_the_start(env: Sb3Env) -> None:
    env.seed(5)
    first = env.reset()
    other = env.reset()
    env.seed(5)
    np.testing.assert_array_equal(env.reset(), first)
    assert not np.allclose(other, first)


def test_attributes_and_methods_reach_the_environment(env: Sb3Env) -> None:
    assert env.get_attr("max_episode_steps", [0, 2]) == [LENGTH, LENGTH]
    assert env.has_attr("policy_io")
    assert not env.has_attr("no_such_thing")
    assert len(env.env_method("policy_inputs", indices=1)) == 1
    assert env.env_is_wrapped(VecMonitor) == [False] * 4
    with pytest.raises(ConfigError, match="shared"):
        env.set_attr("max_episode_steps", 3, indices=[0])


def test_monitor_and_evaluation_work_on_it(env: Sb3Env) -> None:
    monitored = VecMonitor(env)
    model = SAC("MlpPolicy", monitored, seed=0)
    returns, lengths = evaluate_policy(model, monitored, n_eval_episodes=4, return_episode_rewards=True)
    assert lengths == [LENGTH] * 4
    assert np.isfinite(returns).all()
