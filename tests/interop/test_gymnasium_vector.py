"""Our environments under Gymnasium's own vector conventions."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from robot_rl.env import get_task
from robot_rl.errors import ConfigError
from robot_rl.interop.gymnasium_vector import GymnasiumVectorEnv

LENGTH = 40  # steps of a leap-reach episode


@pytest.fixture
def env() -> GymnasiumVectorEnv:
    return GymnasiumVectorEnv(get_task("leap-reach").make_env(num_envs=3, seed=0, num_threads=1))


def test_spaces_and_metadata(env: GymnasiumVectorEnv) -> None:
    obs, infos = env.reset(seed=1)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert obs in env.observation_space
    assert env.action_space.sample().shape == (3, 16)
    assert infos == {}
    np.testing.assert_array_equal(env.reset(seed=1)[0], obs)


def test_statistics_wrapper_counts_what_we_count(env: GymnasiumVectorEnv) -> None:
    """Gymnasium's wrapper adds rewards up by itself; it must arrive at the environment's own episode return."""
    wrapped = gym.wrappers.vector.RecordEpisodeStatistics(env)
    wrapped.reset(seed=0)
    env.action_space.seed(0)
    for i in range(2 * LENGTH):
        _, _, terminations, truncations, infos = wrapped.step(env.action_space.sample())
        assert not terminations.any()
        assert truncations.all() == (i % LENGTH == LENGTH - 1)
        if truncations.any():
            np.testing.assert_allclose(infos["episode"]["r"], infos["final_info"]["episode_return"], rtol=1e-5)
            np.testing.assert_array_equal(infos["episode"]["l"], LENGTH)
            assert infos["final_info"]["_success"].all()


def test_final_observation_is_another_than_the_new_one(env: GymnasiumVectorEnv) -> None:
    env.reset(seed=0)
    zero = np.zeros((3, 16), np.float32)
    for _ in range(LENGTH):
        obs, _, _, truncations, infos = env.step(zero)
    assert truncations.all()
    assert infos["_final_obs"].all()
    for i in range(3):
        assert infos["final_obs"][i].shape == (env.env.obs_dim,)
        assert not np.allclose(infos["final_obs"][i], obs[i])
    assert "final_obs" not in env.step(zero)[4]


def test_reward_terms_add_up_to_the_reward(env: GymnasiumVectorEnv) -> None:
    env.reset(seed=0)
    _, reward, _, _, infos = env.step(env.action_space.sample())
    terms = [v for k, v in infos.items() if k.startswith("reward/")]
    assert len(terms) == 4
    np.testing.assert_allclose(sum(terms), reward, rtol=1e-5)


def test_options_are_refused(env: GymnasiumVectorEnv) -> None:
    with pytest.raises(ConfigError, match="reset_mask"):
        env.reset(options={"reset_mask": np.ones(3, bool)})
