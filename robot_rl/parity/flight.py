"""A flight as arrays: what was measured, and what was commanded when. All that parity looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import STATE_FIELDS, Contract, JointCommand, NumpyState
from robot_rl.errors import ConfigError, LogError

if TYPE_CHECKING:
    from robot_rl.runtime.log_reader import Log
    from robot_rl.runtime.tick import Tick

Array = NDArray[np.float64]

COMMAND_FIELDS = ("position", "kp", "kd")
WIGGLE = "wiggle"
"""Mode of a flight that no controller flew."""


@dataclass(frozen=True)
class Flight:
    """T distinct measurements and C commands, each on the loop's clock; joints in contract order.

    Raises ConfigError where times do not increase or arrays differ in length.
    """

    contract: Contract
    stamp_s: Array
    """(T,) when each state was measured."""
    state: dict[str, Array]
    """Field of RobotState -> (T, size)."""
    command_s: Array
    """(C,) when each command was sent."""
    command: dict[str, Array]
    """One of COMMAND_FIELDS -> (C, n_joints)."""
    mode: NDArray[np.str_]
    """(C,) the controller's mode."""

    def __post_init__(self) -> None:
        for name, times, arrays in (("stamp_s", self.stamp_s, self.state), ("command_s", self.command_s, self.command)):
            if not (np.diff(times) > 0).all():
                raise ConfigError(f"flight: {name} must increase")
            wrong = [field for field, values in arrays.items() if len(values) != len(times)]
            if wrong:
                raise ConfigError(f"flight: {', '.join(wrong)} must have {len(times)} rows, as {name}")

    @staticmethod
    def of(contract: Contract, arrays: Mapping[str, Array], mode: NDArray[np.str_]) -> Flight:
        """From the arrays of `FlightRecorder.arrays`."""
        return Flight(
            contract=contract,
            stamp_s=arrays["stamp_s"],
            state={f: arrays[f] for f in STATE_FIELDS if f in arrays},
            command_s=arrays["command_s"],
            command={f: arrays[f] for f in COMMAND_FIELDS},
            mode=mode,
        )

    @property
    def joint_names(self) -> tuple[str, ...]:
        return self.contract.joint_names

    @property
    def period_s(self) -> float:
        """Median time between two measurements."""
        return float(np.median(np.diff(self.stamp_s)))

    def in_force(self, field: str, lag_s: float = 0.0) -> Array:
        """(T, n_joints) of the command that the servos had `lag_s` before each measurement; NaN before the first."""
        row = np.searchsorted(self.command_s, self.stamp_s - lag_s, side="right") - 1
        values = self.command[field][np.maximum(row, 0)]
        return np.where(row[:, None] >= 0, values, np.nan)

    def with_state(self, **changed: Array) -> Flight:
        return replace(self, state=self.state | changed)


class FlightRecorder:
    """Collects the ticks of a loop in memory; `flight` is what came of them. A recorder for robot_rl.runtime.loop."""

    def __init__(self) -> None:
        self._states: list[NumpyState] = []
        self._commands: list[tuple[float, JointCommand, str]] = []

    def record(self, tick: Tick, state: NumpyState | None, sent: JointCommand) -> None:
        self.take(tick.now_s, sent, state, tick.mode.value)

    def take(self, now_s: float, sent: JointCommand, state: NumpyState | None, mode: str = WIGGLE) -> None:
        """What was sent at `now_s`, and the newest measurement."""
        if state is not None and (not self._states or state.stamp_s[0] > self._states[-1].stamp_s[0]):
            self._states.append(state)
        if not self._commands or now_s > self._commands[-1][0]:
            self._commands.append((now_s, sent, mode))

    def arrays(self) -> dict[str, Array]:
        """stamp_s and command_s, and the fields of state and commands. Raises ConfigError if nothing was measured."""
        if not self._states:
            raise ConfigError("flight: nothing was measured")
        fields = [f for f in STATE_FIELDS if getattr(self._states[0], f) is not None]
        return {
            "stamp_s": np.array([float(s.stamp_s[0]) for s in self._states]),
            "command_s": np.array([t for t, _, _ in self._commands]),
            **{f: np.stack([np.asarray(getattr(s, f)[0], np.float64) for s in self._states]) for f in fields},
            **{f: np.stack([getattr(c, f) for _, c, _ in self._commands]) for f in COMMAND_FIELDS},
        }

    def flight(self, contract: Contract) -> Flight:
        """Raises ConfigError if nothing was measured."""
        return Flight.of(contract, self.arrays(), np.array([mode for _, _, mode in self._commands]))


def from_log(log: Log) -> Flight:
    """The flight that a log holds. Raises LogError for a log without contract, states or commands."""
    contract, states, commands = log.contract, log.messages["/state"], log.messages["/command"]
    if contract is None or not states or not commands:
        missing = [n for n, v in (("contract", contract), ("states", states), ("commands", commands)) if not v]
        raise LogError(f"the log has no {' and no '.join(missing)}: nothing to compare")
    stamps = log.column("/state", "stamp_s").reshape(len(states), -1)[:, 0].astype(np.float64)
    fields = {f: log.column("/state", f) for f in STATE_FIELDS}
    fields = {f: v.astype(np.float64) for f, v in fields.items() if v.ndim == 2 and np.isfinite(v).any()}
    finite = np.isfinite(stamps) & np.logical_and.reduce([np.isfinite(v).all(1) for v in fields.values()])
    rows = _increasing(stamps, finite)
    sent = _increasing(log.column("/command", "t_s").astype(np.float64), np.ones(len(commands), bool))
    modes = {message["tick"]: message["mode"] for message in log.messages["/mode"]}
    return Flight(
        contract=contract,
        stamp_s=stamps[rows],
        state={f: v[rows] for f, v in fields.items()},
        command_s=log.column("/command", "t_s").astype(np.float64)[sent],
        command={f: log.column("/command", f).astype(np.float64)[sent] for f in COMMAND_FIELDS},
        mode=np.array([modes.get(commands[i]["tick"], "") for i in sent]),
    )


def _increasing(times: Array, usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows whose time is later than those of all usable rows before: each measurement once."""
    latest = np.maximum.accumulate(np.where(usable, times, -np.inf))
    return np.flatnonzero(usable & (times > np.concatenate(([-np.inf], latest[:-1]))))
