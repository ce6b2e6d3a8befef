import pytest
import torch

from robot_rl.env import VecEnv
from robot_rl.errors import EnvError
from robot_rl.testing.point_mass import PointMassEnv
from robot_rl.training.evaluate import evaluate

GAMMA = 0.95


def linear_policy(gain: torch.Tensor):
    return lambda obs: (-(obs @ gain.float())).unsqueeze(-1)


def test_optimal_return_is_what_simulating_the_optimal_policy_yields():
    env = PointMassEnv(4000, seed=1)
    assert isinstance(env, VecEnv)
    evaluation = evaluate(env, linear_policy(PointMassEnv.optimal_gain(GAMMA)), 4000)
    standard_error = evaluation.return_std / 4000**0.5
    assert abs(evaluation.return_mean - PointMassEnv.optimal_return(GAMMA)) < 4 * standard_error
    assert evaluation.success_rate == 1.0


def test_no_other_gain_is_better():
    env = PointMassEnv(500, max_episode_steps=100)
    env.start_m = 0.9  # leaves room for gains above the optimum to stay inside the action range

    def long_return(gain: torch.Tensor) -> float:
        return evaluate(env, linear_policy(gain), 500, seed=1).return_mean

    gain = PointMassEnv.optimal_gain(1.0)
    best = long_return(gain)
    for change in ((0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05)):
        assert long_return(gain + torch.tensor(change)) < best


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.zeros(2, 1), r"shape \(2, 1\); expected \(3, 1\)"),
        (torch.tensor([[0.0], [1.25], [0.0]]), r"env 1 .*1\.25"),
        (torch.tensor([[0.0], [0.0], [float("nan")]]), "env 2 .*nan"),
    ],
)
def test_bad_actions_are_refused_by_name(action, message):
    with pytest.raises(EnvError, match=message):
        PointMassEnv(3).step(action)


def test_leaving_the_bounds_terminates_and_the_clock_truncates():
    env = PointMassEnv(500, seed=0, max_episode_steps=60)
    terminated = 0
    for t in range(60):
        before = env._steps + 1
        step = env.step(torch.ones(500, 1) * (1 if t < 30 else 0))
        terminated += int(step.terminated.sum())
        assert torch.equal(step.terminated, (step.final_obs[:, 0].abs() > 3.0))
        assert torch.equal(step.truncated, (before == 60) & ~step.terminated)
        ended = step.terminated | step.truncated
        assert (step.obs[ended][:, 1] == 0).all()
        assert torch.equal(step.obs[~ended], step.final_obs[~ended])
        assert (step.reward[step.terminated] == -50).all()
    assert terminated > 500


def test_state_restores_the_future_exactly():
    first, second = PointMassEnv(5, seed=1), PointMassEnv(5, seed=2)
    generator = torch.Generator().manual_seed(0)
    moves = 2 * torch.rand(50, 5, 1, generator=generator) - 1
    for action in moves[:13]:
        first.step(action)
    second.load_state_dict(first.state_dict())
    for action in moves[13:]:
        one, two = first.step(action), second.step(action)
        assert torch.equal(one.obs, two.obs)
        assert torch.equal(one.info["episode_return"], two.info["episode_return"])
