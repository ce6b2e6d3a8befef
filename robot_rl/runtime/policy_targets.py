"""A policy in the loop: evaluated at its own rate on states that can be believed; between, its last target goes on."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.load import Bundle
from robot_rl.contract import NumpyState
from robot_rl.errors import ConfigError
from robot_rl.robots import BackupTier
from robot_rl.runtime.checks import Target
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.measurement import largest
from robot_rl.runtime.policy_runner import PolicyRunner, PolicyStep
from robot_rl.runtime.safety import SafetyMemory, Sight, believable

PERIOD_TOLERANCE = 0.01
"""A policy may run this share faster or slower than it was trained."""
LEAST_OBS_STD = 0.1
"""Observations are scaled to order one. What varied less than this in the rollout that a bundle's statistics come from,
such as a base that nobody pushed or an error that was always small, must not count as unseen as soon as it varies."""

Array = NDArray[np.float64]


class PolicyTargets:
    """Targets of one bundle, which has been verified. The loop may run a whole number of times faster than the policy;
    otherwise ConfigError."""

    def __init__(self, bundle: Bundle, limits: SafetyLimits) -> None:
        self.limits = limits
        self.runner = PolicyRunner(bundle.policy, bundle.contract)
        self.problem = ""
        """What the last evaluation failed of, in words."""
        self._ticks_per_step = _ticks_per_policy_step(bundle.contract.control_period_s, limits.loop_period_s)
        self._due = 0
        self._computed_s = 0.0
        self._begun_s = 0.0
        self._blend_s = 0.0
        self._start_pos = limits.default_pos
        self._target: NDArray[np.float32] | None = None
        manifest = bundle.manifest
        self._obs_mean = np.array(manifest.obs_mean, np.float32)
        self._obs_std = np.maximum(np.array(manifest.obs_std, np.float32), LEAST_OBS_STD)
        self._obs_z: float | None = None

    def copy(self) -> PolicyTargets:
        """One that will say the same of the next state, for a rehearsal: this one does not notice."""
        other = copy.copy(self)
        other.runner = self.runner.copy()
        return other

    def begin(self, position: Array, now_s: float, blend_s: float) -> None:
        """The policy takes over a robot that holds `position` (n_joints,) rad, softly within `blend_s`."""
        self._start_pos, self._begun_s, self._blend_s = position, now_s, blend_s
        self._due, self._computed_s, self._target, self._obs_z = 0, now_s, None, None

    def observe(
        self,
        state: NumpyState | None,
        sight: Sight,
        age_s: float,
        memory: SafetyMemory,
        command: NDArray[np.float32] | None,
    ) -> None:
        """Where the policy would be evaluated, let it see the state without obeying it, so that it starts warm and with
        a history of real observations. One that fails, or a gap in the states, starts this anew."""
        self._due -= 1
        if self._due > 0:
            return
        self._due = self._ticks_per_step
        if state is None or not self._usable(state, sight, age_s, memory):
            self.forget()
            return
        try:
            self.runner.observe(state, command)
            self.problem = ""
        except Exception as error:
            self.forget()
            self.problem = f"the policy fails: {type(error).__name__}: {error}"

    def forget(self) -> None:
        """What comes next does not follow on what was observed."""
        self.runner.forget()
        self.problem = ""

    def evaluate(
        self,
        state: NumpyState | None,
        sight: Sight,
        age_s: float,
        memory: SafetyMemory,
        command: NDArray[np.float32] | None,
        now_s: float,
        tier: BackupTier | None = None,
    ) -> tuple[PolicyStep | None, Target]:
        """The target of this tick, and the policy's step if there was one. Never raises; see `problem`."""
        self.problem = ""
        step = None
        if self._due <= 0 and state is not None and self._usable(state, sight, age_s, memory):
            # A late evaluation is followed by a shorter wait, so that the period stays.
            self._due = max(self._due + self._ticks_per_step, 1)
            try:
                if self._target is None:
                    self.runner.start(state, command)
                step = self.runner.step(state, command, memory.applied)
                self._computed_s, self._target = now_s, step.target
                self._obs_z = largest(np.abs((step.obs - self._obs_mean) / self._obs_std))
            except Exception as error:
                # Whatever goes wrong in there, the robot is told something safe in this same tick.
                self.problem = f"policy failed: {type(error).__name__}: {error}"
        self._due -= 1
        return step, Target(
            position=self._start_pos if self._target is None else self._target,
            kind="policy",
            blend=(now_s - self._begun_s) / self._blend_s if self._blend_s > 0 else 1.0,
            blend_from=self._start_pos,
            age_s=now_s - self._computed_s,
            fresh=step is not None,
            failed=bool(self.problem),
            obs_z=self._obs_z,
            tier=tier,
        )

    def _usable(self, state: NumpyState, sight: Sight, age_s: float, memory: SafetyMemory) -> bool:
        fresh = abs(age_s) <= min(self.limits.state_hold_s, 2 * self.limits.control_period_s)
        return fresh and believable(state, sight, age_s, self.limits, memory)


def _ticks_per_policy_step(control_period_s: float, loop_period_s: float) -> int:
    ticks = round(control_period_s / loop_period_s) if loop_period_s > 0 else 0
    if ticks < 1 or abs(ticks * loop_period_s - control_period_s) > PERIOD_TOLERANCE * control_period_s:
        raise ConfigError(
            f"loop period {loop_period_s} s does not divide the policy's control period {control_period_s} s within "
            f"{PERIOD_TOLERANCE:.0%}; valid: {control_period_s}, {control_period_s / 2}, {control_period_s / 4}, ..."
        )
    return ticks
