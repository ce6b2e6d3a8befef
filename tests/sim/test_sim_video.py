"""Frames show the robot, and files hold what was rendered."""

import os
import subprocess
import sys

import imageio.v3 as iio
import mujoco
import numpy as np
import pytest

from robot_rl.errors import MissingDependencyError
from robot_rl_sim.markers import sphere
from robot_rl_sim.models import load_model
from robot_rl_sim.video import FrameRenderer, write_mp4

# MuJoCo chooses its OpenGL when first imported, and another kind of context can crash: rendering gets its own process.
IN_CHILD = os.environ.get("ROBOT_RL_RENDER_TEST") == "1"
renders = pytest.mark.skipif(not IN_CHILD, reason="run by test_rendering_in_a_process_of_its_own")


@pytest.mark.skipif(IN_CHILD, reason="this is that process")
def test_rendering_in_a_process_of_its_own() -> None:
    environment = {**os.environ, "MUJOCO_GL": "egl", "ROBOT_RL_RENDER_TEST": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-rs", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    if "cannot render offscreen" in done.stdout:
        pytest.skip("no offscreen OpenGL here")


@pytest.fixture(scope="module", params=["leap_hand", "unitree_g1"])
def renderer(request):
    model = load_model(request.param)
    try:
        with FrameRenderer(model, 160, 120) as opened:
            yield model, opened
    except MissingDependencyError as error:
        pytest.skip(str(error))


@renders
def test_kinematics_alone_are_enough_for_a_frame(renderer) -> None:
    """mj_kinematics leaves cameras where they were: at the origin, in data that was never stepped."""
    model, frames = renderer
    whole, kinematics = mujoco.MjData(model), mujoco.MjData(model)
    mujoco.mj_forward(model, whole)
    mujoco.mj_kinematics(model, kinematics)
    difference = frames.frame(kinematics).astype(int) - frames.frame(whole)
    assert np.abs(difference).mean() < 0.5  # edges are not anti-aliased the same way twice


@renders
def test_a_frame_shows_the_robot_and_its_markers(renderer) -> None:
    model, frames = renderer
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    plain = frames.frame(data).astype(int)
    assert plain.std() > 15  # sky alone has 9
    red = sphere(data.xpos[1] + [0, 0, 0.1], 0.1, (1.0, 0.0, 0.0, 1.0))
    marked = frames.frame(data, [red]).astype(int)
    changed = np.abs(marked - plain).sum(-1) > 60
    assert 20 < changed.sum() < changed.size / 2
    r, g, b = marked[changed].mean(0)
    assert r > 2 * g
    assert r > 2 * b


def test_written_video_can_be_read_back(tmp_path) -> None:
    frames = [np.full((48, 64, 3), level, np.uint8) for level in (20, 120, 220)]
    write_mp4(tmp_path / "v.mp4", frames, fps=10)
    read = iio.imread(tmp_path / "v.mp4", index=None)
    assert read.shape == (3, 48, 64, 3)
    assert [round(float(f.mean()) / 10) for f in read] == [2, 12, 22]
    assert list(tmp_path.iterdir()) == [tmp_path / "v.mp4"]
