"""One fault, one seed: from a running policy through the fault, and back to running if that can be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import Command, JointCommand
from robot_rl.errors import ContractError
from robot_rl.robots import RobotSpec
from robot_rl.runtime.checks import Severity
from robot_rl.runtime.controller import Tick
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.loop import run
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.policy_runner import PolicyRunner
from robot_rl.runtime.safety import MODIFICATIONS
from robot_rl.testing.fakes import InvalidCommand, check_command
from robot_rl_sim.faults.expect import Expect, Sight
from robot_rl_sim.faults.fault import Fault, ProcessDied
from robot_rl_sim.faults.rig import FaultyRobot, ProcessClock, Rig, operate
from robot_rl_sim.sim_robot import SimRobot

WATCH_S = 1.5
"""From the fault's beginning to its end, or to half a second beyond its threshold if that is later."""
RECOVER_S = 2.0
"""Beyond the time it takes to stand up: for the operator's reset, stand and run."""
UPRIGHT_RAD = 0.5
SOUND = Fault()

_ROUNDING_S = 1e-6
_DAMPED = frozenset({Mode.DAMP, Mode.FAULT})
_BOUNDS = tuple(MODIFICATIONS.index(name) for name in ("action_bound", "rate_limit", "soft_limit"))


@dataclass
class Peaks:
    """How far a robot went beyond its limits; the worst joint, over all physics steps."""

    joint_pos_rad: float = 0.0
    """Beyond the range."""
    joint_vel_rad_s: float = 0.0
    """Beyond the rated speed."""
    torque_share: float = 0.0
    """Asked for beyond the effort limit, as a share of it. The motor gives no more than its limit."""

    def watch(self, robot: SimRobot, also: Callable[[], None] = lambda: None) -> None:
        """Measure after every physics step from now on, and call `also`."""
        joints = robot.spec.joints
        low, high, speed, effort = (
            np.array([getattr(j, name) for j in joints])
            for name in ("lower_rad", "upper_rad", "velocity_limit_rad_s", "effort_limit_nm")
        )

        def measure() -> None:
            q = robot.joint_pos
            self.joint_pos_rad = max(self.joint_pos_rad, float(np.maximum(low - q, q - high).max()))
            self.joint_vel_rad_s = max(self.joint_vel_rad_s, float((np.abs(robot.joint_vel) - speed).max()))
            self.torque_share = max(self.torque_share, float((np.abs(robot.torque_asked) / effort).max()) - 1.0)
            also()

        robot.on_step = measure


@dataclass
class Trial:
    """What happened. Times are s since the fault began; None: never."""

    due_s: float | None = None
    detected_s: float | None = None
    tripped_s: float | None = None
    """First departure from running the policy, for whatever cause."""
    cause: str = ""
    """Why, then."""
    mode: str = ""
    """At the end of the fault."""
    violations: list[str] = field(default_factory=list)
    """Commands that no robot must get."""
    peaks: Peaks = field(default_factory=Peaks)
    recovered: bool | None = None
    """Whether the policy runs again, or still, after the fault; None where its process is gone."""


def run_trial(
    rig: Rig, fault: Fault, expect: Expect | None, rng: np.random.Generator, *, recover: bool = True
) -> Trial:
    """The runtime as it is; without `recover`, only up to the end of the fault. Uses up the rig."""
    trial = Trial()
    watch = _Watch(rig, fault, expect, trial, rng, recover)
    try:
        run(
            rig.controller,
            watch.robot,
            watch.clock,
            until=lambda _: watch.robot.closed,
            get_command=watch.command,
            on_tick=watch.on_tick,
            rehearse=False,
        )
    except (ProcessDied, OSError):
        # Nobody is left who could do anything.
        watch.outlive()
    trial.violations += filter(None, (violation(c, rig.controller.limits, rig.spec) for c in watch.robot.sent))
    return trial


