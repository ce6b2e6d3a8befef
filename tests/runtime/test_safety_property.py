"""Anything at all as input."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.runtime.checks import Severity, Target
from robot_rl.runtime.interface import Health
from robot_rl.runtime.safety import MODIFICATIONS, SafetyMemory, Verdict, filter_command
from robot_rl.testing.fakes import check_command
from robot_rl.testing.filter_bench import DT, G1, LEAP, state

ANY = st.floats(width=64) | st.sampled_from([math.nan, math.inf, -math.inf, 5e-324, -5e-324, 1.8e308, 0.0, -0.0, 1.0])


def vector(n: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(ANY, min_size=n, max_size=n).map(np.array)


@st.composite
def ticks(draw, robot: RobotSpec):
    """A few ticks, each with sane fields or arbitrary ones."""
    limits = G1 if robot is UNITREE_G1 else LEAP
    n = limits.n_joints
    result = []
    for _ in range(draw(st.integers(1, 4))):
        fields = {}
        for name, size in (
            ("joint_pos", n),
            ("joint_vel", n),
            ("imu_quat_wxyz", 4),
            ("imu_ang_vel_b", 3),
            ("joint_effort", n),
        ):
            if (name in limits.state_fields or name == "joint_effort") and draw(st.booleans()):
                fields[name] = draw(vector(size))[None]
        target = None
        if draw(st.integers(0, 4)):
            target = Target(
                position=draw(vector(draw(st.sampled_from([n, n, n, 0, n + 1])))),
                kind=draw(st.sampled_from(["policy", "stand", "hold"])),
                stiffness=draw(ANY),
                blend=draw(ANY),
                blend_from=draw(st.none() | vector(n)),
                age_s=draw(ANY),
                fresh=draw(st.booleans()),
                failed=draw(st.booleans()),
                base=draw(st.none() | vector(n)),
                obs_z=draw(st.none() | ANY),
            )
        sane_time = draw(st.booleans())
        flags = {"stop": draw(st.booleans()), "deadman_age_s": draw(st.none() | ANY)}
        flags["command_age_s"] = draw(st.none() | ANY)
        if draw(st.booleans()):
            flags["health"] = Health(draw(ANY), draw(vector(n)), draw(vector(n)), draw(ANY), draw(vector(n)), 3)
        result.append((fields, draw(ANY), draw(ANY), target, sane_time, flags))
    return limits, result


@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_comes_in_what_goes_out_is_finite_and_inside_limits(robot: RobotSpec, data: st.DataObject) -> None:
    limits, steps = data.draw(ticks(robot))
    memory = SafetyMemory.start(limits)
    t, last = 10.0, None
    # One sane tick first, so that position commands are possible at all.
    _, _, memory = filter_command(state(limits, t), 0.0, None, limits, memory, t)
    for fields, age_s, now_s, target, sane_time, flags in steps:
        t += DT
        now = t if sane_time else now_s
        seen = dataclasses.replace(state(limits, now - age_s), **fields)
        with np.errstate(all="ignore"):
            command, verdict, memory = filter_command(
                seen, 0.0 if sane_time else age_s, target, limits, memory, now, **flags
            )
        check_command(command, robot)
        assert math.isfinite(command.stamp_s)
        assert math.isfinite(command.expires_s)
        assert isinstance(verdict, Verdict)
        assert math.isfinite(verdict.margin)
        stiff = (command.kp > 0).any()
        if stiff:
            assert (command.position >= limits.soft_lower).all()
            assert (command.position <= limits.soft_upper).all()
        if flags["stop"] or verdict.severity == Severity.DAMP or target is None:
            assert not stiff
            np.testing.assert_array_equal(command.kd, limits.damping_kd)
        if stiff and last is not None and target is not None and target.blend >= 1.0:
            # A joint that must brake may be told to within one tick; it is told nothing else faster than its rate.
            braked = verdict.modified[MODIFICATIONS.index("braking")]
            assert (braked | (np.abs(memory.reference - last) <= limits.max_step * (1 + 1e-9) + 1e-12)).all()
        last = memory.reference if stiff else None
