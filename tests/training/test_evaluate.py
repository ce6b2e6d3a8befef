from dataclasses import replace

import pytest
import torch

from robot_rl.env import Step
from robot_rl.errors import ConfigError
from robot_rl.testing.point_mass import PointMassEnv
from robot_rl.training.evaluate import evaluate, random_policy, zero_policy


class Uneven:
    """Env i has episodes of i + 1 steps that pay 1 each, and succeed in env 0 only."""

    num_envs, obs_dim, action_dim = 3, 1, 1

    def reset(self, seed=None):
        self.t = torch.zeros(3, dtype=torch.int64)
        return torch.zeros(3, 1)

    def step(self, action):
        self.t += 1
        done = self.t == torch.arange(3) + 1
        info = {"success": torch.arange(3) == 0, "laps": 2.0 * self.t, "reward/alive": torch.ones(3)}
        self.t[done] = 0
        obs = torch.zeros(3, 1)
        return Step(obs, torch.ones(3), done, torch.zeros(3, dtype=torch.bool), obs, info)


def test_every_env_contributes_its_share_so_that_short_episodes_are_not_favoured():
    evaluation = evaluate(Uneven(), lambda obs: obs, 7)
    assert sorted(evaluation.lengths) == [1, 1, 1, 2, 2, 3, 3]
    assert sorted(evaluation.returns) == [1, 1, 1, 2, 2, 3, 3]
    assert evaluation.success_rate == pytest.approx(3 / 7)
    assert evaluation.return_mean == pytest.approx(13 / 7)
    assert evaluation.length_mean == pytest.approx(13 / 7)
    assert len(evaluation.successes) == 7
    # What a task counts, as it stands when an episode ends.
    assert evaluation.measures == {"laps": pytest.approx(2 * 13 / 7)}


def test_returns_are_those_that_the_env_reports():
    env = PointMassEnv(4, seed=0)
    reported, original = [], env.step

    def step(action):
        result = original(action)
        reported.extend(result.info["episode_return"][result.terminated | result.truncated].tolist())
        return result

    env.step = step
    evaluation = evaluate(env, random_policy(env, 0), 8)
    assert sorted(evaluation.returns) == pytest.approx(sorted(reported))
    assert evaluation.return_std == pytest.approx(torch.tensor(reported).std(correction=0).item(), rel=1e-4)


def test_seed_fixes_the_episodes_and_the_policies_are_what_they_say():
    env = PointMassEnv(4, seed=0)
    one, two = (evaluate(env, zero_policy(env), 4, seed=5) for _ in range(2))
    assert one == two
    assert evaluate(env, zero_policy(env), 4, seed=6) != one
    actions = torch.cat([random_policy(env, s)(torch.zeros(4, 2)) for s in range(200)])
    assert actions.abs().max() <= 1
    assert abs(actions.mean()) < 0.1
    assert actions.std() == pytest.approx(1 / 3**0.5, rel=0.1)
    with pytest.raises(ConfigError, match="episodes"):
        evaluate(env, zero_policy(env), 0)


def test_tasks_without_success_report_none():
    env = Uneven()
    original = env.step
    env.step = lambda action: replace(original(action), info={})
    assert evaluate(env, lambda obs: obs, 3).success_rate is None
