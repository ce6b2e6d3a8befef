"""Wiggle: move one joint at a time a little, at low gain, and see which joint answers and in which direction.

First the gains of all joints come up slowly where the joints are. If nothing moves by that, all but the one under test
are held there. Otherwise commands mean something else to the robot than is believed: the gains go, and from then on
only the joint under test is stiff, so that wrong wiring cannot hold any other anywhere. If a joint moves although it is
told to stay, it is tried again where the one that moved would have to be told to stay, with either sign. Then the
target goes to and fro, and each joint's answer is its excursion beyond a steady drift.

What this cannot see: a robot that commands and measures through the same wrong wiring is consistent with itself. Only
somebody who looks at it knows which joint really moved; `ask` is for that.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import JointCommand, NumpyState
from robot_rl.errors import ConfigError, RobotRLError
from robot_rl.runtime.interface import Clock, Health, RobotInterface
from robot_rl.runtime.loop import damp_out
from robot_rl.runtime.signals import StopFlag, stop_on_signals

Array = NDArray[np.float64]

GAIN_S, MOVE_S, DWELL_S = 0.5, 0.5, 0.3
"""Gain up; target out or back; waiting before each of the three measurements."""
SETTLE_S, SETTLED_RAD_S = 10.0, 0.02
"""Before each joint: until all are this slow, at most so long."""
STATE_AGE_S = 0.2
LOG_RATE_HZ = 100.0
"""Where a log of it is wanted: slower than servos settle, joint_vel cannot be held against joint_pos."""
OUTSIDE_RAD = 0.05
"""Reading beyond a limit that a mechanical stop and an encoder's error explain."""


class WiggleAborted(RobotRLError):
    """Motion that nobody asked for, or a robot that went silent: it was damped."""


