"""What the last software hop lets through to the robot, and when it damps instead. No ROS in here."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Hashable
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import ActionSpec, Contract, JointCommand, TensorSpec
from robot_rl.robots import RobotSpec, SafetyProfile
from robot_rl.runtime.limits import SafetyLimits
from robot_rl_bridge.receiver import ROWS, CommandMessage, CommandReceiver

FEED_TICKS = 3
"""Loop periods without a usable command after which the robot is damped."""
RELEASE_S = 1.0
"""A sender silent for this long loses its place to the next one."""
_ROUNDING = 1e-6
_UNHEARD = "nothing subscribes to the robot's commands"

Array = NDArray[np.float64]


class Trip(str, Enum):
    """Why the robot is damped."""

    NONE = "none"
    NO_SENDER = "no_sender"
    """Nobody has started to send, or nobody who began without torque."""
    NO_ROBOT = "no_robot"
    """Nothing takes what is sent to the robot: its driver is not there, or not discovered yet."""
    FEED_LOST = "feed_lost"
    """The sender fell silent, or sends only what is too old, repeated or out of order."""
    EXPIRED = "expired"
    """The last command's time to live passed before the next came."""
    MALFORMED = "malformed"
    """Not a joint command, or one with numbers that are not finite."""
    LIMIT = "limit"
    """A command outside the robot's limits."""
    ESTOP = "estop"
    """Somebody pressed stop; only `reset` ends it."""


