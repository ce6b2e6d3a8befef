import dataclasses

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.runtime.limits import SafetyLimits, apply_overrides, tighten
from robot_rl.testing.bundles import TinyPolicy

CONTRACT = TinyPolicy(LEAP_HAND).contract()


def test_bounds_by_hand() -> None:
    limits = SafetyLimits.make(LEAP_HAND, CONTRACT, 0.01)
    # if_mcp: [-0.314, 2.23] rad, range 2.544, soft margin 5 %.
    assert limits.soft_lower[0] == pytest.approx(-0.314 + 0.05 * 2.544)
    assert limits.soft_upper[0] == pytest.approx(2.23 - 0.05 * 2.544)
    # Half of 103 rpm for 10 ms.
    assert limits.max_step[0] == pytest.approx(103 * 2 * np.pi / 60 / 2 * 0.01)
    assert limits.state_fields == ("joint_pos", "joint_vel")


def test_imu_is_needed_where_a_threshold_reads_it() -> None:
    contract = TinyPolicy(UNITREE_G1, control_period_s=0.02).contract()
    limits = SafetyLimits.make(UNITREE_G1, contract, 0.02)
    assert {"imu_quat_wxyz", "imu_ang_vel_b"} < set(limits.state_fields)
    assert limits.state_low.size == 2 * 29 + 4 + 3


def test_the_narrower_limit_holds() -> None:
    joints = (dataclasses.replace(CONTRACT.joints[0], upper_rad=1.0), *CONTRACT.joints[1:])
    limits = SafetyLimits.make(LEAP_HAND, dataclasses.replace(CONTRACT, joints=joints), 0.05)
    assert limits.upper[0] == 1.0
    assert limits.upper[1] == LEAP_HAND.joints[1].upper_rad


def test_a_loop_that_is_too_slow_for_its_commands() -> None:
    with pytest.raises(ConfigError, match=r"loop period 0.06 s is too slow: a command lives 0.1 s"):
        SafetyLimits.make(LEAP_HAND, CONTRACT, 0.06)


def test_a_default_pose_outside_the_soft_limits() -> None:
    joints = (dataclasses.replace(CONTRACT.joints[0], default_pos_rad=-0.3), *CONTRACT.joints[1:])
    with pytest.raises(ConfigError, match="default pose is outside the soft limits: if_mcp"):
        SafetyLimits.make(LEAP_HAND, dataclasses.replace(CONTRACT, joints=joints), 0.05)


@pytest.mark.parametrize(
    ("field", "stricter", "wider"),
    [
        ("state_hold_s", 0.04, 0.06),
        ("soft_margin", 0.1, 0.01),
        ("hard_margin_rad", 0.01, 0.05),
        ("joint_vel_at_rest_rad_s", 0.01, 0.05),
        ("tilt_trip_rad", 0.8, 1.2),
        ("base_ang_vel_trip_rad_s", 5.0, None),
        ("target_rate_limit_rad_s", (1.0,) * 29, (100.0,) * 29),
        ("joint_vel_trip_rad_s", (1.0,) * 29, (1.0,) * 28),
        ("stand_duration_s", 5.0, 1.0),
    ],
)
def test_limits_may_be_tightened_and_never_widened(field: str, stricter: object, wider: object) -> None:
    assert getattr(tighten(UNITREE_G1.safety, **{field: stricter}), field) == stricter
    with pytest.raises(ConfigError, match=f"{field} may only be tightened"):
        tighten(UNITREE_G1.safety, **{field: wider})


def test_tightening_of_choices() -> None:
    assert tighten(LEAP_HAND.safety, backup=("damp",)).backup == ("damp",)
    assert tighten(LEAP_HAND.safety, deadman=True).deadman
    with pytest.raises(ConfigError, match="backup may only be tightened"):
        tighten(UNITREE_G1.safety, backup=("hold", "damp"))
    with pytest.raises(ConfigError, match="deadman may only be tightened"):
        tighten(UNITREE_G1.safety, deadman=False)
    with pytest.raises(ConfigError, match="'damping_kd_nms_rad' cannot be tightened"):
        tighten(LEAP_HAND.safety, damping_kd_nms_rad=(1.0,) * 16)


def test_a_wider_profile_is_refused_where_limits_are_made() -> None:
    wider = dataclasses.replace(LEAP_HAND.safety, state_damp_s=0.5)
    with pytest.raises(ConfigError, match=r"state_damp_s may only be tightened: 0\.5 is wider than 0\.1"):
        SafetyLimits.make(LEAP_HAND, CONTRACT, 0.05, wider)


