"""What in a flight must equal what else: four relations that hold for every robot, whatever it does.

    joint_vel       integrated                        = change of joint_pos
    servo           joint_pos + (kd dq + τ) / kp      = target in force, or
                    joint_pos + kd dq / kp            = target in force - τ / kp
    imu_ang_vel_b   integrated                        = rotation between two orientations
    imu_lin_acc_b   averaged                          = g times the upward direction in the body

The servo's is its control law τ = kp (target - q) - kd dq: it needs no model of the load, and holds in the air, on the
ground and in a fall, where a robot measures its joint efforts. Its two forms are equal but for what a mistake makes of
them: a wrong target scales the right side of the first, a wrong position the left side of the second. Integrals are
taken over windows: a derivative of a measured position would be mostly noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot_rl.parity.causes import ACCELERATIONS, ANGLES, RATES, Cause, Tolerance
from robot_rl.parity.compare import Comparison, compare
from robot_rl.parity.flight import Flight
from robot_rl.parity.pair import Pair, joined

Array = NDArray[np.float64]

G_M_S2 = 9.80665

JOINT_VEL = Tolerance(factor=1.2, offset=0.05, floor=0.005, units=RATES)
"""Offset and floor in rad of a window's travel: 0.25 rad/s."""
SERVO = Tolerance(factor=1.35, offset=0.09, floor=0.015, units=ANGLES)
"""rad. Encoders are off by up to 0.02, and motors and their measured torques by 20 %: of a tracking error of 0.3 that
leaves 0.06."""
ANG_VEL = Tolerance(factor=1.2, offset=0.03, floor=0.01, units=RATES)
"""rad of a window's rotation: 0.1 rad/s."""
LIN_ACC = Tolerance(factor=3.0, offset=0.6, floor=0.3, units=ACCELERATIONS)
"""m/s². A base that swings is accelerated along with its tilt: no scale of one axis follows from that."""

