import dataclasses

import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.runtime.limits import SafetyLimits, tighten
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
