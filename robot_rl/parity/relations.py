"""What in a flight must equal what else, for every robot, whatever it does.

    joint_vel       integrated                        = change of joint_pos
    imu_ang_vel_b   integrated                        = rotation between two orientations
    imu_lin_acc_b   averaged                          = g times the upward direction in the body

Integrals are taken over windows: a derivative of a measured position would be mostly noise. A servo's law is another
relation (robot_rl.parity.servo).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_rl.parity.causes import ACCELERATIONS, RATES, Tolerance
from robot_rl.parity.compare import Comparison, compare
from robot_rl.parity.flight import Flight
from robot_rl.parity.pair import Pair, joined

Array = NDArray[np.float64]

G_M_S2 = 9.80665

JOINT_VEL = Tolerance(factor=1.2, offset=0.05, floor=0.005, units=RATES)
"""Offset and floor in rad of a window's travel: 0.25 rad/s."""
ANG_VEL = Tolerance(factor=1.2, offset=0.03, floor=0.01, units=RATES)
"""rad of a window's rotation: 0.1 rad/s."""
LIN_ACC = Tolerance(factor=3.0, offset=0.6, floor=0.3, units=ACCELERATIONS)
"""m/s². A base that swings is accelerated along with its tilt: no scale of one axis follows from that."""

_WINDOW_S = {"joint_vel": 0.2, "imu_ang_vel_b": 0.3, "imu_lin_acc_b": 0.3}
_SMOOTH_S = 0.05
_LAGS = (-1.5, -1.25, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_LEAST_S = 0.5
"""From shorter flights nothing is judged."""


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

    def change(self, values: Array, window_s: float, lag_s: float = 0.0) -> Array:
        """From start to end of a window centred `lag_s` before each time, both ends smoothed."""
        after, before = window_s / 2 - lag_s, -window_s / 2 - lag_s
        return self.smooth(values, after, _SMOOTH_S) - self.smooth(values, before, _SMOOTH_S)

    def independent(self, window_s: float) -> float:
        """How many windows of it do not overlap."""
        return max(10.0, (self.t[-1] - self.t[0]) / window_s)


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

        return Pair(
            grid.change(travel, window), lambda lag_s: grid.change(pos, window, lag_s), grid.independent(window)
        )

    return _compared("joint_vel", map(pair, flights), JOINT_VEL, period_s, _LAGS)


def _compared(
    signal: str, pairs: Iterable[Pair | None], tolerance: Tolerance, period_s: float, lags: Sequence[float] = (0.0,)
) -> Comparison | None:
    found = [pair for pair in pairs if pair is not None]
    return compare(signal, joined(found), tolerance, period_s=period_s, lags=lags) if found else None


def angular_velocity(flights: Sequence[Flight], quats: Sequence[Array], *, world: bool = False) -> Comparison | None:
    """Rotation over a window: of imu_ang_vel_b, which may be one in the `world`'s frame, and of each `quats` (T, 4)."""
    window, period_s = _WINDOW_S["imu_ang_vel_b"], flights[0].contract.control_period_s

    def pair(flight: Flight, quat: Array) -> Pair | None:
        grid = _Grid.of(flight, window + 2 * period_s)
        if grid is None:
            return None
        rate = flight.state["imu_ang_vel_b"]
        measured = _integral(flight.stamp_s, in_body(rate, quat) if world else rate)
        # Summed from each orientation to the next, which is what rates integrate to. The rotation from the first to the
        # last is something else: rocked about two axes at a time, a sound gyroscope seems to be a fifth too large.
        steps = rotation_vector(multiply(conjugate(quat[:-1]), quat[1:]))
        turned = np.concatenate((np.zeros((1, 3)), np.cumsum(steps, 0)))

        return Pair(
            grid.change(measured, window), lambda lag_s: grid.change(turned, window, lag_s), grid.independent(window)
        )

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


def rotation_vector(quat: Array) -> Array:
    """(T, 3) rad of rotations (T, 4), which need no unit norm."""
    quat = np.where(quat[:, :1] < 0, -quat, quat)
    length = np.linalg.norm(quat[:, 1:], axis=1, keepdims=True)
    angle = 2 * np.arctan2(length, quat[:, :1])
    return quat[:, 1:] * np.where(length > 1e-9, angle / np.maximum(length, 1e-9), 2.0)
