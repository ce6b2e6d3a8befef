"""How long a policy takes for one action, against the control period that it must hold."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.errors import BundleError

WARM_UP, RUNS = 10, 300


@dataclass(frozen=True)
class Latency:
    """Wall time of one action (batch 1, one thread) on the machine that measured."""

    p50_s: float
    p99_s: float

    def check(self, control_period_s: float) -> None:
        """Raise BundleError if one action in 100 takes longer than the control period."""
        if not self.p99_s < control_period_s:
            raise BundleError(
                f"the policy cannot hold its rate: one action in 100 takes {self.p99_s * 1e3:.3g} ms here (half of "
                f"them {self.p50_s * 1e3:.3g} ms) and the control period is {control_period_s * 1e3:g} ms. Use smaller "
                "networks, fewer levels or a longer period; if the machine is busy, measure again when it is idle"
            )


def measure_latency(policy: OnnxPolicy, rows: Mapping[str, NDArray[Any]], runs: int = RUNS) -> Latency:
    """Time `runs` actions, one at a time, on the named input rows (n, ...) in turn."""
    n = len(next(iter(rows.values())))
    seconds = np.empty(WARM_UP + runs)
    for i in range(len(seconds)):
        row = {name: value[i % n] for name, value in rows.items()}
        start = time.perf_counter()
        policy.run(row)
        seconds[i] = time.perf_counter() - start
    p50, p99 = np.percentile(seconds[WARM_UP:], [50, 99])
    return Latency(float(p50), float(p99))
