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

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot_rl.parity.compare import ACCELERATIONS, ANGLES, RATES, Cause, Comparison, Pair, Tolerance, compare
from robot_rl.parity.flight import Flight

Array = NDArray[np.float64]

G_M_S2 = 9.80665

JOINT_VEL = Tolerance(factor=1.2, offset=0.05, floor=0.005, units=RATES)
"""Offset and floor in rad of a window's travel: 0.25 rad/s."""
SERVO = Tolerance(factor=1.35, offset=0.09, floor=0.01, units=ANGLES)
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
_STIFF = 0.25
"""Share of the trained kp from which a servo is judged: softer ones follow their load more than their target."""
_INDEPENDENT_S = 0.05
_MOST_ROWS = 600
"""Of a flight's rows, evenly chosen: every pair of joints is compared."""
_LEAST_S, _LEAST_HELD_S = 0.5, 0.1
"""From shorter flights, or less time under position control, nothing is judged."""


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


def _integral(t: Array, values: Array) -> Array:
    steps = 0.5 * (values[1:] + values[:-1]) * np.diff(t)[:, None]
    return np.concatenate((np.zeros((1, values.shape[1])), np.cumsum(steps, 0)))


def joint_velocity(flight: Flight) -> Comparison | None:
    """Travel of each joint over a window: of joint_vel, and of joint_pos."""
    window = _WINDOW_S["joint_vel"]
    grid = _Grid.of(flight, window + 2 * flight.contract.control_period_s)
    if grid is None:
        return None
    pos, travel = flight.state["joint_pos"], _integral(flight.stamp_s, flight.state["joint_vel"])

    def change(values: Array, lag_s: float) -> Array:
        return grid.smooth(values, window / 2 - lag_s, _SMOOTH_S) - grid.smooth(values, -window / 2 - lag_s, _SMOOTH_S)

    return compare(
        "joint_vel", Pair(change(travel, 0.0), lambda lag_s: change(pos, lag_s)), JOINT_VEL,
        samples=_independent(grid, window), period_s=flight.contract.control_period_s, lags=_LAGS,
    )  # fmt: skip


def servo(flight: Flight) -> Comparison | None:
    """Where each servo goes, and the target in force; None where no joint was held stiffly for _LEAST_HELD_S.

    Causes name the signal `target`, or `joints` where positions, and not targets, explain what is seen.
    """
    if "joint_effort" not in flight.state:
        return None
    period_s = flight.contract.control_period_s
    limit = np.array([j.effort_limit_nm for j in flight.contract.joints])
    stiff = _STIFF * np.array([j.kp_nm_rad for j in flight.contract.joints])
    # Sorted: which joint has which gains may be one of the mistakes.
    rows = (np.sort(flight.in_force("kp"), 1) >= np.sort(stiff)).all(1)
    rows &= (flight.in_force("kp", _SERVO_LAGS[-1] * period_s) > 0).all(1)
    held_s = float(rows.sum()) * flight.period_s
    if held_s < _LEAST_HELD_S:
        return None
    rows = np.flatnonzero(rows)[:: max(1, int(rows.sum()) // _MOST_ROWS)]
    q, dq, effort = (flight.state[f"joint_{name}"][rows] for name in ("pos", "vel", "effort"))
    kp, kd = flight.in_force("kp")[rows], flight.in_force("kd")[rows]
    samples = max(10.0, held_s / _INDEPENDENT_S)

    def follow(signal: str, channels: list[int]) -> Comparison:
        """`channels` against the targets, by the form of the relation in which mistakes of `signal` are simple."""
        q_, dq_, effort_, kp_, kd_ = (v[:, channels] for v in (q, dq, effort, kp, kd))
        usable = np.abs(effort_) < _SATURATED * limit[channels]
        before = flight.in_force("position", period_s)[rows]
        moving = np.any(np.abs(flight.in_force("position")[rows] - before) > _FAST_RAD, axis=1)
        # [j, :, i]: joint i as if it had been given the command, and with it the gains, of joint j.
        seen, stiffness = q_[None] + (kd_ / kp_).T[:, :, None] * dq_[None], kp_.T[:, :, None]
        if signal == "joints":
            pair = Pair(
                seen,
                lambda lag_s: flight.in_force("position", lag_s)[rows][:, channels] - effort_ / kp_,
                usable,
                moving=moving,
            )
        else:
            reach = limit[channels] / stiffness
            pair = Pair(
                seen + effort_[None] / stiffness, lambda lag_s: flight.in_force("position", lag_s)[rows][:, channels],
                usable, seen - reach, seen + reach, moving,
            )  # fmt: skip
        return compare(signal, pair, SERVO, samples=samples, period_s=period_s, lags=_SERVO_LAGS)

    everything = list(range(q.shape[1]))
    found = follow("target", everything)
    struck = sorted({cause.channels[0] for cause in found.causes if cause.kind == "scale" and cause.channels})
    others = tuple(cause for cause in found.causes if not set(cause.channels) & set(struck))
    if not struck:
        return found
    # The load does not grow with a position that is read too large: only this form of the relation then fits. It is
    # asked of no other joints, since the measured load is noisy, and would make small scales of good ones.
    by_target, by_joints = follow("target", struck), follow("joints", struck)
    if {cause.kind for cause in by_joints.causes} != {"scale"} or by_joints.cost >= by_target.cost:
        return found
    return replace(found, causes=(*others, *(_renumbered(cause, struck) for cause in by_joints.causes)))


def _renumbered(cause: Cause, channels: list[int]) -> Cause:
    return replace(
        cause,
        channels=tuple(channels[i] for i in cause.channels),
        sources=tuple(channels[i] for i in cause.sources),
    )


def angular_velocity(flight: Flight, quat: Array, *, world: bool = False) -> Comparison | None:
    """Rotation over a window: of imu_ang_vel_b, which may be one in the `world`'s frame, and of `quat` (T, 4)."""
    window = _WINDOW_S["imu_ang_vel_b"]
    grid = _Grid.of(flight, window + 2 * flight.contract.control_period_s)
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
    return compare(
        "imu_ang_vel_b", Pair(x, rotation), ANG_VEL,
        samples=_independent(grid, window), period_s=flight.contract.control_period_s, lags=_LAGS,
    )  # fmt: skip


def linear_acceleration(flight: Flight, quat: Array, *, world: bool = False) -> Comparison | None:
    """imu_lin_acc_b, which may be one in the `world`'s frame, and what gravity alone would make it read."""
    window = _WINDOW_S["imu_lin_acc_b"]
    grid = _Grid.of(flight, window)
    if grid is None:
        return None
    measured = flight.state["imu_lin_acc_b"]
    up = G_M_S2 * in_body(np.broadcast_to([0.0, 0.0, 1.0], measured.shape), quat)
    return compare(
        "imu_lin_acc_b",
        Pair(
            grid.smooth(in_body(measured, quat) if world else measured, 0.0, window),
            lambda _lag_s: grid.smooth(up, 0.0, window),
        ),
        LIN_ACC,
        samples=_independent(grid, window),
        period_s=flight.contract.control_period_s,
    )


def _independent(grid: _Grid, window_s: float) -> float:
    return max(10.0, (grid.t[-1] - grid.t[0]) / window_s)


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
