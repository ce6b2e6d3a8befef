"""The controller: modes, policy and safety filter in one function of (state, command, time). No I/O, no sleeping."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.load import Bundle
from robot_rl.bundle.verify import verify_bundle
from robot_rl.contract import Command, JointCommand, NumpyState
from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec, SafetyProfile
from robot_rl.runtime.checks import DEADMAN_S, LATCHED, Cause, Severity, Target
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.modes import STIFF_MODES, Event, Mode, next_mode
from robot_rl.runtime.policy_runner import PolicyRunner, PolicyStep
from robot_rl.runtime.safety import SafetyMemory, Verdict, believable, filter_command

PERIOD_TOLERANCE = 0.01
"""A policy may run this share faster or slower than it was trained."""
SETTLED_S = 0.5
"""STAND must have been still and in place for this long before RUN."""
SETTLED_VEL_RAD_S = 1.0
STAND_ABORT_S = 0.3
"""A tracking error beyond the profile's, kept for this long, ends STAND."""
STAND_STIFFNESS = 0.1
"""Share of kp with which a ramp out of damping begins; it reaches 1 after a quarter of the ramp."""
RUN_TILT_RAD = 0.2


class Request(str, Enum):
    """What an operator asks for."""

    STAND = "stand"
    RUN = "run"
    STOP = "stop"
    ESTOP = "estop"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Tick:
    """Everything about one tick, for the robot, for logs and for tests. Arrays are never written to again."""

    now_s: float
    command: JointCommand
    mode: Mode
    """The mode that this tick ends in, and that `command` belongs to."""
    cause: Cause
    """Why the mode is HOLD, DAMP or FAULT; else the warning of this tick, if any."""
    severity: Severity
    """Of this tick's checks alone."""
    margin: float
    age_s: float
    """Measured age of the state; infinite without one."""
    policy: PolicyStep | None
    """What the policy computed in this tick; None in a tick without an evaluation."""
    applied: NDArray[np.float64] | None
    """(n_joints,) rad commanded; None where no position is."""
    modified: NDArray[np.bool_]
    """(len(MODIFICATIONS), n_joints) what the safety filter changed."""
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