class _Watch:
    """Begins the fault, sees every tick and every physics step, ends the fault, and is then the operator."""

    def __init__(
        self, rig: Rig, fault: Fault, expect: Expect | None, trial: Trial, rng: np.random.Generator, recover: bool
    ) -> None:
        self.clock, self.robot = begin(rig, fault, rng)
        self._rig, self._fault, self._expect, self._trial = rig, fault, expect, trial
        self._start_s = rig.clock.now_s
        self._end_s = self._start_s + watch_s(expect, rig.controller.limits)
        self._recovers = recover
        self._asked = fault.request is None
        trial.peaks.watch(rig.robot, self._on_step)

    def command(self, now_s: float) -> Command | None:
        command = self._rig.command(now_s)
        return command if command is None or self.robot.fault.said is None else self.robot.fault.said(command)

    def outlive(self) -> None:
        """The rest of the fault without the process."""
        # A dead process only seemed to damp for a while.
        self._rig.clock.now_s = self._rig.robot.time_s
        self._rig.stall(self._end_s - self._rig.clock.now_s)
        self._trial.mode = "ended"

    def on_tick(self, tick: Tick) -> None:
        t = self._rig.clock.now_s - self._start_s
        controller = self._rig.controller
        if self.robot.fault is not self._fault:
            self._recover(tick)
        elif self._rig.clock.now_s < self._end_s - 1e-9:
            self._observe(tick, t)
            if not self._fault.deadman_released:
                controller.feed_deadman(tick.now_s)
            if not self._asked and self._fault.request is not None:
                controller.request(self._fault.request)
                self._asked = True
        else:
            self._trial.mode = tick.mode.value
            self._rig.robot.on_step = None
            self.robot.fault, self._rig.policy.fault = SOUND, None
            self.robot.closed = not self._recovers
            if self._recovers:
                self._recover(tick)

    def _observe(self, tick: Tick, t: float) -> None:
        trial, expect, state = self._trial, self._expect, self.robot.arrived
        if tick.severity >= Severity.HOLD or tick.mode != Mode.RUN:
            self._tripped(t, tick.cause.value)
        trial.violations += _missteps(tick, tripped=trial.cause not in ("", "expired"))
        if expect is None or state is None:
            return
        limits = self._rig.controller.limits
        if expect.due is not None and trial.detected_s is None:
            if expect.due(Sight(state, tick.age_s, self._rig.robot.joint_pos, limits)):
                trial.due_s = t if trial.due_s is None else trial.due_s
            elif trial.due_s is not None and t - trial.due_s <= expect.within(limits) + _ROUNDING_S:
                trial.due_s = None  # over before it had to be noticed
        if expect.by == "runtime":
            noticed = tick.cause in expect.causes and tick.severity >= expect.severity
        else:
            noticed = expect.by == "filter" and bool(tick.modified[_BOUNDS, :].any())
        if noticed and trial.detected_s is None:
            trial.detected_s = t

    def _on_step(self) -> None:
        if self._rig.robot.damping and (self._expect is None or self._expect.by == "robot"):
            t = self._rig.robot.time_s - self._start_s
            self._tripped(t, "expired")
            if self._trial.detected_s is None:
                self._trial.detected_s = t

    def _tripped(self, t: float, cause: str) -> None:
        if self._trial.tripped_s is None:
            self._trial.tripped_s, self._trial.cause = t, cause

    def _recover(self, tick: Tick) -> None:
        """What an operator does next. A robot that has no stance to return to is left where it lies."""
        rig, trial = self._rig, self._trial
        operate(rig, tick)
        fallen = (
            rig.spec.floating_base
            and not rig.robot.suspended
            and (tick.mode != Mode.RUN or tilt_rad(rig) > UPRIGHT_RAD)
        )
        patience_s = rig.controller.limits.profile.stand_duration_s + RECOVER_S
        if fallen or tick.mode == Mode.RUN or rig.clock.now_s > self._end_s + patience_s:
            trial.recovered = tick.mode == Mode.RUN and not fallen
            self.robot.closed = True


def watch_s(expect: Expect | None, limits: SafetyLimits) -> float:
    """How long the fault lasts."""
    return WATCH_S if expect is None or expect.due is not None else max(WATCH_S, expect.within(limits) + 0.5)


def begin(rig: Rig, fault: Fault, rng: np.random.Generator) -> tuple[ProcessClock, FaultyRobot]:
    """The fault strikes with the next tick."""
    rig.clock.advance(rig.controller.loop_period_s)
    rig.robot.advance()
    clock = ProcessClock(rig.clock, fault.clock_jump_s)
    robot = FaultyRobot(rig, clock, fault)
    policy_fault = fault.policy
    if policy_fault is not None:
        rig.policy.fault = lambda evaluate: robot.mortal(lambda: policy_fault(evaluate, rig.stall))
    if fault.body is not None:
        fault.body(rig.robot, rng)
    return clock, robot


