"""Servos against their control law τ = kp (target - q) - kd dq: where each goes, and where it was told to go.

The law needs no model of the load, and holds in the air, on the ground and in a fall, where a robot measures its joint
efforts. A joint may have been given another one's command, and with it that one's gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot_rl.parity.causes import ANGLES, Tolerance, price
from robot_rl.parity.compare import Comparison, compare
from robot_rl.parity.flight import Flight
from robot_rl.parity.pair import Pair, joined
from robot_rl.parity.servo_law import Law, cheapest

Array = NDArray[np.float64]

SERVO = Tolerance(factor=1.35, offset=0.09, floor=0.015, units=ANGLES)
"""rad. Encoders are off by up to 0.02, and motors and their measured torques by 20 %: of a tracking error of 0.3 that
leaves 0.06."""

_LAGS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_FAST_RAD = 0.03
"""Change of a target in a control period from which a lag shows, beside what a slow ramp makes of other errors."""
_SATURATED = 0.8
"""Share of the effort limit from which a servo's torque may be no longer what it would like."""
_INDEPENDENT_S, _FEW = 0.05, 40
"""Errors of a servo's model last about so long. In fewer rows, noise is what there is most of, and each row counts."""
_MOST_ROWS = 600
"""Of a flight's rows, evenly chosen: every pair of joints is compared."""
_LEAST_HELD_S = 0.1
"""From less time under position control no lag is judged."""
_LATENCY = 0.25
"""Share of a control period after which a command is in force, where nothing is late."""
_SOFT = 1e-3
"""N m/rad, for where there is no servo; such rows have no weight."""
_EFFORT_ERROR = 0.1
"""Share of a measured effort by which it may be wrong."""
_DOUBT = 3.0
"""Of a servo: below the difference in price of a sign, which must have the right size by chance, to other mistakes."""


def servo(flights: Sequence[Flight]) -> Comparison | None:
    """Where each servo goes, and the target in force; None where no joint was held by its servo.

    Causes name the signal `target`, or `joints` where positions, and not targets, explain what is seen.
    """
    found = [held for flight in flights if (held := _Held.of(flight)) is not None]
    if not found:
        return None
    lags = _LAGS if any(held.long for held in found) else (0.0,)
    period_s = flights[0].contract.control_period_s
    together = joined([held.targets() for held in found])
    first = compare("target", together, SERVO, period_s=period_s, lags=lags, doubt=_DOUBT)
    # What strikes several joints is none of one joint's mistakes.
    shared = {i for cause in first.causes if len(cause.channels) > 1 for i in cause.channels}
    unit = next((cause.value for cause in first.causes if cause.kind == "unit"), 1.0)
    causes = [cause for cause in first.causes if len(cause.channels) != 1]
    for i in range(len(first.error)):
        own = [cause for cause in first.causes if cause.channels == (i,)]
        law = Law.joined([held.law(i, first.lag_s, unit) for held in found])
        causes += own if i in shared else cheapest(i, own, law, SERVO, _DOUBT)
    return replace(first, causes=tuple(causes), cost=first.cost + price(causes) - price(first.causes))


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
        rows, long = now & held(_LAGS[-1]), True
        if rows.sum() * flight.period_s < _LEAST_HELD_S:
            rows, long = now & held(_LATENCY), False
        if not rows.any():
            return None
        return cls(flight, np.flatnonzero(rows)[:: max(1, int(rows.sum()) // _MOST_ROWS)], long)

    def targets(self) -> Pair:
        """Where the servos go by their law, and their targets."""
        q, dq, effort = (self._measured(name) for name in ("pos", "vel", "effort"))
        kp, kd = (self._in_force(name) for name in ("kp", "kd"))
        # [j, :, i]: joint i as if it had been given the command, and with it the gains, of joint j.
        stiffness = np.where(kp.T[:, :, None] > 0, kp.T[:, :, None], np.maximum(kp, _SOFT))
        seen, reach = q[None] + kd.T[:, :, None] / stiffness * dq[None], self._limit / stiffness
        period_s = self.flight.contract.control_period_s
        moving = np.abs(self._in_force("position") - self._in_force("position", period_s)) > _FAST_RAD
        return Pair(
            seen + effort / stiffness, lambda lag_s: self._in_force("position", lag_s), self.samples, self._trust,
            self._free, seen - reach, seen + reach, np.any(moving, axis=1), before_x=True,
        )  # fmt: skip

    def law(self, i: int, lag_s: float, unit: float) -> Law:
        """The terms of joint i's law, over its gain, if targets come `unit` times too large."""
        target = unit * self._in_force("position", lag_s)[:, i]
        kp, kd = (self._in_force(name)[:, i] for name in ("kp", "kd"))
        q, dq, effort = (self._measured(name)[:, i] for name in ("pos", "vel", "effort"))
        weight = np.where(kp > 0, self._trust[:, i] * self._free[:, i], 0.0) * self.samples / len(kp)
        kp = np.maximum(kp, _SOFT)
        noise = kd / kp * _noise(self.flight.state["joint_vel"])[i]
        terms = np.stack([target, -(q + kd / kp * dq), np.ones_like(q), -effort / kp])
        return Law.of(terms, noise, weight / SERVO.floor**2)

    @property
    def samples(self) -> float:
        spacing_s = float(np.median(np.diff(self.flight.stamp_s[self.rows]))) if len(self.rows) > 1 else 0.0
        return min(float(len(self.rows)), max(_FEW, len(self.rows) * spacing_s / _INDEPENDENT_S))

    @property
    def _limit(self) -> Array:
        return np.array([joint.effort_limit_nm for joint in self.flight.contract.joints])

    @property
    def _trust(self) -> Array:
        """Weight of each row by what noise makes of it."""
        dq_noise, effort_noise = (_noise(self.flight.state[f"joint_{name}"]) for name in ("vel", "effort"))
        kp, variance = self._in_force("kp"), (_EFFORT_ERROR * self._measured("effort")) ** 2 + effort_noise**2
        variance += (self._in_force("kd") * dq_noise) ** 2
        return kp**2 / (kp**2 + variance / SERVO.floor**2)

    @property
    def _free(self) -> NDArray[np.bool_]:
        """Where a servo's torque is not at its limit."""
        return np.abs(self._measured("effort")) < _SATURATED * self._limit

    def _measured(self, name: str) -> Array:
        return self.flight.state[f"joint_{name}"][self.rows]

    def _in_force(self, name: str, lag_s: float = 0.0) -> Array:
        return self.flight.in_force(name, lag_s)[self.rows]


def _noise(values: Array) -> Array:
    """(n,) standard deviation of what changes from row to row as if nothing had been there before."""
    bends = values[2:] - 2 * values[1:-1] + values[:-2]
    return 1.48 / np.sqrt(6) * np.median(np.abs(bends), axis=0) if len(bends) else np.zeros(values.shape[1])
