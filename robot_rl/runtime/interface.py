"""What the control loop needs of a robot and of time: simulator, ROS 2 topics and SDK drivers implement the same."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import JointCommand, NumpyState
from robot_rl.robots import RobotSpec


@dataclass(frozen=True, slots=True)
class Health:
    """What a robot says of its own condition, in joint order. None where it cannot know: no check applies then."""

    stamp_s: float
    """Time of measurement, s, on the reader's monotonic clock."""
    motor_temperature_c: NDArray[Any] | None = None
    """(n_joints,) of the case."""
    winding_temperature_c: NDArray[Any] | None = None
    """(n_joints,)"""
    battery_share: float | None = None
    """State of charge, in [0, 1]."""
    motor_errors: NDArray[np.integer[Any]] | None = None
    """(n_joints,) error word of each motor; 0: none."""
    lost_packets: int = 0
    """Exchanges with the motors that failed in a row."""


class RobotInterface(Protocol):
    """A robot of n joints in the order of `spec.joints`. Usable as a context manager; leaving it damps and releases.

    It may also have `health() -> Health | None`, the newest report of its own condition, and `rehearse() -> None`,
    called shortly before a tick to do what can be done of `read` and `write` without effect, so that it is in the
    caches.
    """

    spec: RobotSpec
    """What this robot is; readable before connecting."""

    def connect(self) -> None:
        """Open the device. Raises an error naming the cause; never moves the robot."""
        ...

    def read(self) -> NumpyState | None:
        """Newest state, leading dimension 1, `stamp_s` on this process's monotonic clock; None before the first one."""
        ...

    def write(self, command: JointCommand) -> JointCommand:
        """Send one command; returns what was really sent after the driver's own clipping."""
        ...

    def stop(self) -> None:
        """Damp and release. Must work from every state, more than once, and never raise."""
        ...


class Clock(Protocol):
    """Monotonic time. A real clock sleeps, a ROS clock serves callbacks meanwhile, a fake one jumps."""

    def now(self) -> float:
        """Seconds; never goes back."""
        ...

    def sleep_until(self, deadline_s: float) -> None:
        """Return at `deadline_s`, or at once if it has passed."""
        ...


class MonotonicClock:
    """The operating system's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    def sleep_until(self, deadline_s: float) -> None:
        remaining = deadline_s - time.monotonic()
        if remaining > 0:
            time.sleep(remaining)
