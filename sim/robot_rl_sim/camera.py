"""WorldCamera: pictures of the worlds of an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mujoco

from robot_rl_sim.markers import command_markers
from robot_rl_sim.video import Frame, FrameRenderer, place

if TYPE_CHECKING:
    from robot_rl_sim.env import SimVecEnv


class WorldCamera:
    """Takes pictures (height, width, 3) with what is asked of the robot drawn in. It owns an OpenGL context: close it.

    Raises MissingDependencyError where no offscreen OpenGL can be had.
    """

    def __init__(self, env: SimVecEnv, size: tuple[int, int] = (320, 240), shadows: bool = False) -> None:
        self._env = env
        self._model: mujoco.MjModel = env.sim.model  # pyright: ignore[reportAttributeAccessIssue]
        self._data = mujoco.MjData(self._model)
        self._renderer = FrameRenderer(self._model, *size, shadows=shadows)
        self._command = next((t.name for t in env.policy_io.contract.inputs if t.source == "command"), None)

    def frame(self, world: int) -> Frame:
        sim = self._env.sim
        data = place(self._model, self._data, sim.qpos[world], sim.qvel[world])
        if self._command is None:
            return self._renderer.frame(data)
        command = self._env.policy_inputs()[self._command][world].cpu().double().numpy()
        return self._renderer.frame(data, command_markers(self._env.mdp, self._model, data, command))

    def close(self) -> None:
        self._renderer.close()