class Watchdog:
    """Gate between one sender of commands and the robot; times are s on the monotonic clock.

    Whatever trips it, the robot is damped until the sender itself has sent a command without stiffness and effort: one
    that comes back from a pause with an old target does not move a robot that has sagged meanwhile. It looks at
    commands only, never at states: what depends on the robot's motion is the safety filter's. Nothing passes before
    `listeners` said that somebody takes it: a sender that is told that it passes believes that the robot follows.
    """

    def __init__(
        self, robot: RobotSpec, period_s: float, feed_ticks: int = FEED_TICKS, profile: SafetyProfile | None = None
    ) -> None:
        self.limits = SafetyLimits.make(robot, widest_contract(robot, period_s), period_s, profile)
        self.receiver = CommandReceiver()
        self.refused: Counter[Hashable] = Counter()
        """Commands of other senders than the one in command, by sender."""
        self.trip, self.reason = Trip.NO_SENDER, ""
        self.trips: Counter[str] = Counter()
        self.sender: Hashable | None = None
        self.tripped_s = -math.inf
        self._listened = False
        self._feed_s = feed_ticks * period_s
        self._fed_s = self._expires_s = -math.inf
        self._names = robot.joint_names
        limits, zero = self.limits, np.zeros(len(robot.joints))
        effort, kd = np.array([j.effort_limit_nm for j in robot.joints]), np.maximum(limits.kd, limits.damping_kd)
        self._high = np.array((limits.soft_upper, limits.vel_trip, effort, limits.kp, kd))
        self._low = np.array((limits.soft_lower, -limits.vel_trip, -effort, zero, zero))

    @property
    def passing(self) -> bool:
        """Whether the sender's commands reach the robot; if not, it must be sent damping."""
        return self.trip == Trip.NONE

    @property
    def deadline_s(self) -> float:
        """When `watch` will trip if nothing comes; infinite while tripped."""
        return min(self._fed_s + self._feed_s, self._expires_s) if self.passing else math.inf

    def admits(self, sender: Hashable, now_s: float) -> bool:
        """Whether `sender` is the one in command. The first is, until it has been silent for RELEASE_S."""
        if sender != self.sender:
            if self.sender is not None and now_s - self._fed_s < RELEASE_S:
                self.refused[sender] += 1
                return False
            self.sender = sender
            self._fed_s = now_s
        return True

    def judge(self, message: CommandMessage, now_s: float) -> JointCommand | None:
        """The command to pass on at once, or None."""
        command = self.receiver.accept(message, now_s)
        if command is None:
            return None
        self._fed_s = now_s
        if problem := self._excess(message.values):
            self._trip(Trip.LIMIT, problem, now_s)
        elif not self.passing and self.trip != Trip.ESTOP and torque_free(command):
            self.trip, self.reason = (Trip.NONE, "") if self._listened else (Trip.NO_ROBOT, _UNHEARD)
        if not self.passing:
            return None
        self._expires_s = command.expires_s
        return command

    def malformed(self, error: Exception, now_s: float) -> None:
        """The sender in command sent something that cannot be read."""
        self.receiver.reject_malformed(error)
        self._trip(Trip.MALFORMED, str(error), now_s)

    def watch(self, now_s: float) -> None:
        """Trip if the sender has been silent for too long, or its last command has expired. Call at `deadline_s`."""
        if not self.passing:
            return
        if now_s >= self._fed_s + self._feed_s:
            silent_ms = 1e3 * (now_s - self._fed_s)
            self._trip(Trip.FEED_LOST, f"no usable command for {silent_ms:.1f} ms", now_s)
        elif now_s >= self._expires_s:
            self._trip(Trip.EXPIRED, "the last command expired before the next one came", now_s)

    def listeners(self, count: int, now_s: float) -> None:
        """How many take what is sent to the robot. Without any it trips: when one comes back is not known exactly."""
        self._listened = count > 0
        if not self._listened:
            self._trip(Trip.NO_ROBOT, _UNHEARD, now_s)

    def estop(self, reason: str, now_s: float) -> None:
        """Damp until `reset`."""
        self._trip(Trip.ESTOP, reason, now_s)

    def reset(self, now_s: float) -> None:
        """End an emergency stop. The robot stays damped until the sender begins again without torque."""
        if self.trip == Trip.ESTOP:
            self.trip, self.reason, self.tripped_s = Trip.NO_SENDER, "", now_s

    def _trip(self, trip: Trip, reason: str, now_s: float) -> None:
        # The first cause explains what follows; only a stop outranks it.
        if self.passing or (trip == Trip.ESTOP and self.trip != Trip.ESTOP):
            self.trip, self.reason, self.tripped_s = trip, reason, now_s
            self.trips[trip.value] += 1

    def _excess(self, values: Array) -> str:
        """What of a command, (5, n_joints), no robot of this kind may get, in words; empty if nothing."""
        excess = np.maximum(values - self._high, self._low - values)
        # Where there is no stiffness the position has no effect.
        excess[0] *= values[3] > 0.0
        if excess.max() <= _ROUNDING:
            return ""
        row = int((excess > _ROUNDING).any(axis=1).argmax())
        joint = int(excess[row].argmax())
        beyond = excess[row, joint]
        return f"{self._names[joint]}: {ROWS[row]} {values[row, joint]:.4g} is {beyond:.4g} beyond its limit"


def torque_free(command: JointCommand) -> bool:
    """Whether a command only damps, or does nothing at all."""
    return not command.kp.any() and not command.effort.any() and not command.velocity.any()


def widest_contract(robot: RobotSpec, control_period_s: float) -> Contract:
    """The most that `check_contract` lets any policy do on this robot: its limits, and twice its own gains."""
    joints = tuple(dataclasses.replace(j, kp_nm_rad=2 * j.kp_nm_rad, kd_nms_rad=2 * j.kd_nms_rad) for j in robot.joints)
    column: Callable[[str], tuple[float, ...]] = lambda name: tuple(getattr(j, name) for j in joints)  # noqa: E731
    n = len(joints)
    return Contract(
        robot=robot.name,
        variant=robot.variant,
        control_period_s=control_period_s,
        joints=joints,
        inputs=(TensorSpec("joint_pos", (n,), "rad", "state"),),
        outputs=(TensorSpec("joint_target", (n,), "rad"), TensorSpec("obs", (n,), "1")),
        action=ActionSpec(
            "position_relative", (1.0,) * n, column("default_pos_rad"), column("lower_rad"), column("upper_rad")
        ),
        observation_terms=(("joint_pos", n),),
    )
