"""Stops a run whose learner diverges, when it happens, and leaves behind what it takes to see why.

    divergence/report.json            the cause; the values of the last updates; norms of the batch and of every tensor
                                      of the learner: parameters, targets, and Adam's running means of the gradients
               batch.safetensors      the batch of the update at fault

Updates are looked at once per step of the environments, not one by one: on a GPU a look waits for all that is under
way, and so does the next action. Their values and batches are kept until then, so that the first bad one is known.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robot_rl.errors import TrainingError
from robot_rl.replay.ring_buffer import Batch
from robot_rl.training.files import write_json, write_tensors

VALUES = ("q", "value", "target", "return_std")
"""Metrics that are returns: of these, how large they can be is known."""
TOO_LARGE = 1000.0
"""How many times larger than the rewards allow is divergence. Overestimates of a healthy critic, and the entropy bonus
of an untrained policy, stay below it."""
HISTORY = 100
"""Updates whose values are reported."""

State = Callable[[], Mapping[str, Tensor]]


class Watch:
    """Looks at what updates return: `names`, the returns among them discounted by `gamma`.

    `state` gives the learner's tensors and `largest_reward` the largest |reward| in the replay; both are asked for only
    when something looks wrong.
    """

    def __init__(
        self, run_dir: Path, names: tuple[str, ...], gamma: float, state: State, largest_reward: Callable[[], float]
    ) -> None:
        self.run_dir, self.names, self.gamma = run_dir, names, gamma
        self._state, self._largest_reward = state, largest_reward
        self._limit = self._value_limit(0.0)
        self._pending: list[tuple[Batch, Tensor]] = []
        self._last: Batch | None = None
        self._history: deque[list[float]] = deque(maxlen=HISTORY)

    def add(self, batch: Batch, values: Tensor) -> None:
        """Take note of an update and what it returned, (len(names),)."""
        self._pending.append((batch, values))

    def check(self, updates: int) -> None:
        """Look at the updates noted since the last look; `updates` is the number of the newest.

        Raises TrainingError, after writing the report, for values that are not finite or returns far beyond what the
        rewards allow.
        """
        if not self._pending:
            return
        rows = torch.stack([values for _, values in self._pending]).tolist()
        first = updates - len(rows) + 1
        for i, row in enumerate(rows):
            self._history.append(row)
            self._last = self._pending[i][0]
            if cause := self._cause(row):
                self._fail(cause, first + i, later=len(rows) - 1 - i)
        self._pending.clear()

    def check_state(self, updates: int) -> None:
        """Raise TrainingError, after writing the report, for a learner that holds what is not finite: an update may
        ruin the parameters after its losses were computed, and that must not go into a checkpoint."""
        bad = [name for name, value in self._state().items() if not value.isfinite().all()]
        if bad:
            self._fail(f"{_list(bad)} not finite", updates, later=0)

    def _cause(self, row: list[float]) -> str | None:
        """What is wrong with an update's values, if anything."""
        values = dict(zip(self.names, row, strict=True))
        if bad := {name: v for name, v in values.items() if not math.isfinite(v)}:
            return ", ".join(f"{name} is {v}" for name, v in bad.items())
        name, largest = max(
            ((n, v) for n, v in values.items() if n in VALUES), key=lambda x: abs(x[1]), default=("", 0)
        )
        if abs(largest) <= self._limit:
            return None
        rewards = [batch.reward.abs().max().item() for batch, _ in self._pending]
        self._limit = max(self._limit, self._value_limit(max(self._largest_reward(), *rewards)))
        if abs(largest) <= self._limit:
            return None
        return (
            f"{name} is {largest:.3g}, and rewards of this size, discounted by {self.gamma:g}, cannot add up to more "
            f"than {self._limit / TOO_LARGE:.3g}"
        )

    def _value_limit(self, largest_reward: float) -> float:
        # The 1 leaves room for entropy bonuses where rewards are small, or none was seen yet.
        return TOO_LARGE * (1 + largest_reward) / (1 - self.gamma) if self.gamma < 1 else math.inf

    def _fail(self, cause: str, update: int, later: int) -> None:
        folder = self.run_dir / "divergence"
        state = {name: _summary(value) for name, value in self._state().items() if value.is_floating_point()}
        batch = {} if self._last is None else _tensors(self._last)
        report = {
            "cause": cause,
            "update": update,
            "updates_made_since": later,
            "values": [_json(dict(zip(self.names, row, strict=True))) for row in self._history],
            "largest_reward": self._largest_reward(),
            "batch": {name: _summary(value) for name, value in batch.items()},
            "state": state,
        }
        first_bad = [name for name, s in (report["batch"] | state).items() if s["not_finite"]]
        ruined = f"; {_list(first_bad)} not finite" if first_bad else "; the batch and the networks are all finite"
        try:
            folder.mkdir(exist_ok=True)
            write_tensors(folder / "batch.safetensors", batch)
            write_json(folder / "report.json", report)
            where = f"batch and norms are in {folder}"
        except OSError as error:  # a full disk must not hide the cause
            where = f"its report could not be written: {error}"
        raise TrainingError(
            f"{cause} at update {update}{'' if 'not finite' in cause else ruined}; {where}; the checkpoints are from "
            "before. Usual causes: learning_rate too high, unscaled rewards"
        )


def _tensors(batch: Batch) -> dict[str, Tensor]:
    return {f.name: value.clone() for f in fields(batch) if (value := getattr(batch, f.name)) is not None}


def _summary(value: Tensor) -> dict[str, Any]:
    """Norm and largest magnitude of the finite entries, and how many are not finite."""
    finite = value.isfinite()
    kept = torch.where(finite, value, 0).double()
    largest = kept.abs().max().item() if kept.numel() else 0.0
    return {"norm": kept.norm().item(), "largest": largest, "not_finite": int((~finite).sum())}


def _json(values: dict[str, float]) -> dict[str, float | str]:
    """JSON knows no NaN and no infinity."""
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}


def _list(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"
