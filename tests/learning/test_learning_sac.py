import pytest

from robot_rl.env import get_task
from robot_rl.training.config import make_config
from robot_rl.training.loop import train


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_pendulum_reaches_the_published_level_in_20k_steps(tmp_path):
    """RL-Zoo's SAC at 20k steps and learning rate 1e-3: -157 ± 89. Three to six minutes on one core."""
    config = make_config(
        get_task("gym:Pendulum-v1"), total_env_steps=20_000, warmup_env_steps=100, learning_rate=1e-3,
        buffer_size=20_000, evaluate_every=0, evaluate_episodes=50, checkpoint_every=0, runs=tmp_path,
    )  # fmt: skip
    result = train(config)
    assert result.evaluation is not None
    assert result.evaluation.return_mean >= -200
