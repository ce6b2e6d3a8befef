"""The filter as a function: what it promises of every tick."""

import math
from pathlib import Path

import numpy as np
import pytest

from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.checks import CHECKS, Cause, Severity, Target, ticks_to_trip
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.safety import filter_command
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.filter_bench import DT, G1, LEAP, OK, Bench, state


def test_a_good_tick_passes_unchanged() -> None:
    bench = Bench(LEAP)
    target = LEAP.default_pos + 0.01
    bench.tick(target=Target(target, "policy"))
    assert bench.outcome() == OK
    assert not bench.verdict.modified.any()
    np.testing.assert_array_equal(bench.command.position, target)
    np.testing.assert_array_equal(bench.command.kp, LEAP.kp)


def test_the_filter_is_pure() -> None:
    bench = Bench(G1)
    memory, seen, target = bench.memory, state(G1, 10.02), Target(G1.default_pos + 0.5, "policy")
    first = filter_command(seen, 0.0, target, G1, memory, 10.04)
    second = filter_command(seen, 0.0, target, G1, memory, 10.04)
    np.testing.assert_array_equal(first[0].position, second[0].position)
    assert first[2].counts == second[2].counts
    assert not memory.modifications.any()


def test_hold_commands_the_measured_pose() -> None:
    bench = Bench(LEAP)
    measured = LEAP.default_pos + 0.02
    bench.tick(joint_pos=measured[None])
    bench.tick(age_s=0.06, joint_pos=measured[None], target=Target(LEAP.default_pos + 1.0, "policy"))
    assert bench.outcome() == (Severity.HOLD, Cause.STATE_STALE)
    np.testing.assert_allclose(bench.command.position, measured)


def test_a_humanoid_never_holds() -> None:
    bench = Bench(G1)
    bench.tick(age_s=0.06)
    assert bench.outcome() == (Severity.DAMP, Cause.STATE_STALE)
    assert bench.damped


def test_stop_outranks_everything() -> None:
    bench = Bench(LEAP)
    bench.tick(stop=True, age_s=math.nan, joint_vel=np.full((1, 16), 99.0))
    assert bench.outcome() == (Severity.DAMP, Cause.OPERATOR_STOP)


def test_deadman() -> None:
    bench = Bench(LEAP)
    assert bench.tick(deadman_age_s=0.19).severity == Severity.OK
    bench.tick(deadman_age_s=0.21)
    assert bench.outcome() == (Severity.DAMP, Cause.DEADMAN_LOST)


def test_overruns() -> None:
    bench = Bench(LEAP)
    bench.tick()
    severities = [bench.tick(dt=1.6 * DT).severity for _ in range(6)]
    assert severities == [Severity.WARN, Severity.WARN, Severity.HOLD, Severity.HOLD, Severity.HOLD, Severity.DAMP]
    assert bench.tick().severity == Severity.OK
    bench.tick(dt=4.1 * DT)
    assert bench.outcome() == (Severity.HOLD, Cause.OVERRUN)


@pytest.mark.parametrize("jump_s", [-1.0, math.nan, math.inf, 1e12])
def test_a_clock_that_jumps(jump_s: float) -> None:
    bench = Bench(LEAP)
    bench.tick(dt=jump_s)
    assert bench.outcome() == (Severity.DAMP, Cause.CLOCK)
    assert math.isfinite(bench.command.stamp_s)


def test_how_many_ticks_a_check_takes() -> None:
    effort = next(c for c in CHECKS if c.cause == Cause.JOINT_EFFORT and c.severity == Severity.HOLD)
    assert ticks_to_trip(effort, LEAP) == 10  # 0.2 s of 20 ms
    slow = SafetyLimits.make(LEAP_HAND, TinyPolicy(LEAP_HAND).contract(), 0.05)
    assert ticks_to_trip(effort, slow) == 4
    assert ticks_to_trip(CHECKS[0], slow) == 1


def test_margin_is_the_least_or_the_causes_own() -> None:
    bench = Bench(LEAP)
    assert bench.tick(age_s=0.03).margin == pytest.approx(1 - 0.03 / 0.05)
    assert bench.tick(age_s=0.06).margin == pytest.approx(1 - 0.06 / 0.05)


def test_every_check_is_reached_by_some_test_of_the_filter() -> None:
    here = Path(__file__)
    text = "".join(
        p.read_text() for p in (*here.parent.glob("test_safety_*.py"), here.with_name("test_object_pose.py"))
    )
    assert {c.cause for c in CHECKS} == {c for c in Cause if c != Cause.NONE and f"Cause.{c.name}" in text}
