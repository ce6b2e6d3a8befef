"""The object in a run from the command line: put down by whoever simulates it, and turned from goal to goal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robot_rl.contract import Command
from robot_rl.runtime.goals import GoalSequence
from robot_rl.runtime.modes import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from robot_rl.runtime.controller import Controller, Tick
    from robot_rl.runtime.interface import RobotInterface

SETTLE_S = 1.5
"""From the end of the ramp, after which an object is put down, until it lies still and has been seen for a while."""
AGAIN_S = 3.0
"""An object that rolled away while nobody ran the policy is put down again after this."""


class ObjectGoals:
    """What happens to the object of `controller`'s policy besides control: see `on_tick`.

    A simulated robot with an object has `place_object`; on a real one a person does it.
    """

    def __init__(
        self, controller: Controller, robot: RobotInterface, *, again: bool, tell: Callable[[str], None]
    ) -> None:
        """`again`: whether an object that is not where it should be is put down until the policy runs. `tell` gets a
        line for each goal, and must return at once."""
        self._tell = tell
        episode = controller.bundle.manifest.episode
        assert episode is not None
        assert episode.goals is not None
        self._controller = controller
        self._place: Callable[[], None] | None = getattr(robot, "place_object", None)
        self._again = again
        self._goals = GoalSequence(episode.goals)
        self._stand_s = self._placed_s = self._goal_s = 0.0
        self._mode = Mode.INIT
        self.total = 0
        """Goals reached in all."""
        self.most = 0
        """Most goals reached in a row, without another mode between."""

    def command(self, now_s: float) -> Command | None:
        """The goal; None until the object has been seen."""
        goal = self._goals.goal
        return None if goal is None else Command(goal.astype(np.float32), now_s)

    def on_tick(self, tick: Tick) -> None:
        """Put the object down once the robot stands, look whether a goal is reached, and say so."""
        if tick.mode != self._mode:
            self._mode, self._stand_s, self._placed_s, self._goal_s = tick.mode, tick.now_s, -1.0, tick.now_s
        if tick.mode == Mode.STAND and self._place is not None:
            ended_s = self._stand_s + self._controller.limits.profile.stand_duration_s
            missing = self._placed_s < 0 or (self._again and tick.now_s > self._placed_s + AGAIN_S)
            if tick.now_s > ended_s and missing:
                self._place()
                self._placed_s = tick.now_s
                self._tell("object put down")
        pose = self._controller.object_pose
        if pose is None or pose.quat_wxyz is None:
            return
        if self._goals.update(pose.quat_wxyz, tick.mode == Mode.RUN):
            self.total, self.most = self.total + 1, max(self.most, self._goals.reached)
            self._tell(f"goal {self._goals.reached} after {tick.now_s - self._goal_s:.1f} s")
            self._goal_s = tick.now_s


def object_goals(
    controller: Controller, robot: RobotInterface, *, again: bool, tell: Callable[[str], None]
) -> ObjectGoals | None:
    """None for a policy that turns no object from goal to goal."""
    episode = controller.bundle.manifest.episode
    return None if episode is None or episode.goals is None else ObjectGoals(controller, robot, again=again, tell=tell)
