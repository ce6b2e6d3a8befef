"""Faults put into a stream of measured states, to see what the runtime makes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from robot_rl.contract import NumpyState
from robot_rl.errors import ConfigError

DELAY_S = 0.2
SPIKE_RAD = 10.0


class StateFault:
    """Passes states through, or spoils them by the fault in force. Joint faults strike the first joint."""

    def __init__(self) -> None:
        self.name = "none"
        self._held: deque[NumpyState] = deque()
        self._frozen: float | None = None

    def set(self, name: str) -> None:
        """Raises ConfigError listing the valid names."""
        if name not in FAULTS:
            raise ConfigError(f"unknown fault {name!r}; valid: {', '.join(FAULTS)}")
        self.name = name
        self._held.clear()
        self._frozen = None

    def apply(self, state: NumpyState, now_s: float) -> NumpyState | None:
        """The state that gets through, if any. Call once per measurement."""
        return FAULTS[self.name](self, state, now_s)

    def _delay(self, state: NumpyState, now_s: float) -> NumpyState | None:
        self._held.append(state)
        due = None
        while self._held and now_s - self._held[0].stamp_s[0] >= DELAY_S:
            due = self._held.popleft()
        return due

    def _freeze_joint(self, state: NumpyState, now_s: float) -> NumpyState:
        if self._frozen is None:
            self._frozen = float(state.joint_pos[0, 0])
        return _with_first_joint(state, self._frozen)

    def _nan(self, state: NumpyState, now_s: float) -> NumpyState:
        return _with_first_joint(state, float("nan"))

    def _spike(self, state: NumpyState, now_s: float) -> NumpyState:
        return _with_first_joint(state, float(state.joint_pos[0, 0]) + SPIKE_RAD)


FAULTS: dict[str, Callable[[StateFault, NumpyState, float], NumpyState | None]] = {
    "none": lambda fault, state, now_s: state,
    "drop_state": lambda fault, state, now_s: None,
    "delay": StateFault._delay,
    "nan": StateFault._nan,
    "freeze_joint": StateFault._freeze_joint,
    "spike": StateFault._spike,
}


def _with_first_joint(state: NumpyState, pos_rad: float) -> NumpyState:
    joint_pos = np.array(state.joint_pos)
    joint_pos[0, 0] = pos_rad
    return replace(state, joint_pos=joint_pos)
