"""Latency: percentiles of the wall time of single actions, and the refusal."""

import time

import numpy as np
import pytest

from robot_rl.bundle.latency import Latency, measure_latency
from robot_rl.errors import BundleError


def test_percentiles_are_those_of_the_actions_after_the_warm_up():
    """The first ten take 50 ms and do not count; of the rest one in ten takes 20 ms and the others 2 ms."""
    seen = []

    class Policy:
        def run(self, row):
            seen.append(float(row["x"]))
            time.sleep(0.05 if len(seen) <= 10 else 0.02 if len(seen) % 10 == 0 else 0.002)

    latency = measure_latency(Policy(), {"x": np.arange(3.0)}, runs=50)  # type: ignore[arg-type]
    assert len(seen) == 60
    assert seen[:4] == [0, 1, 2, 0]
    assert 0.002 <= latency.p50_s < 0.02 <= latency.p99_s
    assert latency.p50_s < 0.01


def test_only_a_policy_faster_than_the_period_passes():
    Latency(0.001, 0.019).check(0.02)
    for slow in (0.02, 0.032, float("nan")):
        with pytest.raises(BundleError, match="control period is 20 ms"):
            Latency(0.001, slow).check(0.02)
