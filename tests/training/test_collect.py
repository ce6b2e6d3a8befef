import dataclasses
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.env import Step, Task
from robot_rl.errors import EnvError
from robot_rl.replay.ring_buffer import RingBuffer
from robot_rl.testing.point_mass import PointMassEnv
from robot_rl.training.checkpoint import load_policy, newest_checkpoint
from robot_rl.training.collect import collect, privileged_dim, updates_due
from robot_rl.training.config import make_config
from robot_rl.training.loop import resume, train


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


class Privileged(PointMassEnv):
    """A point mass on whose observation the velocity is not, but for critics."""

    def __init__(self, num_envs: int, seed: int = 0) -> None:
        super().__init__(num_envs, seed, max_episode_steps=3)
        self.obs_dim, self.privileged_dim = 1, 1

    def privileged(self) -> torch.Tensor:
        return super()._obs()[:, 1:]

    def reset(self, seed: int | None = None) -> torch.Tensor:
        return super().reset(seed)[:, :1]

    def step(self, action: torch.Tensor) -> Step:
        step = super().step(action)
        return dataclasses.replace(
            step, obs=step.obs[:, :1], final_obs=step.final_obs[:, :1], final_privileged=step.final_obs[:, 1:]
        )


def test_collect_stores_privileged_columns_behind_the_observation():
    """The rows must be those of the same point mass with nothing hidden."""
    hidden, full = Privileged(3), PointMassEnv(3, max_episode_steps=3)
    rows = [RingBuffer(100, 2, 1) for _ in range(2)]
    for env, replay in zip((hidden, full), rows, strict=True):
        obs = env.reset(seed=5)
        for _ in range(7):
            obs = collect(env, replay, obs, torch.full((3, 1), 0.3)).obs
    assert torch.equal(rows[0].rows(0, 21), rows[1].rows(0, 21))
    assert (privileged_dim(hidden), privileged_dim(full)) == (1, 0)


@pytest.mark.parametrize("algo", ["sac", "dsact", "arsq"])
def test_training_with_privileged_columns_resumes_exactly_and_acts_without_them(algo, tmp_path):
    task = Task("hidden", "", None, lambda *, num_envs, seed, **_: Privileged(num_envs, seed))
    settings = {
        "num_envs": 4, "total_env_steps": 160, "warmup_env_steps": 40, "evaluate_every": 0, "evaluate_episodes": 2,
        "batch_size": 16, "normalize_obs": True, "buffer_size": 500, "updates_per_env_step": 0.25,
    }  # fmt: skip
    straight = train(make_config(task, algo, **settings, runs=tmp_path / "a"), task).run_dir
    half = train(make_config(task, algo, **{**settings, "total_env_steps": 80}, runs=tmp_path / "b"), task).run_dir
    resume(half, task, total_env_steps=160)
    models = [newest_checkpoint(run).load("model") for run in (straight, half)]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    normalizer, actor, _ = load_policy(straight)
    assert actor(normalizer(torch.zeros(5, 1))).shape == (5, 1)  # position alone
