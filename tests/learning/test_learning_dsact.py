import pytest

from robot_rl.benchmarks.learning_dsact import PENDULUM_RETURN, pendulum_return


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("reward_scale", [1.0, 0.1, 10.0])
def test_pendulum_under_the_authors_protocol_at_any_reward_scale(tmp_path, reward_scale):
    """The authors' log averages -166 over iterations 8k to 12k. Five to ten minutes on one core."""
    assert pendulum_return(reward_scale, 0.5, "reward_std", seed=0, runs=tmp_path) >= PENDULUM_RETURN
