import math

import pytest
import torch
from torch import distributions as D

from robot_rl.networks.squashed_gaussian import LOG_STD_MAX, LOG_STD_MIN, SquashedGaussianActor, squash


def test_log_prob_equals_torch_distributions():
    torch.manual_seed(0)
    mean, log_std = torch.randn(2, 500, 3, dtype=torch.float64)
    noise = torch.randn_like(mean)
    action, log_prob = squash(mean, log_std, noise)
    base = D.TransformedDistribution(D.Normal(mean, log_std.exp()), [D.TanhTransform(cache_size=1)])
    keep = (action.abs() < 0.9999).all(-1)  # beyond, the reference recovers u from a and loses digits
    torch.testing.assert_close(log_prob[keep], base.log_prob(action).sum(-1)[keep], rtol=1e-6, atol=1e-6)


def test_density_integrates_to_one_by_change_of_variables():
    mean, log_std = torch.tensor(0.4, dtype=torch.float64), torch.tensor(-0.3, dtype=torch.float64)
    action = torch.linspace(-1 + 1e-9, 1 - 1e-9, 400_001, dtype=torch.float64)
    noise = (torch.atanh(action) - mean) / log_std.exp()
    again, log_prob = squash(mean.expand(400_001, 1), log_std.expand(400_001, 1), noise.unsqueeze(-1))
    torch.testing.assert_close(again.squeeze(-1), action)
    assert torch.trapezoid(log_prob.exp(), action).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("u", [-40.0, -12.0, 12.0, 40.0])
def test_saturated_actions_keep_exact_finite_log_prob_and_gradient(u):
    mean = torch.tensor([[u]], requires_grad=True)
    _, log_prob = squash(mean, torch.zeros(1, 1), torch.zeros(1, 1))
    # For |u| >> 1, log(1 - tanh² u) = log 4 - 2|u| + O(exp(-2|u|)).
    exact = -0.5 * math.log(2 * math.pi) - (math.log(4) - 2 * abs(u))
    assert log_prob.item() == pytest.approx(exact, rel=1e-6)
    (gradient,) = torch.autograd.grad(log_prob.sum(), mean)
    assert gradient.item() == pytest.approx(math.copysign(2.0, u), rel=1e-5)


def test_actor_forward_is_tanh_of_the_mean_and_samples_are_reproducible():
    actor = SquashedGaussianActor(4, 2, (8,))
    obs = torch.randn(5, 4)
    torch.testing.assert_close(actor(obs), torch.tanh(actor.body(obs)[0, :, :2]))
    torch.testing.assert_close(actor.deterministic()(obs), actor(obs))
    first, second = (actor.sample(obs, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, actor.sample(obs, torch.Generator().manual_seed(4))[0])


@pytest.mark.parametrize(("bias", "limit"), [(100.0, LOG_STD_MAX), (-100.0, LOG_STD_MIN)])
def test_log_std_is_clamped(bias, limit):
    actor = SquashedGaussianActor(1, 1, ())
    with torch.no_grad():
        (layer,) = actor.body.layers
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([0.0, bias]))
    obs, generator = torch.zeros(1, 1), torch.Generator().manual_seed(0)
    noise = torch.randn((1, 1), generator=torch.Generator().manual_seed(0))
    action, log_prob = actor.sample(obs, generator)
    expected = squash(torch.zeros(1, 1), torch.full((1, 1), limit), noise)
    torch.testing.assert_close((action, log_prob), expected)


@pytest.mark.parametrize("bounds", [(-20.0, 2.0), (-0.1, 0.1)])
def test_gradient_by_hand_equals_autograd(bounds):
    torch.manual_seed(0)
    actor = SquashedGaussianActor(4, 2, (8,), log_std_bounds=bounds).double()
    obs, noise = torch.randn(50, 4, dtype=torch.float64), torch.randn(50, 2, dtype=torch.float64)
    action_gradient, log_prob_gradient = torch.randn(50, 2, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    sample = actor.run(obs, noise)
    mean, log_std = actor.body(obs)[0].chunk(2, dim=-1)
    action, log_prob = squash(mean, log_std.clamp(*bounds), noise)
    torch.testing.assert_close((sample.action, sample.log_prob), (action, log_prob))
    ((action * action_gradient).sum() + (log_prob * log_prob_gradient).sum()).backward()
    expected = [parameter.grad for parameter in actor.parameters()]
    torch.testing.assert_close(actor.gradient(sample, action_gradient, log_prob_gradient), expected)
    if bounds[0] > -1:
        assert 0.1 < sample.inside.double().mean() < 0.9  # both sides of the clamp are met
