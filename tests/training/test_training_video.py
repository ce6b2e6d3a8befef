"""Videos of a run: valid GIFs of what happened, in TensorBoard and as files; failures cost the videos alone."""

import csv
import io
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robot_rl.errors import MissingDependencyError
from robot_rl.testing.point_mass import POINT_MASS, PointMassEnv
from robot_rl.training.config import make_config
from robot_rl.training.loop import train
from robot_rl.training.video import MAX_FRAMES, RolloutVideo, encode_gif, rollout_frames

TINY = {
    "num_envs": 3, "total_env_steps": 300, "warmup_env_steps": 90, "updates_per_env_step": 0.25, "buffer_size": 400,
    "evaluate_every": 0, "evaluate_episodes": 4, "checkpoint_every": 0, "log_every": 60, "batch_size": 16,
    "actor_hidden": (8,), "critic_hidden": (8,),
}  # fmt: skip


class Filmed(PointMassEnv):
    """A white square where the mass is, on a screen of 6 m by 40 pixels."""

    def render(self, env: int = 0) -> np.ndarray:
        frame = np.zeros((20, 40, 3), np.uint8)
        column = round(20 + 6 * float(self._pos[env, 0]))
        frame[8:12, column - 2 : column + 2] = 255
        return frame


class Blind(PointMassEnv):
    def render(self, env: int = 0) -> np.ndarray:
        raise MissingDependencyError("cannot render offscreen")


def frames_of(gif: bytes) -> list[np.ndarray]:
    with Image.open(io.BytesIO(gif)) as image:
        frames = []
        for i in range(image.n_frames):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
        return frames


def test_a_gif_reads_back_as_what_was_drawn() -> None:
    generator = np.random.default_rng(0)
    shades = [generator.integers(0, 255, 3) for _ in range(4)]
    drawn = [np.full((10, 16, 3), shade, np.uint8) for shade in shades]
    gif = encode_gif(drawn, 0.04)
    assert gif[:6] == b"GIF89a"
    with Image.open(io.BytesIO(gif)) as image:
        assert image.size == (16, 10)
        assert image.info["duration"] == 40
        assert image.info["loop"] == 0
    read = frames_of(gif)
    assert len(read) == 4
    for frame, expected in zip(read, drawn, strict=True):
        assert np.abs(frame - expected).max() <= 4


def test_frames_are_those_of_one_whole_episode_from_the_seed() -> None:
    env = Filmed(3, max_episode_steps=30)
    frames, frame_s = rollout_frames(env, lambda obs: -obs[:, :1] - obs[:, 1:], seed=4)
    assert len(frames) == 30
    assert frame_s == 0.05
    start = Filmed(3)
    start.reset(4)
    assert np.array_equal(frames[0], start.render(0))
    assert any(not np.array_equal(a, b) for a, b in pairwise(frames))
    long, frame_s = rollout_frames(Filmed(1, max_episode_steps=250), lambda obs: 0 * obs[:, :1], seed=4)
    assert len(long) == 84 <= MAX_FRAMES
    assert frame_s == pytest.approx(0.15)


def test_a_run_shows_its_policy_in_tensorboard_and_in_its_folder(tmp_path) -> None:
    task = replace(POINT_MASS, make_env=lambda *, num_envs, seed, **_: Filmed(num_envs, seed))
    result = train(make_config(POINT_MASS, **TINY, runs=tmp_path, video_every=100), task)
    files = {path.name: path.read_bytes() for path in (result.run_dir / "videos").iterdir()}
    assert sorted(files) == ["102.gif", "201.gif", "300.gif"]
    for gif in files.values():
        shown = frames_of(gif)
        assert len(shown) > 10
        assert any((a != b).any() for a, b in pairwise(shown))
    events = EventAccumulator(str(result.run_dir))
    events.Reload()
    images = events.Images("Rollout")
    assert [image.step for image in images] == [102, 201, 300]
    assert images[0].encoded_image_string == files["102.gif"]
    assert (images[0].width, images[0].height) == (40, 20)


def curve(run_dir) -> list[tuple[str, ...]]:
    with (run_dir / "progress.csv").open() as file:
        return [(row["step"], row["episode_return"], row["eval_return"]) for row in csv.DictReader(file)]


def test_a_run_that_cannot_film_says_so_once_and_learns_the_same(tmp_path) -> None:
    def make(kind):
        return replace(POINT_MASS, make_env=lambda *, num_envs, seed, **_: kind(num_envs, seed))

    runs = {}
    for kind, message in ((Blind, "cannot render offscreen"), (PointMassEnv, "cannot be rendered")):
        with pytest.warns(UserWarning, match=f"no videos in this run: .*{message}") as caught:
            runs[kind] = train(make_config(POINT_MASS, **TINY, runs=tmp_path, video_every=100), make(kind)).run_dir
        assert len(caught) == 1
        assert not (runs[kind] / "videos").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs[Filmed] = train(make_config(POINT_MASS, **TINY, runs=tmp_path, video_every=100), make(Filmed)).run_dir
        runs[None] = train(make_config(POINT_MASS, **TINY, runs=tmp_path), make(Filmed)).run_dir
    assert len({tuple(curve(run)) for run in runs.values()}) == 1


def test_a_disk_that_is_full_costs_the_videos_alone(tmp_path) -> None:
    (tmp_path / "videos").write_text("in the way")
    video = RolloutVideo(lambda: Filmed(1), 0, tmp_path)
    with pytest.warns(UserWarning, match="no videos in this run"):
        assert video.film(lambda obs: torch.zeros(1, 1), 5) is None
    assert video.film(lambda obs: torch.zeros(1, 1), 6) is None
