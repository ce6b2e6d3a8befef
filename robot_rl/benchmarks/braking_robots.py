"""How far the joints of the project's own robots get beyond their limits under a policy at its worst.

Every joint is taken for itself, with the robot's gains, torque limits and inertia, and gets targets that jump at random
between points beyond its two limits; the safety filter does what it does on the robot, with and without its braking
bound. There are no stops, which a real joint and the simulation have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import ActionSpec, Contract, TensorSpec
from robot_rl.robots import RobotSpec, get_robot
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.target_limiter import TargetLimiter

Array = NDArray[np.float64]

TRIALS, DURATION_S, PHYSICS_S = 50, 6.0, 0.0005


@dataclass(frozen=True)
class Case:
    """One robot at one rate of its control loop."""

    robot: str
    loop_rate_hz: float

    @property
    def name(self) -> str:
        return f"{self.robot}/{self.loop_rate_hz:g}hz"


CASES = (
    Case("leap_hand", 20.0),
    Case("leap_hand", 100.0),
    Case("shadow_hand", 20.0),
    Case("unitree_g1", 50.0),
    Case("unitree_g1", 200.0),
    Case("franka_panda", 20.0),
)


def worst_beyond_rad(case: Case, inertia_share: float, *, bound: bool) -> Array:
    """(n_joints,) farthest beyond a hard limit, rad; negative where a joint always stayed inside.

    The inertia is `inertia_share` of what the robot's profile states.
    """
    robot = get_robot(case.robot)
    if not bound:
        robot = replace(robot, safety=replace(robot.safety, brake_effort_share=None))
    period_s = 1.0 / case.loop_rate_hz
    limits = SafetyLimits.make(robot, _contract(robot, period_s), period_s)
    limiter = TargetLimiter(limits, batch=(TRIALS,))
    inertia = inertia_share * np.array(robot.safety.joint_inertia_kg_m2)
    pos = np.tile(limits.default_pos, (TRIALS, 1))
    vel, sent = np.zeros_like(pos), pos.copy()
    worst = np.full(limits.n_joints, -np.inf)
    every = round(period_s / PHYSICS_S)
    targets = _jumping_targets(limits, round(DURATION_S * case.loop_rate_hz), case.loop_rate_hz)
    for target in targets:
        last, sent = sent, target.copy()
        limiter.limit(sent, last, pos, vel, 0.0, policy=False)
        for _ in range(every):
            torque = np.clip(limits.kp * (sent - pos) - limits.kd * vel, -limits.effort, limits.effort)
            vel = vel + torque / inertia * PHYSICS_S
            pos = pos + vel * PHYSICS_S
            worst = np.maximum(worst, np.maximum(limits.lower - pos, pos - limits.upper).max(0))
    return worst


def _jumping_targets(limits: SafetyLimits, ticks: int, rate_hz: float) -> Array:
    """(ticks, TRIALS, n_joints): 1 rad beyond either limit, each kept for 0.05 to 1 s."""
    rng = np.random.default_rng(0)
    shape = (TRIALS, limits.n_joints)
    targets, target, kept = np.empty((ticks, *shape)), np.empty(shape), np.zeros(shape, np.int64)
    for tick in range(ticks):
        over = kept <= 0
        low = rng.random(shape) < 0.5
        target = np.where(over, np.where(low, limits.lower - 1.0, limits.upper + 1.0), target)
        kept = np.where(over, rng.integers(1 + int(0.05 * rate_hz), 2 + int(rate_hz), shape), kept) - 1
        targets[tick] = target
    return targets


def _contract(robot: RobotSpec, period_s: float) -> Contract:
    n, joints = len(robot.joints), robot.joints
    low, high = tuple(j.lower_rad for j in joints), tuple(j.upper_rad for j in joints)
    action = ActionSpec("position_relative", (1.0,) * n, (0.0,) * n, low, high)
    outputs = (TensorSpec("joint_target", (n,), "rad"), TensorSpec("obs", (n,), "1"))
    return Contract(robot.name, robot.variant, period_s, joints, (), outputs, action, (("joint_pos", n),))