def test_overrides_of_a_unit_are_logged_with_their_source() -> None:
    given = {"state_damp_s": 0.2, "soft_margin": 0.1, "deadman": True, "hold_limit_s": 2.0}
    profile, lines = apply_overrides(LEAP_HAND.safety, given, may_widen=True, source="units/7.yaml")
    assert (profile.state_damp_s, profile.soft_margin, profile.deadman) == (0.2, 0.1, True)
    # What stays as it was is no change.
    assert lines == (
        "units/7.yaml: safety limit state_damp_s WIDENED from 0.1 to 0.2",
        "units/7.yaml: safety limit soft_margin tightened from 0.05 to 0.1",
        "units/7.yaml: safety limit deadman tightened from False to True",
    )


def test_one_number_stands_for_all_joints() -> None:
    profile, _ = apply_overrides(LEAP_HAND.safety, {"target_rate_limit_rad_s": 3}, may_widen=False, source="x")
    assert profile.target_rate_limit_rad_s == (3.0,) * 16
    box = {"workspace_low_m": [-1, -1, -1], "workspace_high_m": [1, 1, 1]}
    profile, _ = apply_overrides(LEAP_HAND.safety, box, may_widen=False, source="x")
    assert profile.workspace_high_m == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state_damp_s", 0.2), ("battery_trip_share", 0.1), ("motor_temperature_trip_c", 90.0), ("obs_z_trip", 20.0),
        ("joint_inertia_kg_m2", [0.001] * 16), ("brake_effort_share", 0.9), ("brake_effort_share", None),
        ("damping_kd_nms_rad", 0.2), ("overrun_hold_periods", 9.0), ("effort_trip_s", 1.0), ("deadman_s", 0.5),
    ],
)  # fmt: skip
def test_widening_needs_a_unit_file(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"flag: safety limit {name} may only be tightened"):
        apply_overrides(LEAP_HAND.safety, {name: value}, may_widen=False, source="flag")
    _, lines = apply_overrides(LEAP_HAND.safety, {name: value}, may_widen=True, source="unit")
    assert "WIDENED" in lines[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"state_hold": 0.1}, "u: unknown safety limits 'state_hold'; valid: damping_kd"),
        ({"state_hold_s": "fast"}, "u: state_hold_s is 'fast'"),
        ({"state_hold_s": float("nan")}, "u: state_hold_s is nan"),
        ({"soft_margin": True}, "u: soft_margin is True"),
        ({"deadman": 1}, "u: deadman is 1"),
        ({"joint_vel_trip_rad_s": [1.0, 2.0]}, "16 numbers"),
        ({"soft_margin": 0.7}, r"u: soft_margin must be in \[0, 0.5\)"),
        ({"tilt_warn_share": -0.1}, "tilt_warn_share must be in"),
        ({"lost_packets_trip": 0}, "lost_packets_trip must be positive"),
    ],
)
def test_overrides_that_make_no_sense(given: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(LEAP_HAND.safety, given, may_widen=True, source="u")


def test_every_field_of_the_profile_has_a_stricter_side_or_is_the_unit_files_alone() -> None:
    changed = {
        float: lambda v: 0.99 * v,
        int: lambda v: v - 1,
        bool: lambda v: not v,
        tuple: lambda v: v[1:] if v and isinstance(v[0], str) else tuple(0.99 * x for x in v) or None,
        type(None): lambda v: 0.5,
    }
    for field in dataclasses.fields(UNITREE_G1.safety):
        value = getattr(UNITREE_G1.safety, field.name)
        if (other := changed[type(value)](value)) is None or field.name == "state_damp_s":
            continue
        profile, lines = apply_overrides(UNITREE_G1.safety, {field.name: other}, may_widen=True, source="u")
        assert getattr(profile, field.name) == other
        assert len(lines) == 1


def test_braking_counts_on_its_share_less_the_load() -> None:
    profile = dataclasses.replace(LEAP_HAND.safety, joint_load_nm=(0.05,) * 16)
    limits = SafetyLimits.make(LEAP_HAND, CONTRACT, 0.02, profile)
    assert limits.brake_accel is not None
    # Half of 0.6 A x 0.366 N m/A less 0.05 N m, on 0.0021 kg m².
    assert limits.brake_accel[0] == pytest.approx((0.5 * 0.2196 - 0.05) / 0.0021)
    off = dataclasses.replace(LEAP_HAND, safety=dataclasses.replace(LEAP_HAND.safety, brake_effort_share=None))
    assert SafetyLimits.make(off, CONTRACT, 0.02).brake_accel is None
