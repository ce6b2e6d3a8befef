"""Goals for an object in the hand, by hand: turns about z are additions of angles."""

import math

import numpy as np
import pytest

from robot_rl.contract import TurnGoals
from robot_rl.runtime.goals import GoalSequence

GOALS = TurnGoals((0.0, 0.0, 1.0), (0.9, 1.5), 0.4)


def turned(angle: float) -> np.ndarray:
    return np.array([math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)])


def angle_of(quat: np.ndarray) -> float:
    assert quat[1:3] == pytest.approx([0.0, 0.0])
    return 2 * math.atan2(quat[3], quat[0])


def wrapped(angle: float) -> float:
    return (angle + math.pi) % math.tau - math.pi


def test_the_first_goal_is_a_turn_from_how_the_object_lies_and_stays_while_it_does() -> None:
    goals = GoalSequence(GOALS)
    assert not goals.update(turned(2.0), running=False)
    assert goals.goal is not None
    first = goals.goal.copy()
    assert 0.9 <= abs(wrapped(angle_of(first) - 2.0)) <= 1.5
    goals.update(turned(2.02), running=False)
    assert goals.goal.tolist() == first.tolist()
    # Put down anew, it gets a goal of its own.
    goals.update(turned(-1.0), running=False)
    assert 0.9 <= abs(wrapped(angle_of(goals.goal) + 1.0)) <= 1.5


def test_a_tilted_object_gets_a_goal_that_is_not_tilted() -> None:
    goals = GoalSequence(GOALS)
    tilt = np.array([math.cos(0.1), math.sin(0.1), 0.0, 0.0])
    goals.update(tilt, running=False)
    assert goals.goal is not None
    assert 0.9 <= abs(angle_of(goals.goal)) <= 1.5


def test_a_goal_is_reached_within_the_tolerance_and_the_next_is_a_turn_from_it() -> None:
    goals = GoalSequence(GOALS, seed=3)
    goals.update(turned(0.0), running=False)
    for count in range(1, 30):
        assert goals.goal is not None
        goal = angle_of(goals.goal)
        assert not goals.update(turned(goal + 0.41), running=True)
        assert goals.update(turned(goal - 0.39), running=True)
        assert goals.reached == count
        assert 0.9 <= abs(wrapped(angle_of(goals.goal) - goal)) <= 1.5


def test_goals_go_either_way() -> None:
    signs = set()
    for seed in range(20):
        goals = GoalSequence(GOALS, seed)
        goals.update(turned(0.0), running=False)
        assert goals.goal is not None
        signs.add(math.copysign(1.0, angle_of(goals.goal)))
    assert signs == {-1.0, 1.0}


def test_it_counts_anew_when_the_policy_takes_over_anew() -> None:
    goals = GoalSequence(GOALS)
    goals.update(turned(0.0), running=True)
    assert goals.goal is not None
    assert goals.update(goals.goal.copy(), running=True)
    goals.update(turned(0.0), running=False)
    assert goals.reached == 1
    goals.update(turned(0.0), running=True)
    assert goals.reached == 0


def test_a_goal_is_not_reached_while_nobody_turns_the_object() -> None:
    goals = GoalSequence(GOALS)
    goals.update(turned(0.0), running=False)
    assert goals.goal is not None
    assert not goals.update(goals.goal.copy(), running=False)
