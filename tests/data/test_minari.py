"""Minari's own package reads what we write, and we read what it writes."""

import json
import warnings
from dataclasses import replace

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import torch
from minari.data_collector.episode_buffer import EpisodeBuffer

from robot_rl.data import ActionRange, read_dataset, write_dataset
from robot_rl.data.dataset import Dataset
from robot_rl.errors import ConfigError

BOX = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
ACTIONS = gym.spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float64)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def episode(steps: int, terminated: bool, seed: int) -> EpisodeBuffer:
    rng = np.random.default_rng(seed)
    ends = np.arange(steps) == steps - 1
    return EpisodeBuffer(
        observations=rng.normal(size=(steps + 1, 3)),
        actions=rng.uniform(ACTIONS.low, ACTIONS.high, (steps, 2)),
        rewards=rng.normal(size=steps),
        terminations=ends & terminated,
        truncations=ends & (not terminated),
        infos={"success": [False, *(ends & terminated).tolist()]},  # Minari cannot read arrays back from Arrow
    )


def create(name: str, observations: gym.Space = BOX, actions: gym.Space = ACTIONS, **more) -> list[EpisodeBuffer]:
    episodes = more.pop("episodes", [episode(4, True, 0), episode(3, False, 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about everything that is not told about the dataset
        minari.create_dataset_from_buffers(name, episodes, observation_space=observations, action_space=actions, **more)
    return episodes


def test_what_we_wrote_is_what_minari_reads(recorded):
    write_dataset(recorded, "minari:point/mixed-v0")
    loaded = minari.load_dataset("point/mixed-v0")
    assert (loaded.total_episodes, loaded.total_steps) == (6, len(recorded))
    np.testing.assert_allclose(loaded.action_space.low, [-1, 0.1])
    batch = recorded.transitions
    for rows, theirs in zip(recorded.episodes(), loaded.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(theirs.observations[:-1], batch.obs[rows])
        np.testing.assert_array_equal(theirs.observations[1:], batch.next_obs[rows])
        np.testing.assert_array_equal(theirs.rewards, batch.reward[rows])
        np.testing.assert_array_equal(theirs.terminations, batch.terminated[rows])
        np.testing.assert_array_equal(theirs.truncations, batch.truncated[rows])
        native = torch.tensor([0.0, 0.4]) + torch.tensor([1.0, 0.3]) * batch.action[rows]
        np.testing.assert_allclose(theirs.actions, native, atol=1e-6)
        np.testing.assert_array_equal(theirs.infos["time_s"][1:], recorded.time_s[rows])


def test_there_and_back(recorded, tmp_path, assert_same):
    assert_same(read_dataset(write_dataset(recorded, tmp_path / "x-v3", "minari")), recorded)


def test_a_file_as_recorded_comes_back_as_recorded(tmp_path):
    episodes = create("arm/expert-v1")
    write_dataset(read_dataset("arm/expert-v1"), "minari:arm/copy-v1")
    for theirs, copy in zip(episodes, minari.load_dataset("arm/copy-v1").iterate_episodes(), strict=True):
        np.testing.assert_allclose(copy.actions, theirs.actions, atol=1e-6)
        np.testing.assert_allclose(copy.observations, theirs.observations, rtol=1e-6)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_what_minari_wrote_is_what_we_read(data_format):
    first, second = create("arm/expert-v0", data_format=data_format, algorithm_name="PID")
    dataset = read_dataset("minari:arm/expert-v0")
    batch = dataset.transitions
    assert batch.terminated.tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert batch.truncated.tolist() == [0, 0, 0, 0, 0, 0, 1]
    np.testing.assert_allclose(batch.next_obs[3], first.observations[-1], rtol=1e-6)
    np.testing.assert_allclose(batch.obs[4], second.observations[0], rtol=1e-6)
    np.testing.assert_allclose(batch.action[:4, 1], first.actions[:, 1] / 5 - 1, atol=1e-6)
    np.testing.assert_allclose(batch.reward, np.r_[first.rewards, second.rewards], rtol=1e-6)
    assert dataset.success.tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert dataset.about == {"dataset_id": "arm/expert-v0", "algorithm_name": "PID"}


def test_the_environment_of_a_dataset_comes_back():
    env = gym.make("Pendulum-v1")
    actions = np.random.default_rng(0).uniform(-2, 2, (4, 1)).astype(np.float32)
    observations = [env.reset(seed=0)[0], *(env.step(a)[0] for a in actions)]
    pendulum = replace(episode(4, False, 0), observations=np.stack(observations), actions=actions)
    create("pendulum/random-v0", env.observation_space, env.action_space, env=env, episodes=[pendulum])
    dataset = read_dataset("pendulum/random-v0")
    np.testing.assert_array_equal(dataset.transitions.action, actions / 2)
    assert dataset.about["task"] == "gym:Pendulum-v1"
    write_dataset(dataset, "minari:pendulum/copy-v0")
    copy = minari.load_dataset("pendulum/copy-v0")
    assert copy.recover_environment().action_space == copy.action_space == env.action_space


def test_spaces_that_are_no_boxes_are_refused_by_name():
    discrete = [replace(e, actions=np.zeros(len(e.rewards), int)) for e in (episode(3, True, 0),)]
    create("grid/a-v0", actions=gym.spaces.Discrete(3), episodes=discrete)
    with pytest.raises(ConfigError, match=r"actions are Discrete\(3\); only Box"):
        read_dataset("grid/a-v0")
    observations = {"position": np.zeros((4, 2)), "goal": np.zeros((4, 2))}
    space = gym.spaces.Dict({name: gym.spaces.Box(-1, 1, (2,), np.float64) for name in observations})
    create("grid/b-v0", space, episodes=[replace(episode(3, True, 0), observations=observations)])
    with pytest.raises(ConfigError, match=r"observations are Dict\(.*goal"):
        read_dataset("grid/b-v0")


def test_unbounded_actions_need_a_range():
    create("arm/wild-v0", actions=gym.spaces.Box(-np.inf, np.inf, (2,), np.float64))
    with pytest.raises(ConfigError, match=r"unbounded.*--action-low"):
        read_dataset("arm/wild-v0")
    dataset = read_dataset("arm/wild-v0", ActionRange([-20], [20]))
    assert dataset.transitions.action[:, 1].min() >= 0
    with pytest.raises(ConfigError, match="row 0 has action"):
        read_dataset("arm/wild-v0", ActionRange([-0.01], [0.01]))


def test_broken_datasets_are_named(tmp_path):
    create("arm/x-v0")
    data = tmp_path / "minari/arm/x-v0/data"
    metadata = json.loads((data / "metadata.json").read_text())
    (data / "metadata.json").write_text(json.dumps({**metadata, "total_steps": 9}))
    with pytest.raises(ConfigError, match="holds 7 steps; its metadata says 9"):
        read_dataset("arm/x-v0")
    (data / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(data / "main_data.hdf5", "a") as file:
        del file["episode_1/observations"]
        file["episode_1/observations"] = np.zeros((3, 3))
    with pytest.raises(ConfigError, match="episode 1 has 3 observations"):
        read_dataset("arm/x-v0")
    (data / "main_data.hdf5").write_bytes(b"no hdf5")
    with pytest.raises(ConfigError, match="cannot be read as a Minari dataset"):
        read_dataset("arm/x-v0")
    (data / "metadata.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as a Minari dataset"):
        read_dataset("arm/x-v0")


def test_names_that_minari_cannot_load_are_refused(recorded: Dataset, tmp_path):
    for target in ("minari:noversion", "minari:a b-v0"):
        with pytest.raises(ConfigError, match="Minari names datasets"):
            write_dataset(recorded, target)
    write_dataset(recorded, tmp_path / "x-v0", "minari")
    with pytest.raises(ConfigError, match="exists"):
        write_dataset(recorded, tmp_path / "x-v0", "minari")