_WINDOW_S = {"joint_vel": 0.2, "imu_ang_vel_b": 0.3, "imu_lin_acc_b": 0.3}
_SMOOTH_S = 0.05
_LAGS = (-1.5, -1.25, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_SERVO_LAGS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_FAST_RAD = 0.03
"""Change of a target in a control period from which a lag shows, beside what a slow ramp makes of other errors."""
_SATURATED = 0.8
"""Share of the effort limit from which a servo's torque may be no longer what it would like."""
_INDEPENDENT_S, _FEW = 0.05, 40
"""Errors of a servo's model last about so long. In fewer rows, noise is what there is most of, and each row counts."""
_MOST_ROWS = 600
"""Of a flight's rows, evenly chosen: every pair of joints is compared."""
_LEAST_S, _LEAST_HELD_S = 0.5, 0.1
"""From shorter flights nothing is judged, and from less time under position control no lag."""
_LATENCY = 0.25
"""Share of a control period after which a command is in force, where nothing is late."""
_SOFT = 1e-3
"""N m/rad, for where there is no servo; such rows have no weight."""
_EFFORT_ERROR = 0.1
"""Share of a measured effort by which it may be wrong."""
_EFFORT_GAINS = (0.8, 0.9, 1.0, 1.1, 1.25)
"""True over measured effort, where it must not be what decides between two explanations."""
_DOUBT = 3.0
"""Of a servo: below the difference in price of a sign, which must have the right size by chance, to other mistakes."""


@dataclass(frozen=True)
class _Grid:
    """Even times inside the flight, so far from its ends that every window and lag lies in it."""

    t: Array
    at: Array
    """(T,) times of the samples."""

    @classmethod
    def of(cls, flight: Flight, margin_s: float) -> _Grid | None:
        start, end = flight.stamp_s[0] + margin_s, flight.stamp_s[-1] - margin_s
        if end - start < _LEAST_S:
            return None
        return cls(np.arange(start, end, flight.period_s), flight.stamp_s)

    def sample(self, values: Array, shift_s: float = 0.0) -> Array:
        return np.stack([np.interp(self.t + shift_s, self.at, column) for column in values.T], 1)

    def smooth(self, values: Array, shift_s: float, width_s: float) -> Array:
        """Mean over a window centred `shift_s` after each time."""
        total = _integral(self.at, values)
        return (self.sample(total, shift_s + width_s / 2) - self.sample(total, shift_s - width_s / 2)) / width_s

    def independent(self, window_s: float) -> float:
        """How many windows of it do not overlap."""
        return max(10.0, (self.t[-1] - self.t[0]) / window_s)


def _noise(values: Array) -> Array:
    """(n,) standard deviation of what changes from row to row as if nothing had been there before."""
    bends = values[2:] - 2 * values[1:-1] + values[:-2]
    return 1.48 / math.sqrt(6) * np.median(np.abs(bends), axis=0) if len(bends) else np.zeros(values.shape[1])


def _integral(t: Array, values: Array) -> Array:
    steps = 0.5 * (values[1:] + values[:-1]) * np.diff(t)[:, None]
    return np.concatenate((np.zeros((1, values.shape[1])), np.cumsum(steps, 0)))


def joint_velocity(flights: Sequence[Flight]) -> Comparison | None:
    """Travel of each joint over a window: of joint_vel, and of joint_pos."""
    window, period_s = _WINDOW_S["joint_vel"], flights[0].contract.control_period_s

    def pair(flight: Flight) -> Pair | None:
        grid = _Grid.of(flight, window + 2 * period_s)
        if grid is None:
            return None
        pos, travel = flight.state["joint_pos"], _integral(flight.stamp_s, flight.state["joint_vel"])

        def change(values: Array, lag_s: float) -> Array:
            after, before = window / 2 - lag_s, -window / 2 - lag_s
            return grid.smooth(values, after, _SMOOTH_S) - grid.smooth(values, before, _SMOOTH_S)

        return Pair(change(travel, 0.0), lambda lag_s: change(pos, lag_s), grid.independent(window))

    return _compared("joint_vel", map(pair, flights), JOINT_VEL, period_s, _LAGS)


def _compared(
    signal: str, pairs: Iterable[Pair | None], tolerance: Tolerance, period_s: float, lags: Sequence[float] = (0.0,)
) -> Comparison | None:
    found = [pair for pair in pairs if pair is not None]
    return compare(signal, joined(found), tolerance, period_s=period_s, lags=lags) if found else None


def servo(flights: Sequence[Flight]) -> Comparison | None:
    """Where each servo goes, and the target in force; None where no joint was held by its servo.

    Causes name the signal `target`, or `joints` where positions, and not targets, explain what is seen.
    """
    found = [held for flight in flights if (held := _Held.of(flight)) is not None]
    if not found:
        return None
    lags = _SERVO_LAGS if any(held.long for held in found) else (0.0,)
    period_s = flights[0].contract.control_period_s
    everything = list(range(len(flights[0].joint_names)))
    together = joined([held.targets(everything) for held in found])
    first = compare("target", together, SERVO, period_s=period_s, lags=lags, doubt=_DOUBT)
    struck = sorted({c.channels[0] for c in first.causes if c.kind in ("scale", "offset", "unclear") and c.channels})
    causes = [cause for cause in first.causes if not set(cause.channels) & set(struck)]
    for i in struck:
        own = [cause for cause in first.causes if i in cause.channels]
        causes += _target_or_joints(i, own, found, first.lag_s, period_s)
    return replace(first, causes=tuple(causes))


def _target_or_joints(i: int, own: list[Cause], flights: Sequence[_Held], lag_s: float, period_s: float) -> list[Cause]:
    """What is wrong with joint `i`: its target's `own` mistakes, or a scale of its position.

    The load does not grow with a position that is read too large. It is asked of no other joints, since the measured
    load is noisy, and would make small scales of good ones.
    """

    def cheapest(make: Callable[[_Held, float], Pair]) -> Comparison:
        def at(gain: float) -> Comparison:
            found = compare("joints", joined([make(held, gain) for held in flights]), SERVO, period_s=period_s)
            return replace(found, cost=found.cost + (math.log(gain) / _EFFORT_ERROR) ** 2)

        return min(map(at, _EFFORT_GAINS), key=lambda found: found.cost)

    by_target = cheapest(lambda held, gain: held.targets([i], gain, lag_s))
    by_joints = cheapest(lambda held, gain: held.joints([i], gain, lag_s))
    gain = by_target.cost - by_joints.cost
    kinds = {cause.kind for cause in by_joints.causes}
    if kinds != {"scale"} or gain < -_DOUBT or (gain <= 0 and {cause.kind for cause in own} == kinds):
        return own
    if gain < _DOUBT and {cause.kind for cause in own} != kinds:
        return [Cause("unclear", "target", (i,))]
    return [Cause("scale", "joints", (i,), 1.0 / by_joints.causes[0].value)]


@dataclass(frozen=True)
class _Held:
    """The rows of a flight in which any joint was held by its servo."""

    flight: Flight
    rows: NDArray[np.int64]
    long: bool
    """Long enough to look for lags."""

    @classmethod
    def of(cls, flight: Flight) -> _Held | None:
        if "joint_effort" not in flight.state:
            return None
        period_s = flight.contract.control_period_s

        def held(lag: float) -> NDArray[np.bool_]:
            return np.any(np.nan_to_num(flight.in_force("kp", lag * period_s)) > 0, axis=1)

        now = held(0.0)
        rows, long = now & held(_SERVO_LAGS[-1]), True
        if rows.sum() * flight.period_s < _LEAST_HELD_S:
            rows, long = now & held(_LATENCY), False
        if not rows.any():
            return None
        return cls(flight, np.flatnonzero(rows)[:: max(1, int(rows.sum()) // _MOST_ROWS)], long)

    def targets(self, channels: list[int], gain: float = 1.0, lag_s: float = 0.0) -> Pair:
        """Where the servos of `channels` go by their law, and their targets `lag_s` ago.

        `gain`: of true over measured effort.
        """
        period_s, limit = self.flight.contract.control_period_s, self._limit[channels]
        q, dq, effort = (self._measured(name)[:, channels] for name in ("pos", "vel", "effort"))
        kp, kd = (self._in_force(name)[:, channels] for name in ("kp", "kd"))
        # [j, :, i]: joint i as if it had been given the command, and with it the gains, of joint j.
        stiffness = np.where(kp.T[:, :, None] > 0, kp.T[:, :, None], np.maximum(kp, _SOFT))
        seen, reach = q[None] + kd.T[:, :, None] / stiffness * dq[None], limit / stiffness
        moving = np.abs(self._in_force("position") - self._in_force("position", period_s)) > _FAST_RAD
        return Pair(
            seen + gain * effort / stiffness, lambda later_s: self._in_force("position", lag_s + later_s)[:, channels],
            self.samples, *self._trust(channels), seen - reach, seen + reach, np.any(moving, axis=1), before_x=True,
        )  # fmt: skip

    def joints(self, channels: list[int], gain: float, lag_s: float) -> Pair:
        """Where servos with these targets and loads would hold `channels`, and where they are: a scale of the latter
        does not strike the load, which most of the noise comes from."""
        q, dq, effort = (self._measured(name)[:, channels] for name in ("pos", "vel", "effort"))
        kp, kd = (self._in_force(name)[:, channels] for name in ("kp", "kd"))
        kp = np.maximum(kp, _SOFT)
        held_at = self._in_force("position", lag_s)[:, channels] - gain * effort / kp
        return Pair(held_at, lambda _: q + kd / kp * dq, self.samples, *self._trust(channels), before_x=True)

    @property
    def samples(self) -> float:
        spacing_s = float(np.median(np.diff(self.flight.stamp_s[self.rows]))) if len(self.rows) > 1 else 0.0
        return min(float(len(self.rows)), max(_FEW, len(self.rows) * spacing_s / _INDEPENDENT_S))

    @property
    def _limit(self) -> Array:
        return np.array([joint.effort_limit_nm for joint in self.flight.contract.joints])

    def _trust(self, channels: list[int]) -> tuple[Array, NDArray[np.bool_]]:
        """Weight of each row by what noise makes of it, and where a servo's torque is not at its limit."""
        dq_noise, effort_noise = (_noise(self.flight.state[f"joint_{name}"])[channels] for name in ("vel", "effort"))
        kp, kd, effort = self._in_force("kp"), self._in_force("kd"), self._measured("effort")[:, channels]
        variance = (_EFFORT_ERROR * effort) ** 2 + effort_noise**2 + (kd[:, channels] * dq_noise) ** 2
        weight = kp[:, channels] ** 2 / (kp[:, channels] ** 2 + variance / SERVO.floor**2)
        return weight, np.abs(effort) < _SATURATED * self._limit[channels]

    def _measured(self, name: str) -> Array:
        return self.flight.state[f"joint_{name}"][self.rows]

    def _in_force(self, name: str, lag_s: float = 0.0) -> Array:
        return self.flight.in_force(name, lag_s)[self.rows]


def angular_velocity(flights: Sequence[Flight], quats: Sequence[Array], *, world: bool = False) -> Comparison | None:
    """Rotation over a window: of imu_ang_vel_b, which may be one in the `world`'s frame, and of each `quats` (T, 4)."""
    window, period_s = _WINDOW_S["imu_ang_vel_b"], flights[0].contract.control_period_s

    def pair(flight: Flight, quat: Array) -> Pair | None:
        grid = _Grid.of(flight, window + 2 * period_s)
        if grid is None:
            return None
        rate = flight.state["imu_ang_vel_b"]
        turned = _integral(flight.stamp_s, in_body(rate, quat) if world else rate)
        smoothed = continuous(quat)

        def rotation(lag_s: float) -> Array:
            before = grid.smooth(smoothed, -window / 2 - lag_s, _SMOOTH_S)
            after = grid.smooth(smoothed, window / 2 - lag_s, _SMOOTH_S)
            return rotation_vector(multiply(conjugate(before), after))

        x = grid.smooth(turned, window / 2, _SMOOTH_S) - grid.smooth(turned, -window / 2, _SMOOTH_S)
        return Pair(x, rotation, grid.independent(window))

    return _compared("imu_ang_vel_b", map(pair, flights, quats), ANG_VEL, period_s, _LAGS)


def linear_acceleration(flights: Sequence[Flight], quats: Sequence[Array], *, world: bool = False) -> Comparison | None:
    """imu_lin_acc_b, which may be one in the `world`'s frame, and what gravity alone would make it read."""
    window = _WINDOW_S["imu_lin_acc_b"]

    def pair(flight: Flight, quat: Array) -> Pair | None:
        grid = _Grid.of(flight, window)
        if grid is None:
            return None
        measured = flight.state["imu_lin_acc_b"]
        up = grid.smooth(G_M_S2 * in_body(np.broadcast_to([0.0, 0.0, 1.0], measured.shape), quat), 0.0, window)
        x = grid.smooth(in_body(measured, quat) if world else measured, 0.0, window)
        return Pair(x, lambda _lag_s: up, grid.independent(window))

    return _compared("imu_lin_acc_b", map(pair, flights, quats), LIN_ACC, flights[0].contract.control_period_s)


def multiply(a: Array, b: Array) -> Array:
    """Hamilton product (T, 4), scalar first."""
    aw, av, bw, bv = a[:, :1], a[:, 1:], b[:, :1], b[:, 1:]
    return np.concatenate((aw * bw - (av * bv).sum(1, keepdims=True), aw * bv + bw * av + np.cross(av, bv)), 1)


def conjugate(quat: Array) -> Array:
    return quat * np.array([1.0, -1.0, -1.0, -1.0])


def in_body(vector: Array, quat: Array) -> Array:
    """A world vector (T, 3) in the frame of a body with orientation (T, 4)."""
    w, xyz = quat[:, :1], -quat[:, 1:]
    across = 2 * np.cross(xyz, vector)
    return vector + w * across + np.cross(xyz, across)


def continuous(quat: Array) -> Array:
    """The same orientations, where none follows its opposite sign."""
    flips = np.where((quat[1:] * quat[:-1]).sum(1) < 0, -1.0, 1.0)
    return quat * np.concatenate(([1.0], np.cumprod(flips)))[:, None]


def rotation_vector(quat: Array) -> Array:
    """(T, 3) rad of rotations (T, 4), which need no unit norm."""
    quat = np.where(quat[:, :1] < 0, -quat, quat)
    length = np.linalg.norm(quat[:, 1:], axis=1, keepdims=True)
    angle = 2 * np.arctan2(length, quat[:, :1])
    return quat[:, 1:] * np.where(length > 1e-9, angle / np.maximum(length, 1e-9), 2.0)
