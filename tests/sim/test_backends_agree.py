"""Every shipped policy, driving both backends: its returns have one distribution.

Contacts make trajectories chaotic, so that single and double precision part within a second; what a policy can be
judged by must not.
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


def returns(bundle: str, backend: str, seed: int) -> NDArray[np.float64]:
    """(EPISODES,) of a bundle, the dynamics randomised."""
    torch.set_num_threads(1)
    loaded = load_bundle(POLICIES / bundle)
    name = loaded.manifest.task
    env = get_task(name).make_env(num_envs=EPISODES, seed=seed, num_threads=2, backend=backend)
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


def test_the_test_sees_three_quarters_of_a_standard_deviation_and_nothing_where_nothing_is() -> None:
    assert kolmogorov_smirnov(np.array([0.0, 1.0]), np.array([0.5, 2.0])) == 0.5
    random = np.random.default_rng(1)
    pairs = random.normal(size=(20, 2, EPISODES))
    assert sum(p_value(a, b, permutations=300) < ALPHA for a, b in pairs) <= 2
    assert sum(p_value(a, b + 0.75, permutations=300) < ALPHA for a, b in pairs) >= 14


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bundle", BUNDLES)
def test_returns_of_a_policy_have_one_distribution_on_both_backends(bundle: str) -> None:
    """Of independent episodes."""
    assert p_value(returns(bundle, "mujoco", seed=1), returns(bundle, "warp", seed=2)) > ALPHA


@pytest.mark.slow
def test_without_contacts_each_episode_returns_the_same() -> None:
    bundle = "leap_hand/leap-reach/v1"
    np.testing.assert_allclose(returns(bundle, "warp", seed=1), returns(bundle, "mujoco", seed=1), atol=1e-3)
