"""Stable-Baselines3 environments under our algorithms."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize
from stable_baselines3.common.vec_env import VecEnv as Sb3VecEnv

from robot_rl.env import VecEnv, get_task
from robot_rl.errors import CheckpointError, ConfigError, EnvError
from robot_rl.interop.sb3 import Sb3Env
from robot_rl.interop.sb3_vec_env import VecEnvFromSb3, sb3_task
from robot_rl.training.checkpoint import newest_checkpoint
from robot_rl.training.config import make_config
from robot_rl.training.loop import resume, train

SMALL = {
    "num_envs": 2,
    "warmup_env_steps": 50,
    "batch_size": 32,
    "actor_hidden": (16,),
    "critic_hidden": (16,),
    "buffer_size": 1000,
    "evaluate_every": 0,
    "evaluate_episodes": 1,
    "checkpoint_every": 0,
    "log_every": 100,
}


class Counter(gym.Env):
    """Counts to `limit`: then terminates if the last action was positive, else is cut off. Actions are in [0, 4]."""

    observation_space = gym.spaces.Box(-10, 10, (1, 2), np.float64)
    action_space = gym.spaces.Box(0.0, 4.0, (1,), np.float64)
    limit = 3

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.count = 0
        return self._obs(), {}

    def step(self, action: np.ndarray):
        self.count += 1
        self.action = float(action[0])
        ended = self.count == self.limit
        up = self.action > 2
        return self._obs(), self.action, ended and up, ended and not up, {"is_success": up} if ended else {}

    def _obs(self) -> np.ndarray:
        return np.array([[self.count, -self.count]], np.float64)


def counters(num_envs: int, seed: int) -> DummyVecEnv:
    return DummyVecEnv([Counter] * num_envs)


def test_ends_are_told_apart_and_the_true_last_observation_is_kept() -> None:
    env = VecEnvFromSb3(counters(2, 0))
    assert isinstance(env, VecEnv)
    assert (env.obs_dim, env.action_dim, env.action_half_range.tolist()) == (2, 1, [2.0])
    assert env.reset().tolist() == [[0, 0], [0, 0]]
    for count in (1, 2):
        step = env.step(torch.tensor([[0.5], [-0.5]]))
        assert step.reward.tolist() == [3.0, 1.0]  # 2 + 2 a
        assert step.obs.tolist() == step.final_obs.tolist() == [[count, -count]] * 2
        assert not (step.terminated | step.truncated).any()
        assert "success" not in step.info
    step = env.step(torch.tensor([[7.0], [-7.0]]))
    assert step.reward.tolist() == [4.0, 0.0]  # clipped to the box
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [False, True]
    assert step.final_obs.tolist() == [[3, -3]] * 2
    assert step.obs.tolist() == [[0, 0]] * 2
    assert step.info["episode_return"].tolist() == [10.0, 2.0]
    assert step.info["episode_length"].tolist() == [3, 3]
    assert step.info["success"].tolist() == [True, False]
    assert env.step(torch.zeros(2, 1)).info["episode_length"].tolist() == [1, 1]


def test_steps_equal_gymnasium() -> None:
    env = VecEnvFromSb3(make_vec_env("Hopper-v5", 2), seed=3)
    assert env.max_episode_steps == 1000
    singles = [gym.make("Hopper-v5") for _ in range(2)]
    expected = [single.reset(seed=3 + i)[0] for i, single in enumerate(singles)]
    np.testing.assert_allclose(env.reset(3), expected, rtol=1e-6)
    generator = torch.Generator().manual_seed(0)
    ended = 0
    for _ in range(60):
        action = 2 * torch.rand(2, 3, generator=generator) - 1
        step = env.step(action)
        for i, single in enumerate(singles):
            obs, reward, terminated, truncated, _ = single.step(action[i].numpy())
            np.testing.assert_allclose(step.final_obs[i], obs, rtol=1e-5, atol=1e-6)
            assert step.reward[i].item() == pytest.approx(reward, rel=1e-5)
            assert (step.terminated[i].item(), step.truncated[i].item()) == (terminated, truncated)
            if terminated or truncated:
                single.reset()
                ended += 1
    assert ended


def test_our_own_environment_survives_the_way_there_and_back() -> None:
    ours = get_task("leap-reach").make_env(num_envs=3, seed=0, num_threads=1)
    back = VecEnvFromSb3(Sb3Env(get_task("leap-reach").make_env(num_envs=3, seed=0, num_threads=1)))
    assert back.max_episode_steps == ours.max_episode_steps == 40
    assert torch.equal(ours.reset(7), back.reset(7))
    generator = torch.Generator().manual_seed(0)
    for _ in range(45):
        action = 2 * torch.rand(3, 16, generator=generator) - 1
        expected, step = ours.step(action), back.step(action)
        for name in ("obs", "reward", "terminated", "truncated", "final_obs"):
            assert torch.equal(getattr(step, name), getattr(expected, name)), name
        ended = expected.truncated | expected.terminated
        if ended.any():
            assert torch.equal(step.info["success"], expected.info["success"])


@pytest.mark.parametrize(
    "make",
    [
        lambda n, seed: VecMonitor(DummyVecEnv([lambda: gym.make("Pendulum-v1")] * n)),
        lambda n, seed: make_vec_env("InvertedPendulum-v5", n),
        lambda n, seed: Sb3Env(get_task("point-mass").make_env(num_envs=n, seed=seed)),
    ],
    ids=["pendulum", "mujoco", "ours"],
)
def test_training_resumes_bit_for_bit(make, tmp_path: Path) -> None:
    task = sb3_task("sb3", make)
    config = make_config(task, "sac", **SMALL, runs=tmp_path, total_env_steps=400)
    whole = train(config, task=task)
    half = train(make_config(task, "sac", **SMALL, runs=tmp_path, total_env_steps=200), task=task)
    resumed = resume(half.run_dir, task=task, total_env_steps=400)
    assert resumed.updates == whole.updates == 350
    expected, found = (newest_checkpoint(r.run_dir).load("model") for r in (whole, resumed))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    "make", [counters, lambda n, seed: VecFrameStack(make_vec_env("Pendulum-v1", n), 2)], ids=["own", "frame stack"]
)
def test_what_cannot_be_restored_is_said_on_resume(make, tmp_path: Path) -> None:
    task = sb3_task("counter", make)
    half = train(make_config(task, "sac", **SMALL, runs=tmp_path, total_env_steps=100), task=task)
    with pytest.raises(CheckpointError, match=r"cannot restore its state.*restart_episodes=True"):
        resume(half.run_dir, task=task, total_env_steps=120)
    again = resume(half.run_dir, task=sb3_task("counter", make, restart_episodes=True), total_env_steps=120)
    assert again.env_steps == 120


def test_wrong_environments_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"actions of the SB3 environments are Discrete\(2\)"):
        VecEnvFromSb3(make_vec_env("CartPole-v1"))
    normalized = VecNormalize(counters(1, 0))
    with pytest.raises(ConfigError, match="normalize_obs=True"):
        VecEnvFromSb3(normalized)
    normalized.training = False
    assert VecEnvFromSb3(normalized).obs_dim == 2
    with pytest.raises(ConfigError, match="asked for 3 environments and made 2"):
        sb3_task("counter", lambda n, seed: counters(2, seed)).make_env(num_envs=3, seed=0)


def test_an_end_without_its_last_observation_is_an_error() -> None:
    class Forgetful(VecMonitor):
        def step_wait(self):
            obs, reward, ended, infos = super().step_wait()
            return obs, reward, ended, [{k: v for k, v in i.items() if k != "terminal_observation"} for i in infos]

    inner: Sb3VecEnv = counters(2, 0)
    env = VecEnvFromSb3(Forgetful(inner))
    env.step(torch.zeros(2, 1))
    env.step(torch.zeros(2, 1))
    with pytest.raises(EnvError, match="env 0 ended and its info has no 'terminal_observation'"):
        env.step(torch.zeros(2, 1))
