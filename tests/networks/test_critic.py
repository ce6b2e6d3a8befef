import torch

from robot_rl.networks.critic import CriticEnsemble
from robot_rl.networks.mlp import MLPStack


def test_q_is_the_stack_on_observation_and_action_side_by_side():
    critic = CriticEnsemble(4, 3, (16, 8), "relu", 5)
    obs, action = torch.randn(10, 4), torch.randn(10, 3)
    q = critic(obs, action)
    assert q.shape == (5, 10)
    torch.testing.assert_close(q, MLPStack.forward(critic, torch.cat((obs, action), -1)).squeeze(-1))


def test_gradients_reach_the_action_and_the_parameters():
    critic = CriticEnsemble(4, 3)
    obs, action = torch.randn(10, 4), torch.randn(10, 3, requires_grad=True)
    critic(obs, action).sum().backward()
    assert action.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in critic.parameters())
