"""Tick: all that one step of the controller found, decided and took."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import JointCommand
from robot_rl.runtime.checks import Cause, Severity
from robot_rl.runtime.interface import Health
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.policy_runner import PolicyStep


class OperatorInput(NamedTuple):
    """What the operator has said, as it stands at the beginning of a tick.

    With the state it is all that a tick depends on: from a log of both, a run can be computed again.
    """

    request: str
    """Name of the request that waits to be granted; empty if none does."""
    stop: bool
    """The emergency stop is pressed."""
    deadman_age_s: float
    """Time since the deadman button was last confirmed; infinite if it never was."""
    command: NDArray[np.float32] | None
    """(command_dim,) the newest usable command."""
    command_stamp_s: float | None


class Tick(NamedTuple):
    """Everything about one tick, for the robot, for logs and for tests. Arrays are never written to again."""

    now_s: float
    command: JointCommand
    mode: Mode
    """The mode that this tick ends in, and that `command` belongs to."""
    cause: Cause
    """Why the mode is a backup, DAMP or FAULT; else the warning of this tick, if any."""
    severity: Severity
    """Of this tick's checks alone."""
    margin: float
    margins: tuple[float | None, ...]
    """Of each entry of CHECKS; None where it does not apply in this tick."""
    age_s: float
    """Measured age of the state; infinite without one."""
    policy: PolicyStep | None
    """What the policy computed in this tick; None in a tick without an evaluation."""
    applied: NDArray[np.float64] | None
    """(n_joints,) rad commanded; None where no position is."""
    modified: NDArray[np.bool_]
    """(len(MODIFICATIONS), n_joints) what the safety filter changed."""
    operator: OperatorInput
    health: Health | None
    """What the robot had said of its own condition."""
    note: str
    """A refused request, an ignored command or the policy's error, in words; empty if there is none."""
    policy_s: float
    """Time spent in the policy, s."""
    filter_s: float
    tick_s: float
    """Time of the whole step, s."""

    @property
    def obs(self) -> NDArray[np.float32] | None:
        return None if self.policy is None else self.policy.obs

    @property
    def action(self) -> NDArray[np.float32] | None:
        return None if self.policy is None else self.policy.action

    @property
    def target(self) -> NDArray[np.float32] | None:
        return None if self.policy is None else self.policy.target
