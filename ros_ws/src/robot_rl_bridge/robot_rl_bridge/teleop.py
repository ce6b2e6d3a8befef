"""What an operator's joystick or keyboard means: a command, a dead-man button, a stop. No ROS in here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from robot_rl.errors import ConfigError

NO_BUTTON = -1
KEY_HOLD_S = 0.6
"""A terminal tells of no key's release: one counts as held for this long, the longest pause before it repeats."""
# Key -> component of the command, and direction.
MOVES = {"w": (0, 1.0), "s": (0, -1.0), "a": (1, 1.0), "d": (1, -1.0), "q": (2, 1.0), "e": (2, -1.0)}
STOP_KEY = " "


@dataclass(frozen=True)
class Mapping:
    """Which axis (-1: none) moves each component of the command, and which button does what (-1: none does)."""

    axes: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    deadman_button: int
    estop_button: int
    request_buttons: tuple[tuple[str, int], ...] = ()
    """(request, button)."""

    def __post_init__(self) -> None:
        if not len(self.axes) == len(self.scale) == len(self.offset) > 0:
            raise ConfigError(
                f"axes, scale and offset must have one entry per component of the command, got {len(self.axes)}, "
                f"{len(self.scale)} and {len(self.offset)}"
            )
        if not all(math.isfinite(v) for v in (*self.scale, *self.offset)):
            raise ConfigError(f"scale and offset must be finite, got {self.scale} and {self.offset}")
        if self.deadman_button < 0:
            raise ConfigError("deadman_button must be a button: nothing moves without a dead-man")


@dataclass(frozen=True)
class Intent:
    """What the operator wants now."""

    held: bool
    """The dead-man button is held."""
    stop: bool
    values: tuple[float, ...]
    """The command; the neutral one unless held."""
    request: str = ""


class Teleop:
    """Keeps the newest input and says what it means; times are s on the monotonic clock."""

    def __init__(self, mapping: Mapping, timeout_s: float) -> None:
        self.mapping = mapping
        self.problem = ""
        """What is wrong with the input; empty if nothing."""
        self._timeout_s = timeout_s
        self._axes: tuple[float, ...] = ()
        self._buttons: tuple[int, ...] = ()
        self._joy_s = -math.inf
        self._released = False
        """The dead-man was seen released: one that is stuck from the start moves nothing."""
        self._key, self._key_s = "", -math.inf
        self._request = ""

    def joy(self, axes: Sequence[float], buttons: Sequence[int], now_s: float) -> None:
        """A message of the joystick; one that lacks an axis or button of the mapping counts as silence."""
        mapping = self.mapping
        wanted = [mapping.deadman_button, mapping.estop_button, *(b for _, b in mapping.request_buttons)]
        changed = bool(self._buttons) and len(self._buttons) != len(buttons)
        if (
            changed
            or max(mapping.axes) >= len(axes)
            or max(wanted) >= len(buttons)
            or not all(map(math.isfinite, axes))
        ):
            self.problem = (
                f"the joystick has {len(axes)} axes and {len(buttons)} buttons; "
                f"axes {mapping.axes} and buttons {wanted} are asked for, and finite values"
            )
            return
        if self._buttons:
            pressed = (r for r, b in mapping.request_buttons if b >= 0 and buttons[b] and not self._buttons[b])
            self._request = next(pressed, self._request)
        self.problem = ""
        self._axes, self._buttons, self._joy_s = tuple(axes), tuple(buttons), now_s
        self._released = self._released or not buttons[mapping.deadman_button]

    def key(self, key: str, now_s: float) -> None:
        """A key of the keyboard."""
        self._key, self._key_s = key, now_s

    def intent(self, now_s: float) -> Intent:
        """What is wanted now. A request is told once."""
        mapping = self.mapping
        request, self._request = self._request, ""
        fresh = now_s - self._joy_s < self._timeout_s
        stop = self._key == STOP_KEY or (self._pressed(mapping.estop_button) and fresh)
        held_key = self._key in MOVES and now_s - self._key_s < KEY_HOLD_S
        held = not stop and (held_key or (fresh and self._released and self._pressed(mapping.deadman_button)))
        moves = [self._axes[a] if fresh and a >= 0 else 0.0 for a in mapping.axes]
        if held_key:
            component, direction = MOVES[self._key]
            moves = [direction if k == component else 0.0 for k in range(len(moves))]
        values = tuple(
            o + s * (m if held else 0.0) for m, s, o in zip(moves, mapping.scale, mapping.offset, strict=True)
        )
        return Intent(held, stop, values, request)

    def _pressed(self, button: int) -> bool:
        return button != NO_BUTTON and bool(self._buttons) and bool(self._buttons[button])
