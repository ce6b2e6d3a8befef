"""The flight log of `deploy --record` and of the ROS node (robot_rl/runtime/log_messages.py) as transitions.

One transition is one evaluation of the policy in RUN and what came of it, up to the next evaluation:

    obs, next_obs     as the policy's own graph computed them from the raw inputs
    action            what was executed: the action that asks for the last joint target sent before the next evaluation,
                      so after safety filter and driver. This is what caused next_obs, and what a learner needs
    action_proposed   what the policy said
    time_s            when the policy was evaluated

Targets become actions by the contract's action specification. An executed target that no action in [-1, 1] asks for,
as while the soft start leads from the pose of the robot to the policy's, makes no transition.

A log knows neither reward nor why a task ends. Reward is NaN, and every episode ends truncated: where RUN ended,
evaluations are missing, or a row was left out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robot_rl.contract import Contract
from robot_rl.data.dataset import Dataset, as_batch, unit_range
from robot_rl.errors import ConfigError
from robot_rl.runtime.log_reader import Log, read_log

_LATE = 1.5
"""Control periods between two evaluations from which one of them is missing."""
_TOLERANCE = 1e-3
"""How far beyond [-1, 1] an action may come out: targets are rounded to float32 on their way."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Row:
    obs: Array
    action: Array
    proposed: Array
    next_obs: Array
    time_s: float
    goes_on: bool
    """The row before this one led here."""


def read(path: Path) -> Dataset:
    """Raises ConfigError for a file that is no log of ours, or that holds no two evaluations of a policy in RUN."""
    try:
        log = read_log(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    contract = log.contract
    if contract is None:
        raise ConfigError(f"{path} has no contract: it was not recorded by robot-rl")
    rows, left_out = _rows(log, contract)
    if not rows:
        raise ConfigError(f"{path} has no two consecutive evaluations of a policy in mode run")
    ends = np.array([not row.goes_on for row in rows[1:]] + [True])
    zero = np.zeros(len(rows))
    proposed = np.stack([row.proposed for row in rows]) if all(row.proposed.size for row in rows) else None
    unit = unit_range(len(contract.joints))
    notes = ["reward is not in a log: it is NaN", *(f"{n} evaluations left out: {why}" for why, n in left_out.items())]
    if not log.complete:
        notes.append("the log has no end: whoever wrote it was killed, and the last moments are missing")
    notes += log.damage
    return Dataset(
        as_batch(
            np.stack([row.obs for row in rows]),
            unit.to_unit(np.stack([row.action for row in rows]).clip(-1, 1), str(path)),
            zero * np.nan, zero, ends, np.stack([row.next_obs for row in rows]),
        ),
        action_proposed=None if proposed is None else unit.to_unit(proposed.clip(-1, 1), str(path)),
        time_s=torch.tensor([row.time_s for row in rows], dtype=torch.float64),
        about={
            "source": path.name, "robot": contract.robot, "contract": contract.digest(),
            "fps": f"{1 / contract.control_period_s:.10g}",
        },
        notes=tuple(notes),
    )  # fmt: skip


def _rows(log: Log, contract: Contract) -> tuple[list[_Row], Counter[str]]:
    """Transitions in order, and how many evaluations led to none, by cause."""
    actions, modes, commands, states = (log.messages[topic] for topic in ("/action", "/mode", "/command", "/state"))
    mode_t, command_t, state_t = (log.column(topic, "t_s") for topic in ("/mode", "/command", "/state"))
    spec = contract.action
    scale, offset = np.array(spec.scale_rad), np.array(spec.offset_rad)
    n, dim = len(scale), len(actions[0]["obs"]) if actions else 0
    rows: list[_Row] = []
    left_out: Counter[str] = Counter()
    reference: Array | None = None
    """Where the last target was when the policy took over or was last evaluated; None: it has just taken over."""
    goes_on = False
    for this, following in pairwise(actions):
        start_s, end_s = float(this["t_s"]), float(following["t_s"])
        if reference is None:
            reference = np.clip(_at(states, state_t, start_s, "joint_pos", n), spec.low_rad, spec.high_rad)
        between = slice(*np.searchsorted(mode_t, (start_s, end_s)))
        ran = all(message["mode"] == "run" for message in modes[between])
        sent = commands[slice(*np.searchsorted(command_t, (start_s, end_s)))]
        target = _numbers(sent[-1]["position"] if sent else (), n)
        base = reference if spec.kind == "position_delta" else offset
        executed = (target - base) / scale
        obs, next_obs = (_numbers(message["obs"], dim) for message in (this, following))
        proposed = _numbers(this["action"], n if len(this["action"]) else 0)
        cause = ""
        if not ran or end_s - start_s > _LATE * contract.control_period_s:
            cause = "the last one before RUN ended" if not ran else "the next one is missing"
        elif not all(np.isfinite(values).all() for values in (obs, proposed, next_obs, executed)):
            cause = "a value is not finite"
        elif (np.abs(executed) > 1 + _TOLERANCE).any():
            cause = "no action in [-1, 1] asks for the target that was executed"
        if cause:
            left_out[cause] += 1
        else:
            rows.append(_Row(obs, executed, proposed, next_obs, start_s, goes_on))
        goes_on = not cause
        # Where commands are missing, so is the one from which the next small step is taken.
        known = bool(sent) and end_s - float(sent[-1]["t_s"]) <= _LATE * contract.control_period_s
        reference = (target if known else np.full(n, np.nan)) if ran else None
    return rows, left_out


def _numbers(values: Any, size: int) -> Array:
    """NaN where there are not `size` of them: a log may be damaged, or be of a robot that was."""
    array = np.asarray(values, np.float64)
    return array if array.shape == (size,) else np.full(size, np.nan)


def _at(messages: list[dict[str, Any]], times: Array, time_s: float, name: str, size: int) -> Array:
    """A field of the message of that tick."""
    index = min(int(np.searchsorted(times, time_s)), len(messages) - 1)
    return _numbers(messages[index][name] if messages else (), size)
