"""The operator's command on its way to the policy: the newest usable one, in its bounds, and zero once too old."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import Command, TensorSpec


class CommandInput:
    """Of a policy whose contract has the command `spec`; None for a policy that takes none."""

    def __init__(self, spec: TensorSpec | None) -> None:
        self.spec = spec
        self.newest: Command | None = None
        """The newest usable command."""
        self._values: NDArray[np.float32] | None = None
        """Its values, in their bounds."""

    @property
    def missing(self) -> bool:
        """Whether the policy needs a command and none has come."""
        return self.spec is not None and self.newest is None

    @property
    def rests_at_zero(self) -> bool:
        """Whether zero asks for rest, as of velocities: it is what an operator who fell silent is taken to mean."""
        return self.spec is not None and self.spec.max_age_s is not None

    def take(self, command: Command | None) -> str:
        """Remember a command. Returns why it is of no use; empty if it is, or if there is none to take."""
        if command is None or command is self.newest or self.spec is None:
            return ""
        values = np.asarray(command.values)
        if values.shape != self.spec.shape or values.dtype.kind != "f" or not np.isfinite(values).all():
            return f"command ignored: {self.spec.name!r} must be {self.spec.shape} finite numbers, got {values!r}"
        low = -np.inf if self.spec.low is None else self.spec.low
        high = np.inf if self.spec.high is None else self.spec.high
        self.newest, self._values = command, np.clip(values.astype(np.float32), low, high)
        return ""

    def values(self, now_s: float) -> NDArray[np.float32] | None:
        """As the policy gets it at `now_s`; None where it takes none or none has come."""
        spec = self.spec
        if spec is None or self.newest is None:
            return None
        if spec.max_age_s is not None and not abs(now_s - self.newest.stamp_s) <= spec.max_age_s:
            return np.zeros(spec.shape, np.float32)
        return self._values
