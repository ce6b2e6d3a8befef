"""A playback as frames, and as an MP4 file, without a display."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from robot_rl_sim.play.playback import Playback
from robot_rl_sim.video import Frame, FrameRenderer, write_mp4

MAX_FPS = 30.0


def frame_stride(period_s: float) -> int:
    """Control steps from one frame to the next, so that there are at most MAX_FPS in a second."""
    stride = 1
    while 1 / (stride * period_s) > MAX_FPS:
        stride += 1
    return stride


def frames(playback: Playback, renderer: FrameRenderer, steps: int) -> Iterator[Frame]:
    """The frames of `steps` control steps, the first before any."""
    stride = frame_stride(playback.period_s)
    for i in range(steps):
        if i % stride == 0:
            data = playback.data()
            yield renderer.frame(data, playback.markers(data))
        playback.step()


def film(
    playback: Playback, path: Path, seconds: float, size: tuple[int, int] = (640, 480), shadows: bool = False
) -> int:
    """Write `seconds` of simulated time, played at its true speed; returns how many frames there are.

    `size` is (width, height). Raises MissingDependencyError where nothing can be rendered.
    """
    steps = max(1, round(seconds / playback.period_s))
    with FrameRenderer(playback.model, *size, shadows=shadows) as renderer:
        shots = list(frames(playback, renderer, steps))
    write_mp4(path, shots, 1 / (frame_stride(playback.period_s) * playback.period_s))
    return len(shots)
