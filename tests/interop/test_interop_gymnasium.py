import gymnasium as gym
import numpy as np
import pytest
import torch

from robot_rl.env import VecEnv, get_task
from robot_rl.errors import ConfigError
from robot_rl.interop.gymnasium import GymnasiumVecEnv


def actions(n: int, steps: int, dim: int) -> torch.Tensor:
    return 2 * torch.rand(steps, n, dim, generator=torch.Generator().manual_seed(0)) - 1


def test_steps_equal_gymnasium_with_actions_rescaled_to_its_box():
    env = get_task("gym:Pendulum-v1").make_env(num_envs=2, seed=3)
    assert isinstance(env, VecEnv)
    assert (env.obs_dim, env.action_dim, env.max_episode_steps) == (3, 1, 200)
    assert env.action_half_range.tolist() == [2.0]
    singles = [gym.make("Pendulum-v1") for _ in range(2)]
    expected = np.stack([single.reset(seed=3 + i)[0] for i, single in enumerate(singles)])
    np.testing.assert_array_equal(env.reset(3), expected)
    for action in actions(2, 20, 1):
        step = env.step(action)
        for i, single in enumerate(singles):
            obs, reward, *_ = single.step(2 * action[i].numpy())
            np.testing.assert_allclose(step.obs[i], obs, atol=1e-6)
            assert step.reward[i].item() == pytest.approx(reward, rel=1e-6)


def test_time_limit_truncates_with_the_true_last_observation():
    env = GymnasiumVecEnv("Pendulum-v1", 1, seed=0)
    single = gym.make("Pendulum-v1")
    single.reset(seed=0)
    total = 0.0
    for t, action in enumerate(actions(1, 201, 1)):
        step = env.step(action)
        if t < 200:
            last, reward, *_ = single.step(2 * action[0].numpy())
            total += float(reward)
        assert step.truncated.item() == (t == 199)
        assert not step.terminated.item()
        if t == 199:
            np.testing.assert_allclose(step.final_obs[0], last, atol=1e-6)
            assert not torch.equal(step.obs, step.final_obs)
            assert step.info["episode_length"].item() == 200
            assert step.info["episode_return"].item() == pytest.approx(total, rel=1e-5)
    assert torch.equal(step.obs, step.final_obs)
    assert step.info["episode_length"].item() == 1


def test_termination_is_not_truncation():
    env = GymnasiumVecEnv("Hopper-v5", 4, seed=0)
    ended = 0
    for action in actions(4, 150, env.action_dim):
        step = env.step(action)
        ended += int(step.terminated.sum())
        assert not (step.terminated & step.truncated).any()
        different = (step.obs != step.final_obs).any(-1)
        assert torch.equal(different, step.terminated | step.truncated)
    assert ended > 4


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "MountainCarContinuous-v0", "HalfCheetah-v5", "Humanoid-v5"])
def test_state_restores_the_future_exactly(env_id):
    first, second = (GymnasiumVecEnv(env_id, 2, seed=s) for s in (1, 2))
    moves = actions(2, 260, first.action_dim)
    for action in moves[:30]:
        first.step(action)
    second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
    # Beyond an episode's end, so that the clock and the generator of the reset are tested too.
    for action in moves[30 : 260 if env_id == "Pendulum-v1" else 90]:
        one, two = first.step(action), second.step(action)
        for name in ("obs", "reward", "terminated", "truncated", "final_obs"):
            assert torch.equal(getattr(one, name), getattr(two, name)), name
        assert all(torch.equal(one.info[k], two.info[k]) for k in one.info)


def test_environment_without_known_state_starts_anew_and_says_so():
    gym.register("Opaque-v0", entry_point=Opaque)
    try:
        first, second = GymnasiumVecEnv("Opaque-v0", 1), GymnasiumVecEnv("Opaque-v0", 1)
        assert first.max_episode_steps == 1000  # it states none
        first.step(torch.zeros(1, 2))
        with pytest.warns(UserWarning, match="Opaque-v0 cannot save its state"):
            second.load_state_dict(first.state_dict())
        assert second.step(torch.zeros(1, 2)).info["episode_length"].item() == 1
    finally:
        gym.registry.pop("Opaque-v0")


class Opaque(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2, 3))
    action_space = gym.spaces.Box(np.array([0.0, -4.0]), np.array([1.0, 8.0]), dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((2, 3)), {}

    def step(self, action):
        assert self.action_space.contains(action)
        np.testing.assert_allclose(action, [0.5, 2.0])
        return np.ones((2, 3)), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPole-v1", r"the actions of CartPole-v1 are Discrete\(2\)"),
        ("HalfCheeta-v5", "HalfCheeta.*Did you mean: `HalfCheetah`"),
        ("Pendulum-v9", "Pendulum-v9"),
        ("no_such_module:Env-v0", "no_such_module"),
    ],
)
def test_errors_name_what_is_wrong(env_id, message):
    with pytest.raises(ConfigError, match=message):
        get_task(f"gym:{env_id}").make_env(num_envs=1, seed=0)
