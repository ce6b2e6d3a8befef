"""A small recording with everything that a dataset may know."""

from collections.abc import Callable

import pytest
import torch

from robot_rl.data import ActionRange, Dataset
from robot_rl.replay.dataset import FIELDS
from robot_rl.replay.ring_buffer import Batch
from robot_rl.testing.point_mass import PointMassEnv


def record(episodes: int = 6, n_axes: int = 2, seed: int = 0) -> Dataset:
    """Episodes of the point mass under noise; every third one is pushed outward until it falls."""
    env, generator = PointMassEnv(1, seed, n_axes), torch.Generator().manual_seed(seed)
    rows, success, proposed = [], [], []
    for episode in range(episodes):
        obs, ended = env.reset(), False
        while not ended:
            action = 2 * torch.rand(1, n_axes, generator=generator) - 1
            if episode % 3 == 2:
                action = obs[:, :n_axes].sign()
            step = env.step(action)
            rows.append((obs, action, step.reward, step.terminated, step.truncated, step.final_obs))
            success.append(step.info["success"])
            proposed.append((1.5 * action).clamp(-1, 1))
            obs, ended = step.obs, bool(step.terminated | step.truncated)
    batch = Batch(
        **{name: torch.cat(column).float() for name, column in zip(FIELDS, zip(*rows, strict=True), strict=True)}
    )
    return Dataset(
        batch,
        action_proposed=torch.cat(proposed),
        success=torch.cat(success).float(),
        time_s=torch.arange(len(rows), dtype=torch.float64) * 0.25 + 1e6,
        action_range=ActionRange([-1.0, 0.1], [1.0, 0.7]),
        about={"task": "point-mass", "fps": "4"},
    )


@pytest.fixture(scope="session")
def recorded() -> Dataset:
    dataset = record()
    assert {bool(dataset.transitions.terminated[rows][-1]) for rows in dataset.episodes()} == {True, False}
    return dataset


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Dataset, Dataset], None]:
    """Equal to the last bit, but for actions, which went to recorded units and back in float32."""

    def check(one: Dataset, two: Dataset) -> None:
        for name in FIELDS:
            a, b = getattr(one.transitions, name), getattr(two.transitions, name)
            tolerance = 3e-7 if name == "action" else 0.0
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance, equal_nan=True)
        torch.testing.assert_close(one.action_proposed, two.action_proposed, rtol=0, atol=3e-7)
        assert torch.equal(one.success, two.success)
        assert torch.equal(one.time_s, two.time_s)
        assert one.about == two.about

    return check
