"""Goals for an object in the hand: the next one when the last is reached, as the episodes of training had them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import TurnGoals
from robot_rl.runtime.object_pose import turn_between

Array = NDArray[np.float64]


class GoalSequence:
    """Orientations of the object, each a turn from the one before. Pure but for its random numbers.

    Until the policy runs there is always a goal at a turn's distance from how the object lies, so that it does not
    matter how it was put down. From then on a goal stays until it is reached.
    """

    def __init__(self, goals: TurnGoals, seed: int = 0) -> None:
        self._goals = goals
        self._random = np.random.default_rng(seed)
        self.goal: Array | None = None
        """(4,) scalar first, root body frame; None until the object has been seen."""
        self.reached = 0
        """Goals reached since the policy last took over."""
        self._running = False

    def update(self, quat_wxyz: Array, running: bool) -> bool:
        """The object is seen at (4,) `quat_wxyz`, and the policy is `running` or not. True if that reaches the goal."""
        if running and not self._running:
            self.reached = 0
        self._running = running
        if self.goal is None or (not running and not self._is_a_turn_away(quat_wxyz)):
            self.goal = self._turned(self._about_axis(quat_wxyz))
        if not running or turn_between(self.goal, quat_wxyz) >= self._goals.tolerance_rad:
            return False
        self.reached += 1
        self.goal = self._turned(self.goal)
        return True

    def _is_a_turn_away(self, quat: Array) -> bool:
        assert self.goal is not None
        low, high = self._goals.turn_rad
        slack = self._goals.tolerance_rad / 2
        return low - slack <= turn_between(self.goal, self._about_axis(quat)) <= high + slack

    def _about_axis(self, quat: Array) -> Array:
        """The turn about the axis that is nearest to an orientation."""
        return self._turn(2.0 * math.atan2(float(quat[1:] @ np.array(self._goals.axis)), float(quat[0])))

    def _turned(self, quat: Array) -> Array:
        angle = self._random.uniform(*self._goals.turn_rad) * self._random.choice((-1.0, 1.0))
        w, v = quat[0], quat[1:]
        turn = self._turn(angle)
        return np.array([turn[0] * w - turn[1:] @ v, *(turn[0] * v + w * turn[1:] + np.cross(turn[1:], v))])

    def _turn(self, angle: float) -> Array:
        return np.array([math.cos(angle / 2), *(math.sin(angle / 2) * np.array(self._goals.axis))])
