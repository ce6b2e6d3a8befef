from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from robot_rl.errors import ConfigError
from robot_rl.replay.dataset import FIELDS, by_episode, digest, load_replay, read_transitions, write_transitions
from robot_rl.replay.n_step import NStep
from robot_rl.replay.ring_buffer import Batch


def episodes(lengths: list[int]) -> Batch:
    """Episodes whose observation counts steps, over all of them; each ends truncated."""
    n = sum(lengths)
    obs = torch.stack((torch.arange(n), torch.zeros(n)), -1).float()
    truncated = torch.zeros(n)
    truncated[torch.tensor(lengths).cumsum(0) - 1] = 1
    return Batch(obs, obs[:, :1] / n, obs[:, 0].clone(), torch.zeros(n), truncated, obs + torch.tensor([1.0, 0.0]))


def same(one: Batch, two: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in FIELDS)


def test_round_trip_and_what_is_told_about_it(tmp_path):
    path, batch = tmp_path / "demos.safetensors", episodes([3, 4])
    write_transitions(path, batch, {"task": "point-mass"})
    assert same(read_transitions(path), batch)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"task": "point-mass", "format": "robot-rl transitions 1"}
    assert [p.name for p in tmp_path.iterdir()] == ["demos.safetensors"]
    shared = replace(batch, next_obs=batch.obs.T.contiguous().T, truncated=batch.terminated)  # memory and strides
    write_transitions(path, shared)
    assert same(read_transitions(path), shared)
    before = digest(path)
    write_transitions(path, batch)
    assert digest(path) != before


def test_npz_of_other_dtypes_reads_the_same_and_pickles_are_refused(tmp_path):
    batch = episodes([3, 4])
    arrays = {name: getattr(batch, name).numpy() for name in FIELDS}
    arrays |= {"obs": arrays["obs"].astype(np.float64), "truncated": arrays["truncated"].astype(bool)}
    np.savez(tmp_path / "demos.npz", **arrays)
    assert same(read_transitions(tmp_path / "demos.npz"), batch)
    np.savez(tmp_path / "code.npz", **{**arrays, "obs": np.array([object()])})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_transitions(tmp_path / "code.npz")


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("reward", 2, float("nan"), "reward is not finite: row 2 has nan"),
        ("action", 4, 1.5, r"actions must lie in \[-1, 1\]: row 4 has \[1.5\]"),
        ("terminated", 1, 0.5, "terminated must be 0 or 1: row 1 has 0.5"),
        ("terminated", 2, 1.0, "both terminated and truncated: row 2"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_named(tmp_path, name, row, value, message):
    batch = episodes([3, 4])
    getattr(batch, name)[row] = value
    np.savez(tmp_path / "x.npz", **{n: getattr(batch, n).numpy() for n in FIELDS})
    with pytest.raises(ConfigError, match=message):
        read_transitions(tmp_path / "x.npz")
    with pytest.raises(ConfigError, match=message):
        write_transitions(tmp_path / "x.safetensors", batch)


def test_files_of_something_else_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.safetensors cannot be read"):
        read_transitions(tmp_path / "none.safetensors")
    np.savez(tmp_path / "x.npz", obs=np.zeros((2, 2)), reward=np.zeros(2))
    with pytest.raises(ConfigError, match=r"lacks action, terminated, truncated, next_obs; it has obs, reward"):
        read_transitions(tmp_path / "x.npz")
    write_transitions(tmp_path / "x.safetensors", episodes([3]))
    with pytest.raises(ConfigError, match="2 observations and 1 actions; the task has 5 and 1"):
        load_replay(tmp_path / "x.safetensors", 5, 1)
    short = replace(episodes([3]), reward=torch.zeros(4))
    with pytest.raises(ConfigError, match="one row per transition"):
        write_transitions(tmp_path / "y.safetensors", short)


def test_a_loaded_replay_draws_the_file_and_its_n_step_returns_end_with_episodes(tmp_path):
    path = tmp_path / "x.safetensors"
    write_transitions(path, episodes([3, 4]))
    plain = load_replay(path, 2, 1, seed=1)
    assert len(plain) == plain.capacity == 7
    assert set(plain.sample(200).obs[:, 0].tolist()) == set(map(float, range(7)))
    batch = load_replay(path, 2, 1, n_step=NStep(3, 1.0)).sample(200)
    pairs = set(zip(batch.obs[:, 0].tolist(), batch.reward.tolist(), strict=True))
    assert pairs == {(0, 3), (1, 3), (2, 2), (3, 12), (4, 15), (5, 11), (6, 6)}


def test_n_step_refuses_rows_out_of_order(tmp_path):
    batch = episodes([3, 4])
    order = torch.tensor([0, 1, 2, 3, 5, 4, 6])
    write_transitions(tmp_path / "x.safetensors", Batch(**{n: getattr(batch, n)[order] for n in FIELDS}))
    load_replay(tmp_path / "x.safetensors", 2, 1)
    with pytest.raises(ConfigError, match=r"does not go on: row 3 has \[4.0, 0.0\]"):
        load_replay(tmp_path / "x.safetensors", 2, 1, n_step=NStep(2, 0.9))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_steps_of_many_environments_come_out_as_episodes(missing):
    """`missing`: how many of the oldest rows a full buffer has already lost."""
    num_envs, steps = 3, 4
    env = torch.arange(num_envs).repeat(steps)[missing:]
    t = torch.arange(steps).repeat_interleave(num_envs)[missing:]
    obs = torch.stack((env, t), -1).float()
    zeros = torch.zeros(len(env))
    terminated = ((env == 1) & (t == 3)).float()
    batch = by_episode(Batch(obs, zeros.unsqueeze(-1), zeros, terminated, zeros, obs), num_envs)
    expected = [(e, s) for e in range(num_envs) for s in range(steps) if s * num_envs + e >= missing]
    assert batch.obs.int().tolist() == [list(pair) for pair in expected]
    assert batch.terminated.tolist() == [float(pair == (1, 3)) for pair in expected]
    assert batch.truncated.tolist() == [float(pair in {(0, 3), (2, 3)}) for pair in expected]
