"""Every shipped policy, driving both backends: its returns have one distribution.

Contacts make trajectories chaotic, so that single and double precision part within a second; what a policy can be
judged by must not. Starts, dynamics and noise are drawn from the same generator in both, episode by episode.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from robot_rl.bundle.load import load_bundle
from robot_rl.env import get_task
from robot_rl.training.evaluate import evaluate
from robot_rl.training.policies import bundle_policy

POLICIES = Path(__file__).parents[2] / "policies"
BUNDLES = sorted(str(p.parent.relative_to(POLICIES)) for p in POLICIES.glob("*/*/*/manifest.json"))
EPISODES = 96
ALPHA = 0.01
"""Chance of rejecting, where there is no difference."""


def returns(bundle: str, backend: str, seed: int, randomize: bool = True) -> NDArray[np.float64]:
    """(EPISODES,) of a bundle in simulation."""
    torch.set_num_threads(1)
    loaded = load_bundle(POLICIES / bundle)
    name = loaded.manifest.task
    env = get_task(name).make_env(num_envs=EPISODES, seed=seed, randomize=randomize, num_threads=2, backend=backend)
    return np.array(evaluate(env, bundle_policy(loaded, env, name), EPISODES, seed).returns)


def kolmogorov_smirnov(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Largest difference between the two empirical distribution functions."""
    at = np.concatenate((a, b))
    return float(np.abs((a[:, None] <= at).mean(0) - (b[:, None] <= at).mean(0)).max())


def p_value(a: NDArray[np.float64], b: NDArray[np.float64], permutations: int = 2000) -> float:
    """Share of random relabellings that differ as much: exact whatever the distribution, ties included."""
    random, both, seen = np.random.default_rng(0), np.concatenate((a, b)), kolmogorov_smirnov(a, b)
    shuffled = (random.permutation(both) for _ in range(permutations))
    hits = sum(kolmogorov_smirnov(s[: len(a)], s[len(a) :]) >= seen - 1e-12 for s in shuffled)
    return (hits + 1) / (permutations + 1)


def test_the_test_sees_a_difference_and_no_difference() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(2, EPISODES))
    assert p_value(a, b) > ALPHA
    assert p_value(a, b + 0.7) < ALPHA
    assert kolmogorov_smirnov(np.array([0.0, 1.0]), np.array([0.5, 2.0])) == 0.5


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bundle", BUNDLES)
def test_returns_of_a_policy_have_one_distribution_on_both_backends(bundle: str) -> None:
    """Independent episodes for the test of the distributions; then the same episodes, whose mean difference must be a
    small part of what the returns vary by."""
    double, single = returns(bundle, "mujoco", seed=1), returns(bundle, "warp", seed=2)
    assert p_value(double, single) > ALPHA
    difference = returns(bundle, "warp", seed=1) - double
    error = 3 * difference.std() / np.sqrt(EPISODES)
    assert abs(difference.mean()) + error < 0.25 * double.std()
