import pytest
import torch
from torch import nn

from robot_rl.networks.critic import CriticEnsemble
from robot_rl.networks.mlp import ACTIVATIONS


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("n_critics", [1, 2, 5])
def test_ensemble_equals_separate_networks_in_value_and_gradient(n_critics, activation):
    torch.manual_seed(0)
    ensemble = CriticEnsemble(4, 3, (16, 8), activation, n_critics)
    obs, action = torch.randn(10, 4), torch.randn(10, 3)
    q = ensemble(obs, action)
    assert q.shape == (n_critics, 10)
    q.square().sum().backward()
    layers = [*ensemble.hidden, ensemble.head]
    for i in range(n_critics):
        linears = []
        for layer in layers:
            linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[2])
            linear.load_state_dict({"weight": layer.weight[i].T, "bias": layer.bias[i, 0]})
            linears += [linear, ACTIVATIONS[activation]()]
        single = nn.Sequential(*linears[:-1])
        one = single(torch.cat((obs, action), -1)).squeeze(-1)
        torch.testing.assert_close(q[i], one)
        one.square().sum().backward()
        for layer, linear in zip(layers, linears[::2], strict=True):
            torch.testing.assert_close(layer.weight.grad[i].T, linear.weight.grad)
            torch.testing.assert_close(layer.bias.grad[i, 0], linear.bias.grad)


def test_members_start_different_and_within_the_bound_of_linear_layers():
    weight = CriticEnsemble(60, 4, (32,)).hidden[0].weight
    assert not torch.equal(weight[0], weight[1])
    assert 0.9 / 8 < weight.abs().max() <= 1 / 8
