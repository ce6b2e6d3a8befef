"""A command taken by hand: a few numbers with names and bounds, made into what the contract's command means."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import TensorSpec

Vector = NDArray[np.float64]

_VELOCITY_NAMES = ("forward", "left", "turn")
_STEPS = 20
"""Presses of a key from the middle of a range to its end."""


@dataclass(frozen=True)
class Control:
    """One number that a person sets."""

    name: str
    low: float
    high: float

    @property
    def step(self) -> float:
        return (self.high - self.low) / (2 * _STEPS)


class CommandControls:
    """The controls of a command: an orientation is set by roll, pitch and yaw, anything else entry by entry."""

    def __init__(self, spec: TensorSpec) -> None:
        size = spec.shape[0]
        self._quaternion = size == 4 and "quat" in spec.name
        low = -1.0 if spec.low is None else spec.low
        high = 1.0 if spec.high is None else spec.high
        if self._quaternion:
            controls = [Control(name, -np.pi, np.pi) for name in ("roll", "pitch", "yaw")]
        elif spec.unit.startswith("m/s") and size == len(_VELOCITY_NAMES):
            controls = [Control(name, low, high) for name in _VELOCITY_NAMES]
        else:
            controls = [Control(f"{spec.name} {i}", low, high) for i in range(size)]
        self.controls = tuple(controls)
        self.values = np.zeros(len(controls))

    def set(self, index: int, value: float) -> None:
        """Within the control's bounds."""
        control = self.controls[index]
        self.values[index] = np.clip(value, control.low, control.high)

    def take(self, command: Vector) -> None:
        """Start from a command (command_dim,), so that taking over changes nothing."""
        if self._quaternion:
            w, x, y, z = command / np.linalg.norm(command)
            self.values[:] = (
                np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
                np.arcsin(np.clip(2 * (w * y - z * x), -1.0, 1.0)),
                np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
            )
        else:
            for i, value in enumerate(command):
                self.set(i, float(value))

    def command(self) -> Vector:
        """(command_dim,)."""
        if not self._quaternion:
            return self.values.copy()
        quat = np.empty(4)
        mujoco.mju_euler2Quat(quat, self.values, "XYZ")
        return quat
