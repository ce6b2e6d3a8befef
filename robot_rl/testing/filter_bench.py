"""The safety filter on its own, fed tick by tick: for tests of what it makes of each."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from robot_rl.contract import NumpyState, RobotState
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.runtime.checks import Cause, Severity, Target
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.safety import SafetyMemory, Verdict, filter_command
from robot_rl.testing.bundles import TinyPolicy

DT = 0.02
LEAP = SafetyLimits.make(LEAP_HAND, TinyPolicy(LEAP_HAND).contract(), DT)
G1 = SafetyLimits.make(UNITREE_G1, TinyPolicy(UNITREE_G1, control_period_s=DT).contract(), DT)
OK = (Severity.OK, Cause.NONE)


def state(limits: SafetyLimits, t: float, **fields: np.ndarray) -> NumpyState:
    """At rest, upright, in the default pose."""
    n = limits.n_joints
    values = {"joint_pos": limits.default_pos[None], "joint_vel": np.zeros((1, n))}
    if "imu_quat_wxyz" in limits.state_fields:
        values |= {"imu_quat_wxyz": np.array([[1.0, 0, 0, 0]]), "imu_ang_vel_b": np.zeros((1, 3))}
    return RobotState(stamp_s=np.array([t]), **{**values, **fields})


class Bench:
    """Feeds the filter tick by tick, DT apart, with a good state and target unless told otherwise."""

    def __init__(self, limits: SafetyLimits) -> None:
        self.limits = limits
        self.memory = SafetyMemory.start(limits)
        self.t = 10.0
        self.tick(target=None)

    def tick(
        self,
        *,
        age_s: float = 0.0,
        target: Target | Literal["default"] | None = "default",
        dt: float = DT,
        missing: bool = False,
        **more: Any,
    ) -> Verdict:
        flags = {k: more.pop(k) for k in ("stop", "deadman_age_s", "command_age_s", "health") if k in more}
        self.t += dt
        seen = None if missing else state(self.limits, self.t - age_s, **more)
        if isinstance(target, str):
            target = Target(self.limits.default_pos, "policy")
        self.command, self.verdict, self.memory = filter_command(
            seen, age_s, target, self.limits, self.memory, self.t, **flags
        )
        return self.verdict

    def outcome(self) -> tuple[Severity, Cause]:
        return self.verdict.severity, self.verdict.cause

    @property
    def damped(self) -> bool:
        return bool((self.command.kp == 0).all() and (self.command.kd == self.limits.damping_kd).all())
