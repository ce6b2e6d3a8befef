"""A viewer in the browser, through viser."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import trimesh
import viser
from numpy.typing import NDArray

from robot_rl_sim.markers import Marker
from robot_rl_sim.play.meshes import geom_mesh, geom_rgba, shape_mesh, unit_shape
from robot_rl_sim.play.playback import SPEEDS, Playback

_VISIBLE_GROUPS = 3
"""Geom groups 0, 1, 2 are shown, as in MuJoCo's viewer; the rest is collision geometry."""
_FLOOR_M = 8.0


class Scene:
    """A model in viser's scene: one frame per body, its geoms below it."""

    def __init__(self, server: viser.ViserServer, model: mujoco.MjModel) -> None:
        self._scene = server.scene
        self._server = server
        self._markers: list[Any] = []
        self._marker_kinds: list[tuple[Any, ...]] = []
        self.bodies: dict[int, Any] = {}
        for geom in range(model.ngeom):
            rgba = geom_rgba(model, geom)
            if int(model.geom_group[geom]) >= _VISIBLE_GROUPS or rgba[3] == 0:
                continue
            body = int(model.geom_bodyid[geom])
            if int(model.geom_type[geom]) == int(mujoco.mjtGeom.mjGEOM_PLANE):
                at = model.geom_pos[geom]
                self._scene.add_grid(f"/floor_{geom}", _FLOOR_M, _FLOOR_M, position=at, wxyz=model.geom_quat[geom])
                continue
            mesh = geom_mesh(model, geom)
            if mesh is None:
                continue
            if body not in self.bodies:
                self.bodies[body] = self._scene.add_frame(f"/bodies/{body}", show_axes=False)
            self._add(f"/bodies/{body}/{geom}", mesh, rgba, model.geom_pos[geom], model.geom_quat[geom])

    def update(self, data: mujoco.MjData, markers: list[Marker]) -> None:
        """Move everything to where it is in `data`."""
        with self._server.atomic():
            for body, frame in self.bodies.items():
                frame.position, frame.wxyz = data.xpos[body].copy(), data.xquat[body].copy()
            self._update_markers(markers)

    def _update_markers(self, markers: list[Marker]) -> None:
        """Shapes that stay are moved and stretched; where others are asked for, all are made anew."""
        kinds = [(m.shape, *unit_shape(m.shape, m.size)[0]) for m in markers]
        if kinds != self._marker_kinds:
            for handle in self._markers:
                handle.remove()
            self._marker_kinds = kinds
            self._markers = [self._add_marker(f"/markers/{i}", marker) for i, marker in enumerate(markers)]
        for marker, handle in zip(markers, self._markers, strict=True):
            handle.position, handle.wxyz = marker.pos_w, _quat(marker.mat_w)
            handle.scale = tuple(unit_shape(marker.shape, marker.size)[1])

    def _add_marker(self, name: str, marker: Marker) -> Any:
        mesh = shape_mesh(marker.shape, unit_shape(marker.shape, marker.size)[0])
        return self._add(name, mesh, np.array(marker.rgba), marker.pos_w, _quat(marker.mat_w))

    def _add(self, name: str, mesh: trimesh.Trimesh, rgba: NDArray[np.float64], pos: Any, quat: Any) -> Any:
        red, green, blue = (int(255 * c) for c in rgba[:3])
        return self._scene.add_mesh_simple(
            name,
            np.asarray(mesh.vertices, np.float32),
            np.asarray(mesh.faces, np.uint32),
            color=(red, green, blue),
            opacity=None if rgba[3] == 1 else float(rgba[3]),
            # Shared vertices would round the edges of a box.
            flat_shading=len(mesh.faces) <= 200,
            wxyz=np.asarray(quat),
            position=np.asarray(pos),
        )


@dataclass
class Panel:
    """The page's controls."""

    status: Any
    pause: Any
    reset: Any
    speed: Any
    by_hand: Any | None
    sliders: list[Any]

    def update(self, playback: Playback) -> None:
        self.status.content = playback.status()
        if self.by_hand is not None and playback.controls is not None and not playback.by_hand:
            playback.controls.take(playback.command())
            for slider, value in zip(self.sliders, playback.controls.values, strict=True):
                slider.value = round(float(value), 3)


def make_panel(server: viser.ViserServer, playback: Playback, act: Callable[[Callable[[], None]], None]) -> Panel:
    """Buttons and sliders; what they do is handed to `act`, because viser calls from a thread of its own."""
    gui = server.gui
    status = gui.add_markdown(playback.status())
    pause = gui.add_checkbox("pause", initial_value=False)
    reset = gui.add_button("new episode")
    speed = gui.add_dropdown("speed", [f"{s:g}" for s in SPEEDS], initial_value="1")
    pause.on_update(lambda _: act(lambda: setattr(playback, "paused", bool(pause.value))))
    reset.on_click(lambda _: act(playback.reset))
    speed.on_update(lambda _: act(lambda: setattr(playback, "speed", float(speed.value))))
    if playback.controls is None:
        return Panel(status, pause, reset, speed, None, [])
    by_hand = gui.add_checkbox("command by hand", initial_value=False)
    by_hand.on_update(
        lambda _: act(lambda: playback.take_over() if by_hand.value else setattr(playback, "by_hand", False))
    )
    controls, sliders = playback.controls, []
    for i, control in enumerate(controls.controls):
        slider = gui.add_slider(control.name, control.low, control.high, control.step / 10, float(controls.values[i]))

        def moved(event: Any, i: int = i, slider: Any = slider) -> None:
            # Without a client it was the panel itself that moved the slider.
            if event.client is not None and playback.by_hand:
                act(lambda: controls.set(i, float(slider.value)))

        slider.on_update(moved)
        sliders.append(slider)
    return Panel(status, pause, reset, speed, by_hand, sliders)


def watch(playback: Playback, host: str, port: int, stop: threading.Event | None = None) -> None:
    """Serve the page until interrupted, or until `stop` is set."""
    server = viser.ViserServer(host=host, port=port, label="robot-rl", verbose=False)
    print(f"open http://{'localhost' if host in ('0.0.0.0', '127.0.0.1') else host}:{server.get_port()}", flush=True)
    pending: list[Callable[[], None]] = []
    scene, panel = Scene(server, playback.model), make_panel(server, playback, pending.append)
    look_at = playback.model.stat.center
    eye = look_at + playback.model.stat.extent * np.array([1.2, -1.2, 0.8])
    server.initial_camera.position, server.initial_camera.look_at = tuple(eye), tuple(look_at)

    def show() -> bool:
        while pending:
            pending.pop(0)()
        data = playback.data()
        scene.update(data, playback.markers(data))
        panel.update(playback)
        return stop is None or not stop.is_set()

    try:
        playback.run(show)
    finally:
        server.stop()


def _quat(mat: NDArray[np.float64]) -> NDArray[np.float64]:
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, mat.ravel())
    return quat
