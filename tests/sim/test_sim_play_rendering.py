"""Videos and contact sheets show what moves, in a process of their own (see test_sim_video)."""

import os
import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from robot_rl.commands.main import EXIT_MISSING, EXIT_OK, main
from robot_rl.env import RenderedVecEnv, get_task
from robot_rl.errors import MissingDependencyError
from robot_rl_sim.play.contact_sheet import sampled_values

IN_CHILD = os.environ.get("ROBOT_RL_RENDER_TEST") == "1"
renders = pytest.mark.skipif(not IN_CHILD, reason="run by test_rendering_in_a_process_of_its_own")


@pytest.mark.skipif(IN_CHILD, reason="this is that process")
def test_rendering_in_a_process_of_its_own() -> None:
    environment = {**os.environ, "MUJOCO_GL": "egl", "ROBOT_RL_RENDER_TEST": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-rs", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=220)
    assert done.returncode == 0, done.stdout
    if "cannot render offscreen" in done.stdout:
        pytest.skip("no offscreen OpenGL here")


@renders
def test_an_environment_can_be_looked_at() -> None:
    env = get_task("leap-reach").make_env(num_envs=2, seed=0, num_threads=1)
    assert isinstance(env, RenderedVecEnv)
    try:
        first = env.render(0).astype(int)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert first.shape == (240, 320, 3)
    assert first.std() > 15
    assert np.abs(env.render(1) - first).max() > 60  # another pose, other goals
    for _ in range(3):
        env.step(torch.ones(2, 16))
    moved = np.abs(env.render(0) - first).sum(-1) > 60
    assert 100 < moved.sum() < moved.size / 2
    env.close()


@renders
def test_a_video_is_a_file_in_which_something_moves(tmp_path, capsys) -> None:
    path = tmp_path / "v.mp4"
    command = ["play", "random", "--task", "leap-reach", "--video", str(path), "--seconds", "0.5"]
    code = main([*command, "--size", "160", "120", "--nominal"])
    if code == EXIT_MISSING:
        pytest.skip(capsys.readouterr().err)
    assert code == EXIT_OK
    frames = iio.imread(path, index=None).astype(int)
    assert frames.shape == (10, 120, 160, 3)
    assert all(np.abs(b - a).max() > 40 for a, b in zip(frames, frames[2:], strict=False))
    assert iio.immeta(path)["fps"] == pytest.approx(20)


@renders
def test_a_contact_sheet_is_a_picture_of_all_worlds(tmp_path, capsys) -> None:
    path = tmp_path / "sheet.png"
    command = ["play", "zero", "--task", "leap-reach", "--contact-sheet", str(path), "--worlds", "2"]
    code = main([*command, "--seconds", "0.1"])
    if code == EXIT_MISSING:
        pytest.skip(capsys.readouterr().err)
    assert code == EXIT_OK
    sheet = iio.imread(path)[..., :3].astype(int)
    assert sheet.shape[0] > 300
    # Each of the two worlds is there, and differs from its neighbour.
    half = sheet.shape[1] // 2
    left, right = sheet[120:240, 20:half], sheet[120:240, half + 20 :]
    assert left.std() > 15
    assert right.std() > 15
    width = min(left.shape[1], right.shape[1])
    assert np.abs(left[:, :width] - right[:, :width]).mean() > 5


@pytest.mark.skipif(IN_CHILD, reason="needs no rendering")
def test_what_is_written_below_the_worlds_is_what_they_have() -> None:
    env = get_task("leap-reach").make_env(num_envs=5, seed=0, num_threads=1)
    sampled = {s.label: s for s in sampled_values(env)}
    mass = env.sim.model_field("body_mass")[:, 1:] / env.sim.nominal("body_mass")[1:]
    np.testing.assert_allclose(sampled["link mass"].values, mass, rtol=1e-5)
    assert sampled["link mass"].unit == "x"
    friction = (env.sim.model_field("geom_friction") / env.sim.nominal("geom_friction"))[:, 0, :1]
    np.testing.assert_allclose(sampled["friction"].values, friction, rtol=1e-5)
    latency_ms = 50 * env.imperfections.latency.state["delay"].double().numpy() / env.sim.substeps
    np.testing.assert_allclose(sampled["action latency"].values[:, 0], latency_ms, atol=2.6)  # in whole physics steps
    assert (sampled["action latency"].unit, sampled["action latency"].range) == ("ms", (0.0, 50.0))
    nominal = get_task("leap-reach").make_env(num_envs=2, seed=0, randomize=False, num_threads=1)
    assert sampled_values(nominal) == []