def run_bare(rig: Rig, fault: Fault, rng: np.random.Generator) -> Peaks:
    """The same without a safety filter: policy to motors, no check, no bound, and commands that never expire.

    As in runners that have none: an exception ends the process, and the motors go on with what they were told last.
    """
    peaks = Peaks()
    limits, contract = rig.controller.limits, rig.bundle.contract
    runner = PolicyRunner(rig.policy, contract)  # type: ignore[arg-type]
    state = rig.robot.read()
    assert state is not None
    runner.start(state, _values(rig.command(rig.clock.now_s)))
    clock, robot = begin(rig, fault, rng)
    peaks.watch(rig.robot)
    start_s, zero, target = clock.now(), np.zeros(limits.n_joints), None
    every = round(limits.control_period_s / limits.loop_period_s)
    try:
        for k in range(round(WATCH_S / limits.loop_period_s)):
            clock.sleep_until(start_s + k * limits.loop_period_s)
            state = robot.read()
            if state is not None and k % every == 0:
                command = rig.command(clock.now())
                said = fault.said(command) if command is not None and fault.said is not None else command
                target = runner.step(state, _values(said), target).target
            if target is not None:
                with suppress(ContractError):  # the robot refuses what is no number
                    robot.write(
                        JointCommand(np.asarray(target, np.float64), zero, zero, limits.kp, limits.kd, 0.0, np.inf)
                    )
    except (ProcessDied, OSError, ArithmeticError, ValueError):
        pass
    rig.stall(start_s + WATCH_S - rig.clock.now_s)
    return peaks


def violation(command: JointCommand, limits: SafetyLimits, spec: RobotSpec) -> str:
    """What is wrong with a command; empty if nothing is."""
    try:
        check_command(command, spec)
    except InvalidCommand as error:
        return str(error)
    stiff = command.kp > 0
    outside = stiff & ((command.position < limits.soft_lower) | (command.position > limits.soft_upper))
    if outside.any():
        joint = int(outside.argmax())
        return f"{spec.joints[joint].name}: position {command.position[joint]} is outside the soft limits"
    if (command.kp > limits.kp).any():
        return f"kp {command.kp} exceeds the trained {limits.kp}"
    life_s = command.expires_s - command.stamp_s
    return f"lives {life_s} s, longer than {limits.time_to_live_s} s" if life_s > limits.time_to_live_s + 1e-9 else ""


def _missteps(tick: Tick, tripped: bool) -> list[str]:
    """What a tick must never do, once something has `tripped` or at all."""
    mode = tick.mode.value
    found = [f"runs on in spite of {tick.cause.value}"] if tripped and tick.mode == Mode.RUN else []
    if tick.severity == Severity.DAMP and tick.mode not in _DAMPED:
        found.append(f"not damped, but in mode {mode}")
    if tick.mode in _DAMPED and (tick.command.kp.any() or tick.command.effort.any()):
        found.append(f"stiff in mode {mode}")
    return found


def tilt_rad(rig: Rig) -> float:
    """True angle between the root body's and the world's up."""
    up = rig.robot.data.body(rig.spec.root_body).xmat.reshape(3, 3)[2, 2]
    return float(np.arccos(np.clip(up, -1.0, 1.0)))


def judge(trial: Trial, expect: Expect | None, limits: SafetyLimits) -> str:
    """What the trial shows to be wrong with the runtime; empty if all is well."""
    if trial.violations:
        return f"{len(trial.violations)} commands that no robot must get, first: {trial.violations[0]}"
    if expect is None:
        return f"not tolerated: {trial.cause} after {trial.tripped_s:.3f} s" if trial.tripped_s is not None else ""
    if trial.detected_s is None and trial.cause and expect.by == "runtime":
        return f"not detected; tripped by {trial.cause}"
    if expect.due is not None and trial.due_s is None:
        return ""
    if trial.detected_s is None:
        return "not detected"
    late_s = latency_s(trial, expect) - (expect.within(limits) + limits.loop_period_s)
    return f"detected {late_s:.4f} s too late" if late_s > _ROUNDING_S else ""


def latency_s(trial: Trial, expect: Expect) -> float:
    """From when it had to be noticed to when it was; 0 if it was before."""
    assert trial.detected_s is not None
    since_s = 0.0 if expect.due is None else trial.due_s
    return 0.0 if since_s is None else trial.detected_s - since_s


def _values(command: Command | None) -> NDArray[np.float32] | None:
    return None if command is None else command.values