@dataclass(frozen=True, slots=True)
class WiggleConfig:
    """How much, how stiff, and what is too much."""

    amplitude_rad: float = 0.15
    stiffness: float = 0.3
    """Share of the joint's own gain to begin with; doubled, up to the whole, for a joint that does not stir."""
    rate_hz: float = 50.0
    quiet_rad: float = 0.04
    """Largest motion while a gain comes up where the joint already is."""
    answer_share: float = 0.15
    """A joint has answered if it moved by this share of the amplitude, and half as far as the one that moved most."""
    abort_rad: float = 0.4
    """Any joint this far from where it was when the test of a joint began ends the run."""
    abort_rad_s: float = 4.0

    def __post_init__(self) -> None:
        bounds = {"amplitude_rad": (0.02, 0.3), "stiffness": (0.01, 1.0), "rate_hz": (10.0, 500.0)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must be in [{low}, {high}], got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of commanding one joint."""

    joint: str
    answers: tuple[tuple[str, float], ...]
    """(joint, motion as a share of the commanded one), of those that answered, the strongest first."""
    outside_rad: float | None = None
    """Where the joint reads to be, if that is beyond its limits: it was not moved."""

    @property
    def moved(self) -> str | None:
        """The one joint that answered; None if none or several did."""
        return self.answers[0][0] if len(self.answers) == 1 else None

    @property
    def sign(self) -> int:
        return 1 if self.answers and self.answers[0][1] > 0 else -1

    @property
    def ok(self) -> bool:
        return self.moved == self.joint and self.sign == 1

    @property
    def verdict(self) -> str:
        if self.outside_rad is not None:
            return f"reads {self.outside_rad:.2f} rad, beyond its limits: wrong sign or zero; not moved"
        if not self.answers:
            return "nothing moved"
        if self.moved is None:
            return f"several moved: {', '.join(name for name, _ in self.answers)}"
        wrong = [f"moved {self.moved}"] * (self.moved != self.joint) + ["the other way"] * (self.sign < 0)
        return ", ".join(wrong) or "ok"


Step = Callable[[float, JointCommand, NumpyState], None]
"""Takes the time of a command, the command, and the state that was read a period later."""
Ask = Callable[[Finding, int], Finding | None]
"""(what was measured, direction commanded) -> what somebody saw; None if nobody is there."""


def wiggle(
    robot: RobotInterface,
    clock: Clock,
    config: WiggleConfig,
    joints: Sequence[str] = (),
    *,
    on_finding: Callable[[Finding], None] | None = None,
    on_step: Step | None = None,
    ask: Ask | None = None,
) -> list[Finding]:
    """Try `joints`, or all, of a connected robot. Raises WiggleAborted; whatever happens, ends damped and released."""
    names = robot.spec.joint_names
    if unknown := sorted(set(joints) - set(names)):
        raise ConfigError(f"unknown joint {unknown[0]!r}; valid: {', '.join(names)}")
    findings = []
    with stop_on_signals() as stopping:
        run = _Run(robot, clock, config, stopping, on_step)
        try:
            for name in joints or names:
                finding, direction = run.joint(names.index(name))
                if ask is not None and finding.outside_rad is None:
                    finding = run.seen(ask, finding, direction)
                findings.append(finding)
                if on_finding is not None:
                    on_finding(finding)
        finally:
            damp_out(robot, run.damping_kd, 1.0 / config.rate_hz, clock)
    return findings


class _Run:
    """The robot, stepped at a fixed rate and watched at every step."""

    def __init__(
        self, robot: RobotInterface, clock: Clock, config: WiggleConfig, stopping: StopFlag, on_step: Step | None
    ) -> None:
        spec = robot.spec
        self._on_step = on_step
        self.damping_kd = np.array(spec.safety.damping_kd_nms_rad)
        self._robot, self._clock, self._config, self._stopping = robot, clock, config, stopping
        self._names = spec.joint_names
        self._kp = np.array([j.kp_nm_rad for j in spec.joints])
        self._kd = np.array([j.kd_nms_rad for j in spec.joints])
        self._lower = np.array([j.lower_rad for j in spec.joints])
        self._upper = np.array([j.upper_rad for j in spec.joints])
        margin = spec.safety.soft_margin * (self._upper - self._lower)
        # Beyond these a watchdog on the way to the robot lets no target pass.
        self._soft_lower, self._soft_upper = self._lower + margin, self._upper - margin
        self._from: Array | None = None
        self._first = True
        self._pose = self._holding_kp = np.zeros_like(self._kp)
        self._outside = np.zeros(len(self._kp), np.bool_)
        self._held: Array | None = None
        """Where the joints that are not under test are held; None: they are damped."""

    def joint(self, i: int) -> tuple[Finding, int]:
        """Find how the robot takes commands to joint `i`; and the direction in which it was commanded."""
        if self._first:
            self._first, self._held = False, self._hold()
        if self._outside[i]:
            return Finding(self._names[i], (), float(self._pose[i])), 1
        stiffness = self._config.stiffness
        while True:
            finding, direction = self._try(i, stiffness)
            if finding.answers or stiffness >= 1.0:
                return finding, direction
            stiffness = min(1.0, 2.0 * stiffness)

    def _hold(self) -> Array | None:
        """Make all joints stiff where they are; the pose, or None if that moved any."""
        pose, drift = self._settle()
        # A target at such a reading is clipped to the limit by whoever takes it, and the joint would jump there.
        self._outside = (pose < self._lower - OUTSIDE_RAD) | (pose > self._upper + OUTSIDE_RAD)
        self._pose = pose
        self._holding_kp = np.where(self._outside, 0.0, self._config.stiffness * self._kp)
        base = np.clip(pose, self._soft_lower, self._soft_upper)
        for share in self._times(GAIN_S):
            state = self._step(base, share * self._holding_kp)
            if self._unasked(state, pose + share * GAIN_S * drift, base) is not None:
                return None
        return base

    def _unasked(self, state: NumpyState, pose: Array, base: Array) -> int | None:
        """The joint that left the way from `pose` to `base` most, if any did."""
        position = state.joint_pos[0]
        motion = np.maximum(np.minimum(pose, base) - position, position - np.maximum(pose, base))
        return int(motion.argmax()) if motion.max() > self._config.quiet_rad else None

    def _try(self, i: int, stiffness: float) -> tuple[Finding, int]:
        if self._held is not None:
            direction = self._direction(i, self._held[i])
            return self._to_and_fro(i, self._held[i], direction, stiffness), direction
        pose, drift = self._settle()
        candidates = [(i, 1)]
        for k in range(3):
            j, sign = candidates[k]
            base, bases = sign * pose[j], pose
            if k == 0:
                bases = np.clip(pose, self._soft_lower, self._soft_upper)
                base = bases[i]
            mover = self._gain_up(i, base, stiffness, pose, drift, bases)
            if mover is None:
                direction = self._direction(i, base)
                return self._to_and_fro(i, base, direction, stiffness), direction
            if k == 0:
                candidates += [(mover, 1), (mover, -1)] if mover != i else [(i, -1), (i, -1)]
            pose, drift = self._settle()
        raise WiggleAborted(
            f"{self._names[candidates[1][0]]} moves when {self._names[i]} is told to stay where that is, with either "
            "sign: its zero is elsewhere"
        )

    def _direction(self, i: int, base: float) -> int:
        return 1 if base + self._config.amplitude_rad <= self._soft_upper[i] else -1

    def seen(self, ask: Ask, finding: Finding, direction: int) -> Finding:
        """What somebody says to have seen. The robot is held or damped, and Ctrl-C works, while they look."""
        said: list[Finding | None] = []
        waiting = threading.Thread(target=lambda: said.append(ask(finding, direction)), name="asking", daemon=True)
        waiting.start()
        while waiting.is_alive():
            if self._held is None:
                self._from = None
                self._damp()
            else:
                self._step(self._held, self._holding_kp)
        if not said or said[0] is None:
            raise WiggleAborted("nobody answered")
        return said[0]

    def _settle(self) -> tuple[Array, Array]:
        """Damp until nothing moves; the pose, and how fast it still drifts."""
        self._from = None
        end_s = self._clock.now() + SETTLE_S
        while True:
            before, start_s = self._damp(), self._clock.now()
            pose = [self._damp() for _ in self._times(DWELL_S)][-1]
            drift = (pose - before) / (self._clock.now() - start_s)
            if np.abs(drift).max() < SETTLED_RAD_S or self._clock.now() >= end_s:
                self._from = pose
                return pose, drift

    def _gain_up(self, i: int, base: float, stiffness: float, pose: Array, drift: Array, bases: Array) -> int | None:
        """Bring the gain of joint `i` up at `base`; the joint that left the way from `pose` to `bases`, if any did."""
        for share in self._times(GAIN_S):
            state = self._drive(i, base, share * stiffness)
            mover = self._unasked(state, pose + share * GAIN_S * drift, bases)
            if mover is not None:
                return mover
        return None

    def _to_and_fro(self, i: int, base: float, direction: int, stiffness: float) -> Finding:
        amplitude = direction * self._config.amplitude_rad
        before = self._dwell(i, base, stiffness)
        for share in self._times(MOVE_S):
            self._drive(i, base + amplitude * 0.5 * (1 - math.cos(math.pi * share)), stiffness)
        out = self._dwell(i, base + amplitude, stiffness)
        for share in self._times(MOVE_S):
            self._drive(i, base + amplitude * 0.5 * (1 + math.cos(math.pi * share)), stiffness)
        after = self._dwell(i, base, stiffness)
        # A joint that sags at a steady rate is where the mean of before and after is; what answers is not.
        answer = (out - 0.5 * (before + after)) / amplitude
        strongest = sorted(range(len(answer)), key=lambda j: -abs(answer[j]))
        least = max(self._config.answer_share, 0.5 * abs(answer[strongest[0]]))
        answers = tuple((self._names[j], float(answer[j])) for j in strongest if abs(answer[j]) >= least)
        return Finding(self._names[i], answers)

    def _dwell(self, i: int, target: float, stiffness: float) -> Array:
        states = [self._drive(i, target, stiffness) for _ in self._times(DWELL_S)]
        return states[-1].joint_pos[0]

    def _times(self, duration_s: float) -> list[float]:
        n = max(1, round(duration_s * self._config.rate_hz))
        return [(k + 1) / n for k in range(n)]

    def _damp(self) -> Array:
        zero = np.zeros_like(self._kp)
        return self._step(zero, zero).joint_pos[0]

    def _drive(self, i: int, target: float, stiffness: float) -> NumpyState:
        if self._held is None:
            position, kp = np.zeros_like(self._kp), np.zeros_like(self._kp)
        else:
            position, kp = self._held.copy(), self._holding_kp.copy()
        position[i], kp[i] = target, stiffness * self._kp[i]
        return self._step(position, kp)

    def _step(self, position: Array, kp: Array) -> NumpyState:
        """One command, one period, one state; and every reason to end here."""
        period_s = 1.0 / self._config.rate_hz
        now_s = self._clock.now()
        kd = np.where(kp > 0, self._kd, self.damping_kd)
        zero = np.zeros_like(kp)
        command = JointCommand(position, zero, zero, kp, kd, now_s, now_s + max(0.1, 3 * period_s))
        sent = self._robot.write(command)
        self._clock.sleep_until(now_s + period_s)
        if self._stopping.signal is not None:
            raise WiggleAborted(f"ended by {self._stopping.signal.name}")
        state, sent_s = self._robot.read(), now_s
        if state is not None and self._on_step is not None:
            self._on_step(sent_s, sent, state)
        now_s = self._clock.now()
        if state is None or now_s - float(state.stamp_s[0]) > STATE_AGE_S:
            raise WiggleAborted(f"no state of the robot for {STATE_AGE_S} s")
        self._check_health(getattr(self._robot, "health", lambda: None)())
        self._watch(state)
        return state

    def _check_health(self, health: Health | None) -> None:
        if health is None:
            return
        if health.motor_errors is not None and health.motor_errors.any():
            errors = [f"{n} {e:#x}" for n, e in zip(self._names, health.motor_errors, strict=True) if e]
            raise WiggleAborted(f"motor errors: {', '.join(errors)}")
        if health.lost_packets > self._robot.spec.safety.lost_packets_trip:
            raise WiggleAborted(f"{health.lost_packets} exchanges with the robot failed in a row")

    def _watch(self, state: NumpyState) -> None:
        position, velocity = state.joint_pos[0], state.joint_vel[0]
        if not (np.isfinite(position).all() and np.isfinite(velocity).all()):
            raise WiggleAborted("the state is not finite")
        fastest = int(np.abs(velocity).argmax())
        if abs(velocity[fastest]) > self._config.abort_rad_s:
            raise WiggleAborted(f"{self._names[fastest]} moves at {velocity[fastest]:.2g} rad/s")
        if self._from is not None:
            farthest = int(np.abs(position - self._from).argmax())
            if abs(position[farthest] - self._from[farthest]) > self._config.abort_rad:
                shift = position[farthest] - self._from[farthest]
                raise WiggleAborted(f"{self._names[farthest]} has moved by {shift:.2g} rad")
