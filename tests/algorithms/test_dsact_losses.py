"""DSAC-T's targets and critic losses: sums done by hand, autograd, and the fixed points of σ by quadrature."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from robot_rl.algorithms.dsact import CRITIC_LOSSES, critic_loss_a, critic_loss_b, critic_targets

LOSSES = {"A": critic_loss_a, "B": critic_loss_b}


def gradients(form: str, mean: float, std: float, target: float, sample: float, mean_std: float) -> tuple[float, float]:
    """(∂Q, ∂σ) of one sample's loss."""
    q, s = (torch.tensor([[x]], dtype=torch.float64, requires_grad=True) for x in (mean, std))
    y, z, m = (torch.tensor(x, dtype=torch.float64) for x in ([target], [sample], [[mean_std]]))
    LOSSES[form](q, s, y, z, m).sum().backward()
    assert q.grad is not None
    assert s.grad is not None
    return q.grad.item(), s.grad.item()


def test_targets_by_hand():
    """Sample 0: critic 1 is lower, so its mean and its σ count, though critic 0's σ is larger. Sample 1 ended."""
    target, sample = critic_targets(
        reward=torch.tensor([1.0, 1.0]),
        ended=torch.tensor([0.0, 1.0]),
        next_mean=torch.tensor([[4.0, 1.0], [3.0, 2.0]]),
        next_std=torch.tensor([[9.0, 1.0], [2.0, 1.0]]),
        noise=torch.tensor([-1.5, 3.0]),
        next_log_prob=torch.tensor([2.0, 5.0]),
        alpha=torch.tensor(0.5),
        discount=0.9,
    )
    torch.testing.assert_close(target, torch.tensor([1 + 0.9 * (3 - 0.5 * 2), 1.0]))
    torch.testing.assert_close(sample, torch.tensor([1 + 0.9 * (3 - 2 * 1.5 - 0.5 * 2), 1.0]))


# Q = 1, σ = 2, ȳ = 3, m = 2, so that targets count up to 6 away; ε = 0.1.
@pytest.mark.parametrize(
    ("form", "sample", "dq", "ds"),
    [
        ("A", 4.0, 4.1 * (1 - 3) / 4.1, -4.1 * (9 - 4) / 8.1),
        ("A", 20.0, 4.1 * (1 - 3) / 4.1, -4.1 * (36 - 4) / 8.1),
        ("A", -20.0, 4.1 * (1 - 3) / 4.1, -4.1 * (36 - 4) / 8.1),
        ("B", 4.0, 4 / 4.1 * (1 - 3), 4 / 4.1 * (4 - 4.5) / 2.1),
        ("B", 20.0, 4 / 4.1 * (1 - 3), 4 / 4.1 * (4 - 18) / 2.1),
    ],
)
def test_gradients_by_hand(form, sample, dq, ds):
    assert gradients(form, 1.0, 2.0, 3.0, sample, 2.0) == pytest.approx((dq, ds))


def test_form_b_is_linear_in_far_errors_and_its_weight_is_bounded():
    # Q error 80, of which 50 counts; sampled error 80 within 3 m = 90: h = 50 (80 - 25). m²/(σ²+ε) = 900/4.1 -> 10.
    assert gradients("B", 0.0, 2.0, -80.0, 80.0, 30.0) == pytest.approx((10 * 50, 10 * (4 - 50 * (80 - 25)) / 2.1))
    # 0.01/400.1 -> 0.1; the sampled error counts as 3 m = 0.3.
    assert gradients("B", 0.0, 20.0, -1.0, 1.0, 0.1) == pytest.approx((0.1, 0.1 * (400 - 0.045) / 20.1))


@pytest.mark.parametrize("form", ["A", "B"])
def test_targets_and_running_mean_get_no_gradient(form):
    values = [torch.rand(shape, requires_grad=True) for shape in ((2, 8), (2, 8), (8,), (8,), (2, 1))]
    grads = torch.autograd.grad(LOSSES[form](*(v * 1.0 for v in values)).sum(), values[:2])
    # The reference: the same values with only Q and σ differentiable.
    again = torch.autograd.grad(LOSSES[form](*values[:2], *(v.detach() for v in values[2:])).sum(), values[:2])
    for one, two in zip(grads, again, strict=True):
        torch.testing.assert_close(one, two)


