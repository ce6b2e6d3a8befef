"""A film of a run on a simulated robot. While it runs only states are kept; frames are drawn when it is over."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl.runtime.tick import Tick
from robot_rl_sim.markers import Marker, command_markers
from robot_rl_sim.mdp import Mdp
from robot_rl_sim.video import FrameRenderer, write_mp4

FPS = 25.0


class RobotFilm:
    """Of the robot whose `data` is live; `mdp` knows how to draw what is asked of it, and is None where nobody does.

    Raises MissingDependencyError without OpenGL: now, and not when the run is over.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, mdp: Mdp | None) -> None:
        FrameRenderer(model).close()
        self._model, self._data, self._mdp = model, data, mdp
        self._states: list[tuple[NDArray[np.float64], NDArray[np.float64] | None]] = []
        """qpos and command of each frame."""
        self._next_s = -np.inf

    def on_tick(self, tick: Tick) -> None:
        """Keep the present state if a frame is due."""
        if tick.now_s >= self._next_s:
            self._next_s = max(self._next_s + 1.0 / FPS, tick.now_s)
            command = tick.operator.command
            self._states.append((self._data.qpos.copy(), None if command is None else command.astype(np.float64)))

    def write(self, path: Path) -> None:
        """Draw it all, as H.264 in MP4."""
        data, frames = mujoco.MjData(self._model), []
        with FrameRenderer(self._model) as renderer:
            for qpos, command in self._states:
                data.qpos[:] = qpos
                mujoco.mj_kinematics(self._model, data)
                frames.append(renderer.frame(data, self._markers(data, command)))
        write_mp4(path, frames, FPS)

    def _markers(self, data: mujoco.MjData, command: NDArray[np.float64] | None) -> list[Marker]:
        if self._mdp is None or command is None:
            return []
        return command_markers(self._mdp, self._model, data, command)
