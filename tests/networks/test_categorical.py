"""Projections against the paper's own loop, masses and means by hand, gradients against autograd."""

import math

import pytest
import torch

from robot_rl.networks.categorical import (
    cross_entropy,
    cross_entropy_gradient,
    expectation,
    expectation_gradient,
    histogram,
    project,
    support,
)

ATOMS = support(-2.0, 2.0, 9)


def slow_projection(probabilities, atoms, shift, scale):
    """Algorithm 1 of Bellemare et al., atom by atom."""
    out = torch.zeros_like(probabilities)
    step = float(atoms[1] - atoms[0])
    for i in range(len(shift)):
        for j, z in enumerate(atoms):
            b = (min(max(float(shift[i] + scale[i] * z), float(atoms[0])), float(atoms[-1])) - float(atoms[0])) / step
            lower, upper = math.floor(b), math.ceil(b)
            if lower == upper:
                out[i, lower] += probabilities[i, j]
            else:
                out[i, lower] += probabilities[i, j] * (upper - b)
                out[i, upper] += probabilities[i, j] * (b - lower)
    return out


def test_projection_equals_the_papers_loop():
    torch.manual_seed(0)
    probabilities = torch.randn(40, 9).softmax(-1)
    shift, scale = 2 * torch.randn(40), torch.rand(40)
    ours = project(probabilities, ATOMS, shift, scale)
    torch.testing.assert_close(ours, slow_projection(probabilities, ATOMS, shift, scale), rtol=1e-5, atol=1e-5)
    both = project(torch.stack((probabilities, probabilities.flip(-1))), ATOMS, shift, scale)
    torch.testing.assert_close(both[0], ours)


def test_projection_keeps_mass_always_and_the_mean_inside_the_support():
    torch.manual_seed(1)
    probabilities = torch.randn(30, 9).softmax(-1)
    shift, scale = torch.rand(30) - 0.5, 0.7 * torch.rand(30)
    projected = project(probabilities, ATOMS, shift, scale)
    torch.testing.assert_close(projected.sum(-1), torch.ones(30))
    torch.testing.assert_close(projected @ ATOMS, shift + scale * (probabilities @ ATOMS), rtol=1e-4, atol=1e-5)
    outside = project(probabilities, ATOMS, torch.full((30,), 9.0), scale)
    torch.testing.assert_close(outside[:, -1], torch.ones(30))


def test_an_ended_episode_is_worth_its_reward():
    projected = project(torch.full((1, 9), 1 / 9), ATOMS, torch.tensor([0.75]), torch.zeros(1))
    expected = torch.zeros(1, 9)
    expected[0, 5] = expected[0, 6] = 0.5  # between the atoms 0.5 and 1.0
    torch.testing.assert_close(projected, expected)


def test_histogram_has_mass_one_and_nearly_the_targets_mean():
    target = torch.linspace(-1.2, 1.2, 11)
    bins = histogram(target, ATOMS, sigma=0.375)
    torch.testing.assert_close(bins.sum(-1), torch.ones(11))
    torch.testing.assert_close(bins @ ATOMS, target, atol=0.02, rtol=0)
    # By hand, for a target on an atom: the mass within half a step of 0 is erf(0.25 / (sqrt 2 · 0.375)).
    assert histogram(torch.tensor(0.0), ATOMS, 0.375)[4].item() == pytest.approx(math.erf(0.25 / 0.375 / math.sqrt(2)))
    assert histogram(torch.tensor(50.0), ATOMS, 0.375).isfinite().all()


def test_gradients_equal_autograd():
    torch.manual_seed(2)
    logits = torch.randn(2, 5, 9, dtype=torch.float64, requires_grad=True)
    atoms, gradient = ATOMS.double(), torch.randn(2, 5, dtype=torch.float64)
    (expected,) = torch.autograd.grad((expectation(logits, atoms) * gradient).sum(), logits)
    torch.testing.assert_close(expectation_gradient(logits, atoms, gradient), expected)
    target = torch.randn(2, 5, 9, dtype=torch.float64).softmax(-1)
    for weight in (None, torch.rand(5, dtype=torch.float64)):
        (expected,) = torch.autograd.grad(cross_entropy(logits, target, weight), logits)
        torch.testing.assert_close(cross_entropy_gradient(logits, target, weight), expected)
    by_torch = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(0, 1))
    torch.testing.assert_close(cross_entropy(logits, target) / 2, by_torch)
