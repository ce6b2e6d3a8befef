"""Figures of one run, computed from its log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_rl.errors import LogError
from robot_rl.runtime.log_messages import MARGINS, TOPICS
from robot_rl.runtime.log_reader import Log
from robot_rl.runtime.modes import STIFF_MODES, Mode

Array = NDArray[np.float64]

_DAMPED = (Mode.DAMP.value, Mode.FAULT.value)
_MODIFIED = "modified_"
_LARGEST = 1e10


@dataclass(frozen=True)
class Change:
    """The mode, its cause or the operator's request changed."""

    time_s: float
    what: str
    cause: str
    note: str
    trip: bool
    """Damping began, and nobody had asked for it."""


@dataclass(frozen=True)
class Tracking:
    """How the joints followed, while position was commanded."""

    joints: tuple[str, ...]
    time_s: Array
    """(rows,)."""
    wanted: Array
    """(rows, n_joints) rad sent, NaN where none was."""
    measured: Array
    """(rows, n_joints) rad, in the state that the command was computed from."""

    @property
    def rms(self) -> Array:
        """(n_joints,) rad; NaN for a joint of which nothing is known."""
        error = self.wanted - self.measured
        count = np.isfinite(error).sum(0)
        return np.sqrt(np.nansum(error**2, 0) / np.where(count, count, np.nan))

    @property
    def largest(self) -> Array:
        """(n_joints,) rad."""
        error = np.abs(self.wanted - self.measured)
        return np.where(np.isfinite(error).any(0), np.nanmax(np.where(np.isfinite(error), error, -1.0), 0), np.nan)


@dataclass(frozen=True)
class FlightData:
    """Times are s since the first tick."""

    time_s: Array
    """(ticks,)."""
    modes: tuple[str, ...]
    margin: Array
    """(ticks,) as the filter reported it: of the cause, or else the least."""
    margins: dict[str, Array]
    """What is measured -> (ticks,); only what applied in some tick, the tightest first."""
    timing: dict[str, Array]
    """age_s, policy_s, filter_s, tick_s -> (ticks,) s."""
    interval_s: Array
    """(ticks - 1,) between ticks."""
    modified: dict[str, Array]
    """Reason -> (n_joints,) ticks in which it changed a joint's target."""
    modified_ticks: dict[str, int]
    """Reason -> ticks in which it changed any."""
    changes: tuple[Change, ...]
    tracking: Tracking | None
    dropped: int

    def share(self, mode: str) -> float:
        """Of the ticks."""
        return sum(m == mode for m in self.modes) / len(self.modes)


def flight_data(log: Log) -> FlightData:
    """Raises LogError for a log without ticks, or one whose messages differ in length."""
    ticks = log.messages["/mode"]
    if not ticks or log.contract is None:
        raise LogError("the log holds no tick")
    at = log.column("/mode", "t_s")
    if not np.isfinite(_sane(at)).all() or (np.diff(at) < 0).any():
        raise LogError("the log's clock shows no time, or runs backwards")
    start_s = float(at[0])
    margins = {name: log.column("/margins", name) for name in MARGINS}
    applied = {name: values for name, values in margins.items() if len(values) and np.isfinite(values).any()}
    reasons = [name.removeprefix(_MODIFIED) for name in TOPICS["/mode"] if name.startswith(_MODIFIED)]
    flags = {reason: np.atleast_2d(log.column("/mode", _MODIFIED + reason)).astype(bool) for reason in reasons}
    return FlightData(
        time_s=at - start_s,
        modes=tuple(m["mode"] for m in ticks),
        margin=log.column("/mode", "margin"),
        margins=dict(sorted(applied.items(), key=lambda item: float(np.nanmin(item[1])))),
        timing={name: _sane(log.column("/timing", name)) for name in TOPICS["/timing"]},
        interval_s=np.diff(at),
        modified={reason: values.sum(0) for reason, values in flags.items()},
        modified_ticks={reason: int(values.any(1).sum()) for reason, values in flags.items()},
        changes=tuple(_changes(log, start_s)),
        tracking=_tracking(log, start_s, log.contract.joint_names),
        dropped=log.dropped,
    )


def _changes(log: Log, start_s: float) -> list[Change]:
    changes, mode, cause, request = [], "", "", ""
    asked = {message["tick"]: message for message in log.messages["/operator"]}
    for message in log.messages["/mode"]:
        said = asked.get(message["tick"])
        now = "" if said is None else "estop" if said["stop"] else said["request"]
        time_s = message["t_s"] - start_s
        if now and now != request:
            changes.append(Change(time_s, f"operator: {now}", "", "", trip=False))
        request = now
        if (message["mode"], message["cause"]) != (mode, cause):
            damped = message["mode"] in _DAMPED and mode not in _DAMPED and bool(mode)
            trip = damped and message["cause"] not in ("none", "stopped")
            what = message["mode"] if message["mode"] == mode else f"{mode or 'start'} > {message['mode']}"
            changes.append(Change(time_s, what, message["cause"], message["note"], trip))
            mode, cause = message["mode"], message["cause"]
    return changes


def _tracking(log: Log, start_s: float, joints: tuple[str, ...]) -> Tracking | None:
    states = {message["tick"]: message["joint_pos"] for message in log.messages["/state"]}
    stiff = {m["tick"] for m in log.messages["/mode"] if m["mode"] in {mode.value for mode in STIFF_MODES}}
    rows = [
        (m["t_s"] - start_s, np.where(m["kp"] > 0, m["position"], np.nan), states[m["tick"]])
        for m in log.messages["/command"]
        if m["tick"] in stiff
        and m["tick"] in states
        and m["kp"].size == m["position"].size == states[m["tick"]].size == len(joints)
    ]
    if not rows:
        return None
    time_s, wanted, measured = (np.array(column) for column in zip(*rows, strict=True))
    return Tracking(joints, time_s, _sane(wanted), _sane(measured))


def _sane(values: Array) -> Array:
    """NaN for what is no quantity of a robot, infinite included: an axis cannot show it."""
    return np.where(np.abs(values) < _LARGEST, values, np.nan)