class Controller:
    """Runs one bundle on one robot. Starts without torque and never leaves that on its own: an operator requests.

    The loop may run a whole number of times faster than the policy. Raises BundleError or ContractError if the bundle
    fails its golden rows here or does not fit the robot, ConfigError if the loop period does not divide the control
    period.
    """

    def __init__(
        self,
        bundle: Bundle,
        robot: RobotSpec,
        loop_period_s: float | None = None,
        *,
        profile: SafetyProfile | None = None,
    ) -> None:
        verify_bundle(bundle, robot).require_ok()
        contract = bundle.contract
        self.bundle = bundle
        self.robot = robot
        self.loop_period_s = contract.control_period_s if loop_period_s is None else loop_period_s
        self.ticks_per_policy_step = _ticks_per_policy_step(contract.control_period_s, self.loop_period_s)
        self.limits = SafetyLimits.make(robot, contract, self.loop_period_s, profile)
        self.mode = Mode.INIT
        self._runner = PolicyRunner(bundle.policy, contract)
        self._memory = SafetyMemory.start(self.limits)
        self._verdict: Verdict | None = None
        self._cause = Cause.NONE
        self._latched = False
        self._stop = False
        self._request: Request | None = None
        self._deadman_s = -math.inf
        self._command: Command | None = None
        self._note = ""
        # Since when the mode, the settled pose and the tracking error last; None: not now.
        self._mode_since_s = 0.0
        self._settled_since_s: float | None = None
        self._error_since_s: float | None = None
        self._start_pos = self.limits.default_pos
        self._start_stiffness = STAND_STIFFNESS
        self._policy_due = 0
        self._policy_time_s = 0.0
        self._policy_target: NDArray[np.float32] | None = None
        self._last: tuple[NumpyState | None, float, Target | None, SafetyMemory, float] | None = None

    def request(self, request: Request) -> None:
        """Ask for a mode; the next `step` grants or refuses it (`Tick.note` says why). ESTOP cannot be overwritten."""
        if request == Request.ESTOP:
            self._stop = True
        else:
            self._request = request

    def feed_deadman(self, now_s: float) -> None:
        """The operator holds the deadman button at `now_s`."""
        self._deadman_s = now_s

    @property
    def modifications(self) -> NDArray[np.int64]:
        """(len(MODIFICATIONS), n_joints) how often the safety filter changed a target so far."""
        return self._memory.modifications

    def step(self, state: NumpyState | None, command: Command | None, now_s: float) -> Tick:
        """One tick: what to tell the robot, given its newest state and the operator's newest command.

        Never raises for anything in `state` or `command`, nor for what the policy does.
        """
        started = time.perf_counter()
        self._note = ""
        age_s = now_s - float(state.stamp_s[0]) if state is not None and np.shape(state.stamp_s) == (1,) else math.inf
        self._take_command(command)
        self._expire(now_s)
        self._grant_request(now_s)
        step, policy_s, target = None, 0.0, None
        if self.mode == Mode.RUN:
            before = time.perf_counter()
            step, target = self._run_target(state, age_s, now_s)
            policy_s = time.perf_counter() - before
        elif self.mode == Mode.STAND:
            target = self._stand_target(now_s)
        elif self.mode == Mode.HOLD:
            target = Target(self._start_pos, "hold")
        before = time.perf_counter()
        self._last = (state, age_s, target, self._memory, now_s)
        deadman_age_s = now_s - self._deadman_s if self.mode == Mode.RUN and self.limits.profile.deadman else None
        joint_command, verdict, self._memory = filter_command(
            state, age_s, target, self.limits, self._memory, now_s, stop=self._stop, deadman_age_s=deadman_age_s
        )
        filter_s = time.perf_counter() - before
        self._obey(verdict, now_s)
        if self.mode in (Mode.INIT, Mode.IDLE):
            joint_command = self._no_torque(joint_command)
        warned = verdict.cause if verdict.severity == Severity.WARN else Cause.NONE
        return Tick(
            now_s=now_s,
            command=joint_command,
            mode=self.mode,
            cause=self._cause if self._cause != Cause.NONE else warned,
            severity=verdict.severity,
            margin=verdict.margin,
            age_s=age_s,
            policy=step,
            applied=joint_command.position if self.mode in STIFF_MODES else None,
            modified=verdict.modified,
            note=self._note,
            policy_s=policy_s,
            filter_s=filter_s,
            tick_s=time.perf_counter() - started,
        )

    def rehearse(self) -> None:
        """Compute the last tick again and forget it: code and weights are then in the caches when the next state comes.

        Policy and filter are pure, so nothing changes. Called shortly before a deadline, it shortens the time from
        state to command at rates of 100 Hz and below, where caches go cold between ticks.
        """
        if self._last is None:
            return
        state, age_s, target, memory, now_s = self._last
        try:
            if self.mode == Mode.RUN:
                believable(state, self.limits, memory)
                self._runner.rehearse()
            filter_command(state, age_s, target, self.limits, memory, now_s)
        except Exception:
            # What is wrong here is wrong in the next tick as well, which deals with it.
            return

    def _enter(self, mode: Mode, now_s: float, cause: Cause = Cause.NONE) -> None:
        """Change the mode, and set up what it starts from."""
        if mode == self.mode:
            return
        measured = self._memory.measured
        if mode == Mode.STAND:
            # A robot that is already stiff must not go soft: only out of damping do the gains start low.
            self._start_stiffness = STAND_STIFFNESS if self.mode == Mode.DAMP else 1.0
        if mode in (Mode.STAND, Mode.HOLD) and measured is not None:
            self._start_pos = measured.joint_pos
        elif mode == Mode.RUN and self._memory.applied is not None:
            self._start_pos = self._memory.applied
            self._policy_due = 0
            self._policy_time_s = now_s
            self._policy_target = None
        if mode == Mode.DAMP:
            self._latched = cause in LATCHED
        # A fault keeps the cause that led to it.
        self._cause = self._cause if mode == Mode.FAULT else cause
        self._settled_since_s = self._error_since_s = None
        self._mode_since_s = now_s
        self.mode = mode

    def _expire(self, now_s: float) -> None:
        """Changes of mode that time brings."""
        if self.mode == Mode.DAMP and self._latched:
            self._enter(next_mode(self.mode, Event.LATCHED), now_s)
        elif self.mode == Mode.HOLD and now_s - self._mode_since_s > self.limits.profile.hold_limit_s:
            # What led to HOLD is the better explanation; that it lasted too long is why it must not just go on.
            self._enter(next_mode(self.mode, Event.HOLD_EXPIRED), now_s, self._cause)
        elif self.mode == Mode.STAND and self._stand_lost(now_s):
            self._enter(next_mode(self.mode, Event.STAND_ABORTED), now_s, Cause.STAND_TRACKING)

    def _grant_request(self, now_s: float) -> None:
        request = self._request
        if request == Request.RESET and self.mode == Mode.FAULT:
            # The stop has done its work: the robot is damped, and stays so unless this tick's verdict is green.
            self._stop = False
        if request is None or request == Request.RESET:
            return
        self._request = None
        refusals = self._refusals(request, now_s)
        if refusals:
            self._note = f"{request.value} refused: {'; '.join(refusals)}"
            return
        was = self.mode
        cause = Cause.STOPPED if request == Request.STOP else Cause.NONE
        self._enter(next_mode(self.mode, Event(request.value)), now_s, cause)
        if was == Mode.IDLE and request == Request.STAND:
            # Torque came on as damping; stand with the next tick.
            self._request = request

    def _refusals(self, request: Request, now_s: float) -> list[str]:
        """Why a request cannot be granted now; empty if it can."""
        if request == Request.STOP:
            return []
        if next_mode(self.mode, Event(request.value)) == self.mode:
            return [] if request.value == self.mode.value else [f"not possible in mode {self.mode.value}"]
        refusals = []
        if self._verdict is None or self._memory.measured is None:
            refusals.append("no valid state yet")
        elif self._verdict.severity >= Severity.HOLD:
            refusals.append(f"check {self._verdict.cause.value} is not green")
        if request != Request.RUN:
            return refusals
        settled_s = 0.0 if self._settled_since_s is None else now_s - self._settled_since_s
        if settled_s < SETTLED_S:
            refusals.append(f"standing still for {settled_s:.2f} s of {SETTLED_S} s")
        tilt = None if self._memory.measured is None else self._memory.measured.tilt_rad()
        if self.limits.profile.tilt_trip_rad is not None and (tilt is None or not tilt < RUN_TILT_RAD):
            refusals.append(f"tilt is {tilt if tilt is None else round(tilt, 3)} rad, must be below {RUN_TILT_RAD}")
        if self.limits.profile.deadman and now_s - self._deadman_s > DEADMAN_S:
            refusals.append("the deadman button is not held")
        if self.bundle.contract.command is not None and self._command is None:
            refusals.append(f"no command {self.bundle.contract.command.name!r} received yet")
        return refusals

    def _obey(self, verdict: Verdict, now_s: float) -> None:
        """Changes of mode that this tick's checks bring, and the reset, which waits for them to be green."""
        self._verdict = verdict
        if verdict.cause == Cause.OPERATOR_STOP:
            self._enter(next_mode(self.mode, Event.ESTOP), now_s, verdict.cause)
            # Also where it was damped already.
            self._latched, self._cause = True, verdict.cause
        elif verdict.severity >= Severity.HOLD:
            event = Event.HARD_TRIP if verdict.severity == Severity.DAMP else Event.SOFT_TRIP
            self._enter(next_mode(self.mode, event), now_s, verdict.cause)
        elif self.mode == Mode.INIT and self._memory.measured is not None:
            self._enter(next_mode(self.mode, Event.SENSORS_READY), now_s)
        if self._request == Request.RESET:
            self._request = None
            self._reset(verdict, now_s)

    def _reset(self, verdict: Verdict, now_s: float) -> None:
        if self.mode != Mode.FAULT:
            self._note = f"reset refused: mode is {self.mode.value}, not fault"
        elif verdict.severity >= Severity.HOLD:
            self._note = f"reset refused: check {verdict.cause.value} is not green"
        else:
            self._enter(next_mode(self.mode, Event.RESET), now_s)

    def _take_command(self, command: Command | None) -> None:
        """Remember the newest usable command."""
        spec = self.bundle.contract.command
        if command is None or spec is None:
            return
        values = np.asarray(command.values)
        if values.shape != spec.shape or values.dtype.kind != "f" or not np.isfinite(values).all():
            self._note = f"command ignored: {spec.name!r} must be {spec.shape} finite numbers, got {values!r}"
            return
        self._command = command

    def _command_values(self, now_s: float) -> NDArray[np.float32] | None:
        """The command as the policy gets it: inside its bounds, and zero once it is too old."""
        spec = self.bundle.contract.command
        if spec is None or self._command is None:
            return None
        if spec.max_age_s is not None and not abs(now_s - self._command.stamp_s) <= spec.max_age_s:
            return np.zeros(spec.shape, np.float32)
        values = np.asarray(self._command.values, np.float32)
        low = -np.inf if spec.low is None else spec.low
        high = np.inf if spec.high is None else spec.high
        return np.clip(values, low, high).astype(np.float32, copy=False)

    def _run_target(self, state: NumpyState | None, age_s: float, now_s: float) -> tuple[PolicyStep | None, Target]:
        """Evaluate the policy if it is due and the state can be believed; otherwise its last target goes on."""
        step, failed = None, False
        fresh = abs(age_s) <= min(self.limits.state_hold_s, 2 * self.limits.control_period_s)
        if self._policy_due <= 0 and state is not None and fresh and believable(state, self.limits, self._memory):
            # A late evaluation is followed by a shorter wait, so that the period stays.
            self._policy_due = max(self._policy_due + self.ticks_per_policy_step, 1)
            try:
                step = self._evaluate(state, now_s)
            except Exception as error:
                # Whatever goes wrong in there, the robot is told something safe in this same tick.
                failed = True
                self._note = f"policy failed: {type(error).__name__}: {error}"
        self._policy_due -= 1
        blend = (now_s - self._mode_since_s) / max(self.limits.profile.soft_start_s, 1e-9)
        position = self._start_pos if self._policy_target is None else self._policy_target
        return step, Target(
            position=position,
            kind="policy",
            blend=blend,
            blend_from=self._start_pos,
            age_s=now_s - self._policy_time_s,
            fresh=step is not None,
            failed=failed,
        )

    def _evaluate(self, state: NumpyState, now_s: float) -> PolicyStep:
        command = self._command_values(now_s)
        if self._policy_target is None:
            self._runner.start(state, command)
        step = self._runner.step(state, command, self._memory.applied)
        self._policy_time_s = now_s
        self._policy_target = step.target
        return step

    def _stand_target(self, now_s: float) -> Target:
        share = min(1.0, max(0.0, (now_s - self._mode_since_s) / self.limits.profile.stand_duration_s))
        ramp = 0.5 * (1.0 - math.cos(math.pi * share))
        stiffness = self._start_stiffness + (1.0 - self._start_stiffness) * min(1.0, 4.0 * share)
        position = self._start_pos + ramp * (self.limits.default_pos - self._start_pos)
        return Target(position, "stand", stiffness=stiffness)

    def _stand_lost(self, now_s: float) -> bool:
        """Whether the joints fail to follow the ramp; also notes since when they are settled at its end."""
        measured, applied = self._memory.measured, self._memory.applied
        if measured is None or applied is None:
            return False
        error = float(np.abs(applied - measured.joint_pos).max())
        following = error <= self.limits.profile.stand_error_rad
        still = float(np.abs(measured.joint_vel).max()) <= SETTLED_VEL_RAD_S
        ended = now_s - self._mode_since_s >= self.limits.profile.stand_duration_s
        self._settled_since_s = _since(self._settled_since_s, following and still and ended, now_s)
        self._error_since_s = _since(self._error_since_s, not following, now_s)
        return self._error_since_s is not None and now_s - self._error_since_s >= STAND_ABORT_S

    def _no_torque(self, command: JointCommand) -> JointCommand:
        zero = np.zeros(self.limits.n_joints)
        return JointCommand(zero, zero, zero, zero, zero, command.stamp_s, command.expires_s)


def _since(since_s: float | None, holds: bool, now_s: float) -> float | None:
    if not holds:
        return None
    return now_s if since_s is None else since_s


def _ticks_per_policy_step(control_period_s: float, loop_period_s: float) -> int:
    ticks = round(control_period_s / loop_period_s) if loop_period_s > 0 else 0
    if ticks < 1 or abs(ticks * loop_period_s - control_period_s) > PERIOD_TOLERANCE * control_period_s:
        raise ConfigError(
            f"loop period {loop_period_s} s does not divide the policy's control period {control_period_s} s within "
            f"{PERIOD_TOLERANCE:.0%}; valid: {control_period_s}, {control_period_s / 2}, {control_period_s / 4}, ..."
        )
    return ticks
