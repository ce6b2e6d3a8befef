"""The controller: modes, policy and safety filter in one function of (state, command, time). No I/O, no sleeping."""

from __future__ import annotations

import contextlib
import copy
import math
import time

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.load import Bundle
from robot_rl.bundle.verify import verify_bundle
from robot_rl.contract import Command, JointCommand, NumpyState
from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec, SafetyProfile
from robot_rl.runtime.backups import TIER, TIER_OF_MODE, limit_s
from robot_rl.runtime.checks import LATCHED, Cause, Severity, Target
from robot_rl.runtime.command_input import CommandInput
from robot_rl.runtime.interface import Health
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.modes import POLICY_MODES, STIFF_MODES, Event, Mode, Request, next_mode
from robot_rl.runtime.object_pose import ObjectPose
from robot_rl.runtime.policy_runner import PolicyStep
from robot_rl.runtime.policy_targets import PolicyTargets
from robot_rl.runtime.ramp import LOW_STIFFNESS, Ramp, Tracking
from robot_rl.runtime.safety import SafetyMemory, Sight, Verdict, filter_command, look
from robot_rl.runtime.start_gates import Situation, refusals
from robot_rl.runtime.tick import OperatorInput, Tick

__all__ = ["Controller", "Request", "Tick"]


class Controller:
    """Runs one bundle on one robot. Starts without torque and never leaves that on its own: an operator requests.

    The loop may run a whole number of times faster than the policy. `recovery` is a second bundle for the same robot,
    which takes over where the robot's profile names that backup. Raises BundleError or ContractError if a bundle fails
    its golden rows here or does not fit the robot, ConfigError if the loop period does not divide a control period or
    the profile has no use for a recovery policy.
    """

    def __init__(
        self,
        bundle: Bundle,
        robot: RobotSpec,
        loop_period_s: float | None = None,
        *,
        profile: SafetyProfile | None = None,
        recovery: Bundle | None = None,
    ) -> None:
        verify_bundle(bundle, robot).require_ok()
        contract = bundle.contract
        self.bundle = bundle
        self.robot = robot
        self.loop_period_s = contract.control_period_s if loop_period_s is None else loop_period_s
        self.limits = SafetyLimits.make(
            robot,
            contract,
            self.loop_period_s,
            profile,
            recovery=recovery is not None,
            low_pass_hz=bundle.manifest.low_pass_hz,
            episode=bundle.manifest.episode,
        )
        self.mode = Mode.INIT
        self._policy = PolicyTargets(bundle, self.limits)
        self._recovery = None if recovery is None else _recovery(recovery, self)
        self._command = CommandInput(contract.command)
        self._memory = SafetyMemory.start(self.limits)
        self._verdict: Verdict | None = None
        self._cause = Cause.NONE
        self._latched = False
        self._stop = False
        self._request: Request | None = None
        self._deadman_s = -math.inf
        self._note = ""
        self._mode_since_s = 0.0
        self._ramp = Ramp(0.0, self.limits.stand_pos, self.limits.stand_pos, 0.0, 1.0)
        self._tracking = Tracking()
        self._last: tuple[NumpyState | None, float, Health | None] | None = None
        """State, time and health of the last tick."""

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

    @property
    def object_pose(self) -> ObjectPose | None:
        """The last believed pose of the object that the policy goes by; None if it was never seen."""
        return self._memory.object.pose

    def step(
        self, state: NumpyState | None, command: Command | None, now_s: float, *, health: Health | None = None
    ) -> Tick:
        """One tick: what to tell the robot, given its newest state, the operator's newest command, and the newest
        report of its condition, if it makes one.

        Never raises for anything in `state`, `command` or `health`, nor for what the policy does.
        """
        started = time.perf_counter()
        self._last = (state, now_s, health)
        age_s = now_s - float(state.stamp_s[0]) if state is not None and np.shape(state.stamp_s) == (1,) else math.inf
        self._note = self._command.take(command)
        operator = self._operator_input(now_s)
        self._expire(now_s)
        self._grant_request(state, age_s, now_s)
        before = time.perf_counter()
        sight = look(state, self._active_limits, self._memory)
        policy_step, target = self._target(state, sight, age_s, now_s)
        between = time.perf_counter()
        deadman = self.limits.profile.deadman and self.mode in POLICY_MODES
        joint_command, verdict, self._memory = filter_command(
            state,
            age_s,
            target,
            self._active_limits,
            self._memory,
            now_s,
            stop=self._stop,
            deadman_age_s=now_s - self._deadman_s if deadman else None,
            command_age_s=self._command_age_s(now_s),
            health=health,
            sight=sight,
        )
        filter_s = time.perf_counter() - between
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
            margins=verdict.margins,
            age_s=age_s,
            policy=policy_step,
            applied=joint_command.position if self.mode in STIFF_MODES else None,
            modified=verdict.modified,
            operator=operator,
            health=health,
            note=self._note,
            policy_s=between - before,
            filter_s=filter_s,
            tick_s=time.perf_counter() - started,
        )

    def rehearse(self) -> None:
        """Compute the last tick again, on a copy: code and weights are then in the caches when the next state comes.

        Nothing changes by it. Called shortly before a deadline, it shortens the time from state to command, because
        caches go cold between ticks.
        """
        if self._last is None or self.mode not in POLICY_MODES:
            return
        state, now_s, health = self._last
        understudy = copy.copy(self)
        understudy._policy = self._policy.copy()
        understudy._recovery = None if self._recovery is None else self._recovery.copy()
        understudy._request = None
        # What is wrong here is wrong in the next tick as well, which deals with it.
        with contextlib.suppress(Exception):
            understudy.step(state, None, now_s, health=health)

    def _operator_input(self, now_s: float) -> OperatorInput:
        newest = self._command.newest
        return OperatorInput(
            request="" if self._request is None else self._request.value,
            stop=self._stop,
            deadman_age_s=now_s - self._deadman_s,
            command=None if newest is None else newest.values,
            command_stamp_s=None if newest is None else newest.stamp_s,
        )

    def _command_age_s(self, now_s: float) -> float | None:
        """Age of the command that moves the robot; None where none does."""
        newest = self._command.newest
        return None if newest is None or self.mode != Mode.RUN else now_s - newest.stamp_s

    @property
    def _running(self) -> PolicyTargets:
        """The policy that moves the robot, or would."""
        return self._recovery if self.mode == Mode.RECOVER and self._recovery is not None else self._policy

    @property
    def _active_limits(self) -> SafetyLimits:
        return self._running.limits

    def _target(
        self, state: NumpyState | None, sight: Sight, age_s: float, now_s: float
    ) -> tuple[PolicyStep | None, Target | None]:
        """What the mode asks of the joints; None asks for damping."""
        if self.mode in (Mode.STAND, Mode.HOME):
            if self.mode == Mode.STAND and not self._command.missing:
                self._policy.observe(state, sight, age_s, self._memory, self._command.values(now_s))
            return None, self._ramp.target(now_s)
        if self.mode == Mode.HOLD:
            return None, Target(self._ramp.start, "hold", tier="hold")
        if self.mode not in POLICY_MODES:
            return None, None
        command = self._command.values(now_s) if self.mode == Mode.RUN else _rest(self._running)
        tier = "recovery" if self.mode == Mode.RECOVER else None
        step, target = self._running.evaluate(state, sight, age_s, self._memory, command, now_s, tier)
        self._note = self._running.problem or self._note
        return step, target

    def _change(self, event: Event, now_s: float, cause: Cause = Cause.NONE) -> None:
        """The one place where the mode changes; sets up what the new one starts from."""
        mode = next_mode(self.mode, event)
        if mode == self.mode:
            return
        measured, applied, profile = self._memory.measured, self._memory.applied, self.limits.profile
        if mode in (Mode.STAND, Mode.HOME, Mode.HOLD):
            # A robot that is already stiff must not go soft: only out of damping do the gains start low.
            stiffness = LOW_STIFFNESS if self.mode == Mode.DAMP else 1.0
            start = self._ramp.start if measured is None else measured.joint_pos
            tier = TIER_OF_MODE[mode].name if mode in TIER_OF_MODE else None
            self._ramp = Ramp(now_s, start, self.limits.stand_pos, profile.stand_duration_s, stiffness, tier)
            self._tracking = Tracking()
            self._policy.forget()
        elif mode == Mode.RUN and applied is not None:
            self._policy.begin(applied, now_s, profile.soft_start_s)
        elif mode == Mode.RECOVER and applied is not None and self._recovery is not None:
            # A fall does not wait for a soft start.
            self._recovery.begin(applied, now_s, 0.0)
        if mode == Mode.DAMP:
            self._latched = cause in LATCHED
        # A fault keeps the cause that led to it.
        self._cause = self._cause if mode == Mode.FAULT else cause
        self._mode_since_s = now_s
        self.mode = mode

    def _expire(self, now_s: float) -> None:
        """Changes of mode that time brings."""
        limit = limit_s(self.mode, self.limits.profile)
        if self.mode == Mode.DAMP and self._latched:
            self._change(Event.LATCHED, now_s)
        elif limit is not None and now_s - self._mode_since_s > limit:
            # What led to the backup is the better explanation; that it lasted too long is why it must not just go on.
            self._change(Event.BACKUP_EXPIRED, now_s, self._cause)
        elif self.mode in (Mode.STAND, Mode.HOME):
            measured, applied = self._memory.measured, self._memory.applied
            if measured is not None and applied is not None:
                self._tracking.update(self._ramp, measured, applied, self.limits.profile.stand_error_rad, now_s)
            if self._tracking.lost(now_s):
                self._change(Event.STAND_ABORTED, now_s, Cause.STAND_TRACKING)

    def _grant_request(self, state: NumpyState | None, age_s: float, now_s: float) -> None:
        request = self._request
        if request == Request.RESET and self.mode == Mode.FAULT:
            # The stop has done its work: the robot is damped, and stays so unless this tick's verdict is green.
            self._stop = False
        if request is None or request == Request.RESET:
            return
        self._request = None
        missing = refusals(request, self.mode, self._situation(state, age_s, now_s))
        if missing:
            self._note = f"{request.value} refused: {'; '.join(missing)}"
            return
        was = self.mode
        self._change(Event(request.value), now_s, Cause.STOPPED if request == Request.STOP else Cause.NONE)
        if was == Mode.IDLE and request == Request.STAND:
            # Torque came on as damping; stand with the next tick.
            self._request = request

    def _situation(self, state: NumpyState | None, age_s: float, now_s: float) -> Situation:
        spec, track = self.bundle.contract.command, self._memory.object
        if self.limits.object is not None:
            track = track.after(state, self.limits.object, in_use=False)
        return Situation(
            limits=self.limits,
            now_s=now_s,
            age_s=age_s,
            object=track,
            measured=self._memory.measured,
            verdict=self._verdict,
            settled_s=self._tracking.settled_s(now_s),
            observed=self._policy.runner.observed,
            history_length=self.bundle.contract.history_length,
            policy_problem=self._policy.problem,
            command_missing=self._command.missing,
            command=self._command.values(now_s) if self._command.rests_at_zero else None,
            command_name="" if spec is None else spec.name,
            deadman_age_s=now_s - self._deadman_s,
        )

    def _obey(self, verdict: Verdict, now_s: float) -> None:
        """Changes of mode that this tick's checks bring, and the reset, which waits for them to be green."""
        self._verdict = verdict
        if verdict.cause == Cause.OPERATOR_STOP:
            self._change(Event.ESTOP, now_s, verdict.cause)
            # Also where it was damped already.
            self._latched, self._cause = True, verdict.cause
        elif verdict.severity == Severity.DAMP:
            self._change(Event.HARD_TRIP, now_s, verdict.cause)
        elif verdict.tier is not None:
            self._change(TIER[verdict.tier].event, now_s, verdict.cause)
        elif self.mode == Mode.INIT and self._memory.measured is not None:
            self._change(Event.SENSORS_READY, now_s)
        if self._request == Request.RESET:
            self._request = None
            self._reset(verdict, now_s)

    def _reset(self, verdict: Verdict, now_s: float) -> None:
        if self.mode != Mode.FAULT:
            self._note = f"reset refused: mode is {self.mode.value}, not fault"
        elif verdict.severity >= Severity.HOLD:
            self._note = f"reset refused: check {verdict.cause.value} is not green"
        else:
            self._change(Event.RESET, now_s)

    def _no_torque(self, command: JointCommand) -> JointCommand:
        zero = np.zeros(self.limits.n_joints)
        return JointCommand(zero, zero, zero, zero, zero, command.stamp_s, command.expires_s)


def _recovery(bundle: Bundle, controller: Controller) -> PolicyTargets:
    """The recovery policy beside `controller`'s own, checked as strictly."""
    if "recovery" not in controller.limits.backup:
        backups = ", ".join(controller.limits.backup)
        raise ConfigError(
            f"robot {controller.robot.name!r} falls back to {backups}: it has no use for a recovery policy"
        )
    verify_bundle(bundle, controller.robot).require_ok()
    command = bundle.contract.command
    if command is not None and not CommandInput(command).rests_at_zero:
        raise ConfigError(f"a recovery policy must need no command, or one for which zero means rest; {command.name!r}")
    limits = SafetyLimits.make(
        controller.robot,
        bundle.contract,
        controller.loop_period_s,
        controller.limits.profile,
        recovery=True,
        low_pass_hz=bundle.manifest.low_pass_hz,
    )
    return PolicyTargets(bundle, limits)


def _rest(policy: PolicyTargets) -> NDArray[np.float32] | None:
    spec = policy.runner.contract.command
    return None if spec is None else np.zeros(spec.shape, np.float32)
