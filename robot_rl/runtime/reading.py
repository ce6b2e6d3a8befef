"""What comes into the safety filter: where the joints shall go, and one tick as the checks see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_rl.robots import BackupTier
from robot_rl.runtime.interface import Health
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.measurement import Measurement
from robot_rl.runtime.object_pose import ObjectTrack


class Target(NamedTuple):
    """Where the joints shall go, and who says so. The filter trusts nothing here."""

    position: NDArray[Any]
    """(n_joints,) rad."""
    kind: Literal["policy", "stand", "hold"]
    stiffness: float = 1.0
    """Share of the trained kp, in [0, 1]."""
    blend: float = 1.0
    """Share of `position` in the command, in [0, 1]; the rest is `blend_from`."""
    blend_from: NDArray[np.float64] | None = None
    """(n_joints,) rad."""
    base: NDArray[Any] | None = None
    """(n_joints,) rad, the target that `position` corrects, where a policy is a correction."""
    age_s: float = 0.0
    """Time since the policy computed it."""
    fresh: bool = True
    """Whether this tick is the first to see it: what is wrong with it is counted once."""
    failed: bool = False
    """The policy raised an error instead of answering."""
    obs_z: float | None = None
    """Largest distance of an entry of its observation from the mean of training, in standard deviations."""
    tier: BackupTier | None = None
    """The backup that asks for it; None: no backup is in force."""


# Read by every check, and its slots are read faster than the fields of a NamedTuple. Nobody writes to it.
@dataclass(slots=True)
class Reading:
    """One tick as the checks see it. None stands for what does not apply or cannot be known."""

    limits: SafetyLimits
    age_s: float
    """Age of the state; infinite without one."""
    interval_s: float | None
    """Time since the last tick."""
    clock_ok: bool
    """The clock is finite and did not go back."""
    stop: bool
    deadman_age_s: float | None
    command_age_s: float | None
    """Age of the operator's command."""
    target: Target | None
    target_finite: bool
    """The target is finite and has one number per joint."""
    state_given: bool
    state_valid: bool
    jump: float | None
    """Change since the last believed measurement, as a share of the largest possible one."""
    frozen: float | None
    """How long a sensor has repeated itself, as a share of what proves it frozen."""
    measured: Measurement | None
    """The state, if it is valid and no jump."""
    tilt_rad: float | None
    """Of `measured`, where the robot has a limit for it."""
    health: Health | None
    health_age_s: float | None
    object: ObjectTrack | None
    """What is known of the object, where the policy that moves the robot goes by one."""
    now_s: float
    """On the clock of the stamps."""
