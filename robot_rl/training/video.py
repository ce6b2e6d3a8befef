"""Videos of the policy while it learns, as animated images in TensorBoard and as files of the run."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from robot_rl.env import RenderedVecEnv, RobotVecEnv, VecEnv
from robot_rl.errors import ConfigError
from robot_rl.training.evaluate import Policy
from robot_rl.training.files import write_bytes

Frame = NDArray[np.uint8]

MAX_FRAMES = 100
"""Of one video; of longer episodes every second, third, ... step is shown."""
_PALETTE_FRAMES = 8


class RolloutVideo:
    """Films one episode of the deterministic policy whenever asked, always from the same start.

    A picture is not worth a run: what goes wrong is told once, as a warning, and nothing is filmed from then on.
    """

    def __init__(self, make_env: Callable[[], VecEnv], seed: int, run_dir: Path) -> None:
        self._make_env = make_env
        self._seed = seed
        self._folder = run_dir / "videos"
        self._env: RenderedVecEnv | None = None
        self._failed = False

    def film(self, policy: Policy, step: int) -> bytes | None:
        """A GIF, which is also written to videos/<step>.gif; None where it cannot be had."""
        if self._failed:
            return None
        try:
            if self._env is None:
                self._env = _rendered(self._make_env())
            frames, frame_s = rollout_frames(self._env, policy, self._seed)
            gif = encode_gif(frames, frame_s)
            self._folder.mkdir(exist_ok=True)
            write_bytes(self._folder / f"{step}.gif", gif)
        except Exception as error:  # OpenGL fails in many ways
            self._failed = True
            warnings.warn(f"no videos in this run: {error}", stacklevel=2)
            return None
        return gif

    def close(self) -> None:
        if self._env is not None:
            self._env.close()


def _rendered(env: VecEnv) -> RenderedVecEnv:
    if not isinstance(env, RenderedVecEnv):
        raise ConfigError("the environments of this task cannot be rendered")
    return env


@torch.no_grad()
def rollout_frames(env: RenderedVecEnv, policy: Policy, seed: int) -> tuple[list[Frame], float]:
    """Frames (height, width, 3) of the first episode of environment 0, and the time between two, s."""
    stride = -(-env.max_episode_steps // MAX_FRAMES)
    obs, frames = env.reset(seed), []
    for i in range(env.max_episode_steps):
        if i % stride == 0:
            frames.append(env.render(0))
        step = env.step(policy(obs))
        obs = step.obs
        if bool(step.terminated[0] | step.truncated[0]):
            break
    period_s = env.policy_io.contract.control_period_s if isinstance(env, RobotVecEnv) else 0.05
    return frames, stride * period_s


def encode_gif(frames: list[Frame], frame_s: float) -> bytes:
    """An endless GIF of frames (height, width, 3), each shown for `frame_s`, which GIF rounds to hundredths."""
    from PIL import Image

    # One palette for all, from some of them: with one for each, still parts of the picture flicker.
    some = np.concatenate(frames[:: -(-len(frames) // _PALETTE_FRAMES)])
    palette = Image.fromarray(some).quantize(255)
    images = [Image.fromarray(frame).quantize(palette=palette) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(
        buffer, "GIF", save_all=True, append_images=images[1:], duration=max(20, round(100 * frame_s) * 10), loop=0
    )
    return buffer.getvalue()
