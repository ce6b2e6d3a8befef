"""Robots as data: against hand-computed gains, and the checks that keep a policy off the wrong robot."""

import dataclasses
import math

import pytest

from robot_rl.contract import ActionSpec, Contract, TensorSpec
from robot_rl.errors import ConfigError, ContractError
from robot_rl.robots import LEAP_HAND, ROBOTS, SHADOW_HAND, UNITREE_G1, RobotSpec, check_contract, get_robot


def contract_for(robot: RobotSpec) -> Contract:
    n = len(robot.joints)
    return Contract(
        robot=robot.name,
        variant=robot.variant,
        control_period_s=0.02,
        joints=robot.joints,
        inputs=(TensorSpec("joint_pos", (n,), "rad", "state"),),
        outputs=(TensorSpec("joint_target", (n,), "rad"), TensorSpec("obs", (n,), "1")),
        action=ActionSpec("position_relative", (0.1,) * n, (0.0,) * n, (-3.0,) * n, (3.0,) * n),
        observation_terms=(("joint_pos", n),),
    )


@pytest.mark.parametrize("robot", ROBOTS.values(), ids=list(ROBOTS))
def test_a_matching_contract_passes(robot: RobotSpec) -> None:
    check_contract(contract_for(robot), robot)


def test_leap_hand_figures() -> None:
    assert len(LEAP_HAND.joints) == 16
    # XL330-M288: 1.7e-8 kg m² behind 288:1; 0.366 N m/A at 0.6 A.
    assert LEAP_HAND.armature_kg_m2[0] == pytest.approx(0.00141, rel=1e-2)
    assert LEAP_HAND.joints[0].effort_limit_nm == pytest.approx(0.2196)
    damping_ratio = 0.1 / (2 * math.sqrt(3.0 * LEAP_HAND.armature_kg_m2[0]))
    assert damping_ratio > 0.7  # below it, target clipping alone does not keep a joint inside its limits


def test_shadow_hand_figures() -> None:
    assert len(SHADOW_HAND.joints) == 24
    assert [len(chain.links) for chain in SHADOW_HAND.chains] == [6, 6, 6, 7, 7]  # with the wrist's two
    for joint, armature in zip(SHADOW_HAND.joints, SHADOW_HAND.armature_kg_m2, strict=True):
        assert joint.kd_nms_rad / (2 * math.sqrt(joint.kp_nm_rad * armature)) > 0.7
    # The thumb is twice as fast as the rest, by the maker's description.
    assert {j.velocity_limit_rad_s for j in SHADOW_HAND.joints if j.name.startswith("rh_TH")} == {4.0}
    assert {j.velocity_limit_rad_s for j in SHADOW_HAND.joints if not j.name.startswith("rh_TH")} == {2.0}


def test_g1_gains_are_a_10_hz_system_with_damping_ratio_2() -> None:
    knee = next(j for j in UNITREE_G1.joints if j.name == "left_knee_joint")
    inertia = UNITREE_G1.armature_kg_m2[UNITREE_G1.joint_names.index(knee.name)]
    assert math.sqrt(knee.kp_nm_rad / inertia) / (2 * math.pi) == pytest.approx(10.0)
    assert knee.kd_nms_rad / (2 * math.sqrt(knee.kp_nm_rad * inertia)) == pytest.approx(2.0)


def test_g1_right_side_mirrors_the_left() -> None:
    joints = {j.name: j for j in UNITREE_G1.joints}
    roll, pitch = joints["right_hip_roll_joint"], joints["right_hip_pitch_joint"]
    assert (roll.lower_rad, roll.upper_rad) == (-2.9671, 0.5236)
    assert (pitch.lower_rad, pitch.upper_rad) == (-2.5307, 2.8798)
    assert joints["right_shoulder_roll_joint"].default_pos_rad == -joints["left_shoulder_roll_joint"].default_pos_rad


def _renamed(contract: Contract, order: list[int] | None = None, **first: object) -> Contract:
    joints = [contract.joints[i] for i in order or range(len(contract.joints))]
    joints[0] = dataclasses.replace(joints[0], **first)
    return dataclasses.replace(contract, joints=tuple(joints))


def test_each_mismatch_is_named() -> None:
    good = contract_for(LEAP_HAND)
    with pytest.raises(ContractError, match="policy is for leap_hand/right, robot is unitree_g1/29dof"):
        check_contract(good, UNITREE_G1)
    with pytest.raises(ContractError, match="joint order differs"):
        check_contract(_renamed(good, order=[1, 0, *range(2, 16)]), LEAP_HAND)
    with pytest.raises(ContractError, match=r"robot lacks \['thumb'\], policy lacks \['if_mcp'\]"):
        check_contract(_renamed(good, name="thumb"), LEAP_HAND)
    with pytest.raises(ContractError, match=r"if_mcp: policy limits \[-0.314, 2.5\] exceed the robot's"):
        check_contract(_renamed(good, upper_rad=2.5), LEAP_HAND)
    with pytest.raises(ContractError, match=r"if_mcp: kp_nm_rad 30.0 exceeds the robot's maximum 6.0"):
        check_contract(_renamed(good, kp_nm_rad=30.0), LEAP_HAND)
    imu = dataclasses.replace(good, inputs=(*good.inputs, TensorSpec("imu_quat_wxyz", (4,), "1", "state")))
    with pytest.raises(ContractError, match="robot does not measure imu_quat_wxyz"):
        check_contract(imu, LEAP_HAND)


def test_unknown_robot_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown robot 'atlas'; valid: leap_hand, shadow_hand, unitree_g1"):
        get_robot("atlas")


def test_a_spec_of_uneven_lengths_is_refused() -> None:
    with pytest.raises(ContractError, match="armature_kg_m2 has 1 entries for 16 joints"):
        dataclasses.replace(LEAP_HAND, armature_kg_m2=(1.0,))
