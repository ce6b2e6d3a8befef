"""Offscreen frames of a MuJoCo model, and H.264 files of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import imageio.v3 as iio
import mujoco
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from robot_rl.errors import MissingDependencyError
from robot_rl_sim.markers import Marker, draw

Frame = NDArray[np.uint8]


class FrameRenderer:
    """Renders one model from its camera "main", or, where it has none, from where all of it is seen. A context manager,
    because it owns an OpenGL context.

    Raises MissingDependencyError, with the packages that help, where no offscreen OpenGL can be had.
    """

    def __init__(self, model: mujoco.MjModel, width: int = 640, height: int = 480, shadows: bool = True) -> None:
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        try:
            self._renderer = mujoco.Renderer(model, height=height, width=width)
        except Exception as error:  # each OpenGL back end raises a type of its own
            raise MissingDependencyError(
                f"cannot render offscreen ({error}); on Debian or Ubuntu: apt install libegl1 libgl1 libgl1-mesa-dri, "
                "and set MUJOCO_GL=egl"
            ) from error
        self._model = model
        self._camera: str | mujoco.MjvCamera = "main"
        if "main" not in (model.camera(i).name for i in range(model.ncam)):
            self._camera = mujoco.MjvCamera()
            mujoco.mjv_defaultFreeCamera(model, self._camera)
        flags = self._renderer.scene.flags
        flags[int(mujoco.mjtRndFlag.mjRND_SHADOW)] = shadows
        flags[int(mujoco.mjtRndFlag.mjRND_REFLECTION)] = False

    def frame(self, data: mujoco.MjData, markers: Sequence[Marker] = ()) -> Frame:
        """(height, width, 3) RGB of the state in `data`, whose kinematics must be current."""
        # mj_kinematics moves bodies, and neither cameras nor lights, of which some follow the centre of mass.
        mujoco.mj_comPos(self._model, data)
        mujoco.mj_camlight(self._model, data)
        self._renderer.update_scene(data, camera=self._camera)
        draw(self._renderer.scene, markers)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()

    def __enter__(self) -> FrameRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def place(model: mujoco.MjModel, data: mujoco.MjData, qpos: Tensor, qvel: Tensor) -> mujoco.MjData:
    """`data` with one world's qpos (nq,) and qvel (nv,), from any backend, and all that drawing needs; returns it."""
    data.qpos[:] = qpos.cpu()
    data.qvel[:] = qvel.cpu()
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_comVel(model, data)
    return data


def write_mp4(path: Path, frames: list[Frame], fps: float) -> None:
    """H.264 in MP4, playable in every browser; written atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp.mp4")
    iio.imwrite(temporary, np.stack(frames), fps=fps, codec="libx264", plugin="FFMPEG", macro_block_size=8)
    os.replace(temporary, path)
