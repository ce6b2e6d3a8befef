"""MuJoCo's own window."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import mujoco.viewer

from robot_rl.errors import MissingDependencyError
from robot_rl_sim.markers import draw
from robot_rl_sim.play.playback import Playback

KEYS = (
    "space: pause; backspace: new episode; - and =: slower, faster; up/down, left/right, page up/down: command by hand "
    "(its first three entries); end: the task commands again"
)

# Key codes of GLFW: the entry of the command, and which way.
_COMMAND_KEYS = {265: (0, 1), 264: (0, -1), 263: (1, 1), 262: (1, -1), 266: (2, 1), 267: (2, -1)}


def key_handler(playback: Playback) -> Callable[[int], None]:
    """What a key does to the playback."""

    def press(key: int) -> None:
        if key == 32:
            playback.paused = not playback.paused
        elif key == 259:
            playback.reset()
        elif key in (45, 61):
            playback.change_speed(1 if key == 61 else -1)
        elif key == 269:
            playback.by_hand = False
        elif key in _COMMAND_KEYS and playback.controls is not None:
            index, sign = _COMMAND_KEYS[key]
            if index < len(playback.controls.controls):
                playback.take_over()
                step = playback.controls.controls[index].step
                playback.controls.set(index, playback.controls.values[index] + sign * step)

    return press


def check_display() -> None:
    """Raise MissingDependencyError where no window can be opened."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise MissingDependencyError("no display: use --web (a browser), --video FILE or --contact-sheet FILE")


def watch(playback: Playback) -> None:
    """Show until the window is closed."""
    check_display()
    pressed: list[int] = []
    press = key_handler(playback)
    data = playback.data()
    # Keys come in the viewer's own thread; they are acted on between steps.
    with mujoco.viewer.launch_passive(
        playback.model, data, key_callback=pressed.append, show_left_ui=False, show_right_ui=False
    ) as viewer:
        scene = viewer.user_scn
        if scene is None:  # the window could not be made
            return

        def show() -> bool:
            while pressed:
                press(pressed.pop(0))
            with viewer.lock():
                playback.data()
                scene.ngeom = 0
                draw(scene, playback.markers(data))
                viewer.set_texts((None, None, playback.status(), ""))
            viewer.sync()
            return viewer.is_running()

        playback.run(show)
