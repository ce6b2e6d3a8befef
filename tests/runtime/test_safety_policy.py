"""What the policy and its operator say: each check at its threshold."""

import numpy as np
import pytest

from robot_rl.runtime.checks import Cause, Severity, Target
from robot_rl.runtime.safety import MODIFICATIONS
from robot_rl.testing.filter_bench import LEAP, Bench


def test_observations_never_seen_in_training() -> None:
    bench = Bench(LEAP)
    seen = []
    # More bad ticks than good ones, never many in a row: 2 s is a surplus of 100 ticks.
    for k in range(400):
        z = 9.0 if k % 3 == 2 else 11.0
        seen.append(bench.tick(target=Target(LEAP.default_pos, "policy", obs_z=z)).severity)
        if seen[-1] == Severity.HOLD:
            break
    assert seen[:3] == [Severity.WARN, Severity.WARN, Severity.OK]
    assert bench.outcome() == (Severity.HOLD, Cause.OBS_OUT_OF_DISTRIBUTION)
    # Two of three are bad, a surplus of one in three ticks: 1, 2, 1, 2, 3, 2, ... reaches 100 at tick 3 * 98 + 2.
    assert len(seen) == 296
    balanced = Bench(LEAP)
    assert all(
        balanced.tick(target=Target(LEAP.default_pos, "policy", obs_z=z)).severity < Severity.HOLD
        for z in [11.0, 9.0] * 200
    )


def test_a_command_that_expired_is_a_warning() -> None:
    # The tiny policy's command may be 0.2 s old.
    bench = Bench(LEAP)
    assert bench.tick(command_age_s=0.19).severity == Severity.OK
    bench.tick(command_age_s=0.21)
    assert bench.outcome() == (Severity.WARN, Cause.COMMAND_EXPIRED)
    assert bench.tick(command_age_s=None).severity == Severity.OK


@pytest.mark.parametrize("bad", [np.full(16, np.nan), np.full(16, np.inf), np.zeros(15), np.array(["x"] * 16)])
def test_a_policy_that_says_nonsense_is_bridged_once_then_held(bad: np.ndarray) -> None:
    bench = Bench(LEAP)
    bench.tick(target=Target(LEAP.default_pos + 0.01, "policy"))
    before = bench.command.position
    assert bench.tick(target=Target(bad, "policy")).severity == Severity.OK
    np.testing.assert_array_equal(bench.command.position, before)
    assert bench.verdict.modified[MODIFICATIONS.index("not_finite")].all()
    # The same answer, still in use at a faster loop's next tick, is not a second one.
    assert bench.tick(target=Target(bad, "policy", fresh=False)).severity == Severity.OK
    bench.tick(target=Target(bad, "policy"))
    assert bench.outcome() == (Severity.HOLD, Cause.POLICY_INVALID)


def test_a_policy_that_fails_or_falls_silent() -> None:
    bench = Bench(LEAP)
    bench.tick(target=Target(LEAP.default_pos, "policy", failed=True))
    assert bench.outcome() == (Severity.HOLD, Cause.POLICY_ERROR)
    # The contract's control period is 0.05 s.
    assert bench.tick(target=Target(LEAP.default_pos, "policy", age_s=0.099)).severity == Severity.OK
    bench.tick(target=Target(LEAP.default_pos, "policy", age_s=0.101))
    assert bench.outcome() == (Severity.HOLD, Cause.POLICY_STALE)