def test_steps_of_form_a_grow_in_proportion_to_the_reward_scale():
    """Without the factor m² they would shrink in proportion (the first DSAC's fault), for σ is in the denominators."""
    one = np.array(gradients("A", 100.0, 200.0, 300.0, -250.0, 220.0))
    ten = np.array(gradients("A", 1000.0, 2000.0, 3000.0, -2500.0, 2200.0))
    np.testing.assert_allclose(ten, 10 * one, rtol=1e-4)


def normal_grid() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points (r, z) and weights: the trapezoidal rule for two independent normal variables."""
    r, z = torch.meshgrid(torch.linspace(-6, 6, 41), torch.linspace(-6, 6, 81), indexing="ij")
    density = torch.exp(-0.5 * (r**2 + z**2)).flatten()
    return r.flatten(), z.flatten(), density / density.sum()


@pytest.mark.parametrize(("form", "half", "low", "high"), [("A", 1.0, 6.0, 7.2), ("B", 0.5, 0.8, 1.2)])
def test_where_the_deviation_settles_on_one_state(form, half, low, high):
    """r ~ N(0, 1), γ = 0.99, no end: the return's true deviation is 1/√(1 - γ²) = 7.09. Form A comes close, up to what
    its two clips cut off; form B loses half the variance in every backup. Expectations are quadratures, so that the
    descent ends where σ² = half * E[clip(r + γ σ z, ±3σ)²], which is solved here on its own."""
    reward, noise, weight = normal_grid()
    noise = noise.clamp(-3, 3)
    below, above = 0.1, 10.0
    for _ in range(40):
        std = (below + above) / 2
        error = (reward + 0.99 * std * noise).clamp(-3 * std, 3 * std)
        below, above = (std, above) if half * (weight * error**2).sum() > std**2 else (below, std)

    q, raw = torch.full((2, 1), 0.5, requires_grad=True), torch.full((2, 1), 4.0, requires_grad=True)
    n, none = len(reward), torch.zeros(len(reward))
    slow_q, slow_std = q.detach().clone(), F.softplus(raw).detach()
    mean_std = slow_std.clone()
    for _ in range(1200):
        target, sample = critic_targets(
            reward, none, slow_q.expand(2, n), slow_std.expand(2, n), noise, none, torch.tensor(0.0), 0.99
        )
        fast = F.softplus(raw)
        mean_std = mean_std.lerp(fast.detach(), 0.5)
        loss = LOSSES[form](q.expand(2, n), fast.expand(2, n), target, sample, mean_std)
        gradient = torch.autograd.grad((weight * loss).sum(), (q, raw))
        with torch.no_grad():
            q -= 0.3 * gradient[0]
            raw -= 0.3 * gradient[1]
            slow_q.lerp_(q, 0.5)
            slow_std.lerp_(F.softplus(raw), 0.5)
    settled = F.softplus(raw)
    torch.testing.assert_close(settled, torch.full((2, 1), std), rtol=2e-3, atol=0)
    assert (low < settled).all()
    assert (settled < high).all()
    assert q.abs().max() < 0.1  # the mean return is 0


@pytest.mark.parametrize("form", ["A", "B"])
def test_gradients_are_those_of_autograd(form):
    g = torch.Generator().manual_seed(0)
    mean, std = 60 * torch.randn(2, 2, 500, generator=g, dtype=torch.float64)  # errors on both sides of Huber's bend
    mean, std = mean.requires_grad_(), std.abs().requires_grad_()
    target, sample = 60 * torch.randn(2, 500, generator=g, dtype=torch.float64)
    mean_std = torch.tensor([[5.0], [50.0]], dtype=torch.float64)
    loss, gradients = CRITIC_LOSSES[form]
    expected = torch.autograd.grad(loss(mean, std, target, sample, mean_std).sum(), (mean, std))
    for ours, reference in zip(gradients(mean.detach(), std.detach(), target, sample, mean_std), expected, strict=True):
        torch.testing.assert_close(ours, reference)
