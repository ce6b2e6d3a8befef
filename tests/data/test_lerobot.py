"""LeRobot's layout, read with pyarrow alone and as pandas-written files of others have it.

Opened once with lerobot 0.4.4 itself: `LeRobotDataset(root=...)`, with delta_timestamps, and a subset of its episodes.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from robot_rl.data import ActionRange, lerobot_meta, read_dataset, write_dataset
from robot_rl.errors import ConfigError

FIRST, SECOND = 4, 3
"""Frames of the two episodes of `foreign`."""


def test_there_and_back(recorded, tmp_path, assert_same):
    assert_same(read_dataset(write_dataset(recorded, tmp_path / "d", "lerobot")), recorded)


def test_the_frames_are_what_was_recorded(recorded, tmp_path):
    write_dataset(recorded, tmp_path / "d", "lerobot")
    table = pq.read_table(tmp_path / "d/data/chunk-000/file-000.parquet")
    info = json.loads((tmp_path / "d/meta/info.json").read_text())
    assert set(table.column_names) == set(info["features"])
    assert (info["codebase_version"], info["fps"], info["total_frames"]) == ("v3.0", 4, len(recorded))
    batch = recorded.transitions
    native = torch.tensor([0.0, 0.4]) + torch.tensor([1.0, 0.3]) * batch.action
    np.testing.assert_allclose(np.stack(table["action"].to_numpy()), native, atol=1e-6)
    np.testing.assert_array_equal(np.stack(table["observation.state"].to_numpy()), batch.obs)
    np.testing.assert_array_equal(table["next.truncated"].to_numpy(), batch.truncated)
    np.testing.assert_array_equal(table["next.done"].to_numpy(), batch.truncated + batch.terminated)
    assert info["features"]["action"]["shape"] == [2]
    assert table.schema.field("action").type == pa.list_(pa.float32(), 2)
    frame, episode = table["frame_index"].to_numpy(), table["episode_index"].to_numpy()
    np.testing.assert_array_equal(table["timestamp"].to_numpy(), (frame / 4).astype(np.float32))
    for i, rows in enumerate(recorded.episodes()):
        assert set(episode[rows]) == {i}
        assert frame[rows].tolist() == list(range(rows.stop - rows.start))


def test_episodes_and_statistics_are_those_of_their_rows(recorded, tmp_path):
    write_dataset(recorded, tmp_path / "d", "lerobot")
    episodes = pq.read_table(tmp_path / "d/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for episode, rows in zip(episodes, recorded.episodes(), strict=True):
        assert (episode["dataset_from_index"], episode["dataset_to_index"]) == (rows.start, rows.stop)
        assert (episode["length"], episode["tasks"]) == (rows.stop - rows.start, ["point-mass"])
        obs = recorded.transitions.obs[rows].double()
        np.testing.assert_allclose(episode["stats/observation.state/std"], obs.std(0, correction=0), rtol=1e-6)
        np.testing.assert_allclose(episode["stats/observation.state/q90"], obs.quantile(0.9, dim=0), rtol=1e-6)
        assert episode["stats/action/count"] == [rows.stop - rows.start]
    reward = json.loads((tmp_path / "d/meta/stats.json").read_text())["next.reward"]
    assert reward["min"] == [recorded.transitions.reward.min().item()]
    # As pandas needs it to make the tasks the index of the frame.
    tasks = pq.read_table(tmp_path / "d/meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0], "task": ["point-mass"]}
    assert tasks.schema.pandas_metadata["index_columns"] == ["task"]


def test_data_files_are_split_between_episodes(recorded, tmp_path, monkeypatch, assert_same):
    monkeypatch.setattr(lerobot_meta, "FILE_MB", 0.003)
    monkeypatch.setattr(lerobot_meta, "CHUNK_FILES", 2)
    write_dataset(recorded, tmp_path / "d", "lerobot")
    files = sorted((tmp_path / "d/data").glob("*/*.parquet"))
    assert [str(file.relative_to(tmp_path / "d/data")) for file in files[:3]] == [
        f"chunk-{chunk:03d}/file-{file:03d}.parquet" for chunk, file in ((0, 0), (0, 1), (1, 0))
    ]
    episodes = pq.read_table(tmp_path / "d/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for episode in episodes:
        name = f"data/chunk-{episode['data/chunk_index']:03d}/file-{episode['data/file_index']:03d}.parquet"
        assert episode["episode_index"] in pq.read_table(tmp_path / "d" / name)["episode_index"].to_pylist()
    assert_same(read_dataset(tmp_path / "d"), recorded)


def test_a_reward_that_is_not_known_has_no_column(recorded, tmp_path):
    unknown = replace(recorded.transitions, reward=torch.full((len(recorded),), torch.nan))
    path = write_dataset(replace(recorded, transitions=unknown), tmp_path / "d", "lerobot")
    assert "next.reward" not in json.loads((path / "meta/info.json").read_text())["features"]
    again = read_dataset(path)
    assert not again.reward_known
    assert "there is no next.reward: it is NaN" in again.notes


def test_one_number_per_row_is_a_plain_column(tmp_path, recorded):
    batch = recorded.transitions
    narrow = replace(batch, obs=batch.obs[:, :1], next_obs=batch.next_obs[:, :1], action=batch.action[:, :1])
    dataset = replace(recorded, transitions=narrow, action_proposed=None, action_range=None)
    path = write_dataset(dataset, tmp_path / "d", "lerobot")
    schema = pq.read_schema(path / "data/chunk-000/file-000.parquet")
    assert schema.field("action").type == schema.field("observation.state").type == pa.float32()
    assert torch.equal(read_dataset(path).transitions.obs, narrow.obs)


def foreign(path: Path, **changes) -> Path:
    """Two episodes as lerobot records them, without anything of ours: lists of any length, and a camera."""
    n = FIRST + SECOND
    columns = {
        "observation.state": [[float(i), 0.5] for i in range(n)],
        "observation.environment_state": [[10.0 * i] for i in range(n)],
        "action": [[0.1 * i - 0.3] for i in range(n)],
        "next.reward": [float(i == FIRST - 1) for i in range(n)],
        "next.done": [i in (FIRST - 1, n - 1) for i in range(n)],
        "next.success": [i == FIRST - 1 for i in range(n)],
        "frame_index": [*range(FIRST), *range(SECOND)],
        "episode_index": [0] * FIRST + [1] * SECOND,
    }
    columns = {name: value for name, value in {**columns, **changes}.items() if value is not None}
    sizes = {name: len(v[0]) if isinstance(v[0], list) else 1 for name, v in columns.items()}
    features = {name: {"dtype": "float32", "shape": [size], "names": None} for name, size in sizes.items()}
    features["observation.images.top"] = {"dtype": "video", "shape": [96, 96, 3], "names": None}
    info = {"codebase_version": "v3.0", "fps": 30, "total_frames": n, "robot_type": "so100", "features": features}
    (path / "meta").mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.table({"task_index": [0], "__index_level_0__": ["pick"]}), path / "meta/tasks.parquet")
    (path / "data/chunk-000").mkdir(parents=True)
    # Out of order, in two files.
    for number, half in enumerate((slice(FIRST, n), slice(0, FIRST))):
        table = pa.table({name: value[half] for name, value in columns.items()})
        pq.write_table(table, path / f"data/chunk-000/file-{number:03d}.parquet")
    return path


def test_a_dataset_of_others(tmp_path):
    dataset = read_dataset(foreign(tmp_path / "d"))
    batch = dataset.transitions
    # The first episode ends in success; of the second, the last frame has no next observation and is dropped.
    assert batch.obs.tolist() == [[float(i), 0.5, 10.0 * i] for i in range(6)]
    assert batch.next_obs[:3].tolist() == batch.obs[1:4].tolist()
    assert batch.next_obs[4:].tolist() == [[5.0, 0.5, 50.0], [6.0, 0.5, 60.0]]
    assert batch.terminated.tolist() == [0, 0, 0, 1, 0, 0]
    assert batch.truncated.tolist() == [0, 0, 0, 0, 0, 1]
    assert dataset.success.tolist() == batch.reward.tolist() == [0, 0, 0, 1, 0, 0]
    assert dataset.about["task"] == "pick"
    assert dataset.about["robot"] == "so100"
    assert dataset.about["observation"] == "observation.state observation.environment_state"
    assert dataset.notes == (
        "left out: observation.images.top (video); only vectors are read",
        "1 last rows of episodes left out: their next observation was not recorded",
        "there is no next.truncated: episodes that end in next.success are terminated, others truncated",
    )


def test_without_done_and_success_episodes_are_truncated(tmp_path):
    dataset = read_dataset(foreign(tmp_path / "d", **{"next.done": None, "next.success": None}))
    assert dataset.transitions.terminated.sum() == 0
    assert [(rows.start, rows.stop) for rows in dataset.episodes()] == [(0, 3), (3, 5)]
    assert dataset.transitions.truncated.tolist() == [0, 0, 1, 0, 1]


def test_actions_in_other_units_need_a_range(tmp_path):
    degrees = [[30.0 * i] for i in range(FIRST + SECOND)]
    path = foreign(tmp_path / "d", action=degrees)
    with pytest.raises(ConfigError, match=r"recorded are \[0.0\] to \[150.0\].*--action-low"):
        read_dataset(path)
    dataset = read_dataset(path, ActionRange([0.0], [180.0]))
    np.testing.assert_allclose(dataset.transitions.action[:, 0], np.arange(6) / 3 - 1, atol=1e-6)
    back = write_dataset(dataset, tmp_path / "back", "lerobot")
    table = pq.read_table(back / "data/chunk-000/file-000.parquet")
    np.testing.assert_allclose(table["action"].to_numpy(), [30.0 * i for i in range(6)], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebase_version": "v2.1"}, "version v2.1; v3.0 is read"),
        ({"total_frames": 8}, "has 7 rows in data/; meta/info.json says 8"),
        ({"features": {"action": {"dtype": "float32", "shape": [1]}}}, "needs observation vectors and an action"),
        ({"features": 1}, "cannot be read as a LeRobotDataset"),
    ],
)
def test_what_is_broken_is_named(tmp_path, change, message):
    path = foreign(tmp_path / "d")
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps({**info, **change}))
    with pytest.raises(ConfigError, match=message):
        read_dataset(path)


def test_files_that_are_damaged_or_ragged_are_named(tmp_path):
    ragged = [[0.0, 0.0]] * 6 + [[0.0]]
    with pytest.raises(ConfigError, match=r"observation\.state has 13 numbers in 7 rows; 2 per row"):
        read_dataset(foreign(tmp_path / "ragged", **{"observation.state": ragged}))
    path = foreign(tmp_path / "d")
    (path / "data/chunk-000/file-001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="cannot be read as a LeRobotDataset"):
        read_dataset(path)
    single = {"episode_index": list(range(7)), "frame_index": [0] * 7, "next.success": None}
    with pytest.raises(ConfigError, match="only episodes of one frame"):
        read_dataset(foreign(tmp_path / "single", **single))


def test_fps_is_needed(tmp_path, recorded):
    with pytest.raises(ConfigError, match="--fps"):
        write_dataset(replace(recorded, about={}), tmp_path / "d", "lerobot")
    path = write_dataset(replace(recorded, about={}), tmp_path / "d", "lerobot", fps=12.5)
    assert json.loads((path / "meta/info.json").read_text())["fps"] == 12.5
