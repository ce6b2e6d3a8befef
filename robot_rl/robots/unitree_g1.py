"""Unitree G1 humanoid, 29 joints (mode machine 5: three-axis waist, 7-axis arms, no hands).

Joint order is the vendor's low-level order. Ranges and torque limits: the MuJoCo Menagerie model (BSD-3-Clause,
Unitree Robotics). Motor inertias and speeds: the figures of the vendor's actuator types 5020, 7520-14, 7520-22 and 4010
as published with MuJoCo Playground and the vendor's URDF. Ankles and waist roll/pitch are driven by two 5020 each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from robot_rl.contract import JointSpec
from robot_rl.robots.spec import BACKUPS, RobotSpec, SafetyProfile
from robot_rl.robots.unitree_g1_capsules import COLLISION


@dataclass(frozen=True)
class _Motor:
    armature_kg_m2: float
    speed_rad_s: float
    effort_nm: float


_M5020 = _Motor(0.003609725, 37.0, 25.0)
_M7520_14 = _Motor(0.010177520, 32.0, 88.0)
_M7520_22 = _Motor(0.025101925, 20.0, 139.0)
_M4010 = _Motor(0.00425, 22.0, 5.0)
_2X5020 = _Motor(2 * 0.003609725, 37.0, 50.0)

# Gains make each motor's own inertia a 10 Hz second-order system with damping ratio 2: stiff enough to stand, soft
# enough that a contact does not ring, and well damped with the link's inertia added. kp = I w², kd = 2 ζ I w.
_NATURAL_FREQUENCY = 2 * math.pi * 10.0
_DAMPING_RATIO = 2.0

# name: (motor, lower, upper, default) rad. The default is a slight crouch, arms bent.
_LEFT_LEG = {
    "hip_pitch": (_M7520_14, -2.5307, 2.8798, -0.312),
    "hip_roll": (_M7520_22, -0.5236, 2.9671, 0.0),
    "hip_yaw": (_M7520_14, -2.7576, 2.7576, 0.0),
    "knee": (_M7520_22, -0.087267, 2.8798, 0.669),
    "ankle_pitch": (_2X5020, -0.87267, 0.5236, -0.363),
    "ankle_roll": (_2X5020, -0.2618, 0.2618, 0.0),
}
_WAIST = {
    "waist_yaw": (_M7520_14, -2.618, 2.618, 0.0),
    "waist_roll": (_2X5020, -0.52, 0.52, 0.0),
    "waist_pitch": (_2X5020, -0.52, 0.52, 0.0),
}
_LEFT_ARM = {
    "shoulder_pitch": (_M5020, -3.0892, 2.6704, 0.2),
    "shoulder_roll": (_M5020, -1.5882, 2.2515, 0.2),
    "shoulder_yaw": (_M5020, -2.618, 2.618, 0.0),
    "elbow": (_M5020, -1.0472, 2.0944, 0.6),
    "wrist_roll": (_M5020, -1.97222, 1.97222, 0.0),
    "wrist_pitch": (_M4010, -1.61443, 1.61443, 0.0),
    "wrist_yaw": (_M4010, -1.61443, 1.61443, 0.0),
}
# Largest inertia about a joint over its poses with the pelvis held, kg m², in Menagerie's model: that of a swinging
# limb. A leg that carries the robot moves ten times as much; nothing stops that before a limit but the next step.
_INERTIA = {
    "hip_pitch": 0.96, "hip_roll": 0.85, "hip_yaw": 0.23, "knee": 0.145, "ankle_pitch": 0.0101, "ankle_roll": 0.0077,
    "waist_yaw": 1.25, "waist_roll": 2.0, "waist_pitch": 1.8,
    "shoulder_pitch": 0.205, "shoulder_roll": 0.187, "shoulder_yaw": 0.046, "elbow": 0.0385,
    "wrist_roll": 0.0085, "wrist_pitch": 0.0092, "wrist_yaw": 0.0062,
}  # fmt: skip
_MIRRORED = {"hip_roll", "hip_yaw", "ankle_roll", "shoulder_roll", "shoulder_yaw", "wrist_roll", "wrist_yaw"}
"""Joints whose axis keeps its direction on the right side, so that a mirrored pose has the opposite sign."""


def _mirror(
    joints: dict[str, tuple[_Motor, float, float, float]],
) -> dict[str, tuple[_Motor, float, float, float]]:
    return {n: (m, -hi, -lo, -d) if n in _MIRRORED else (m, lo, hi, d) for n, (m, lo, hi, d) in joints.items()}


_JOINTS = {
    f"{side}{name}_joint": row
    for side, group in (
        ("left_", _LEFT_LEG),
        ("right_", _mirror(_LEFT_LEG)),
        ("", _WAIST),
        ("left_", _LEFT_ARM),
        ("right_", _mirror(_LEFT_ARM)),
    )
    for name, row in group.items()
}


def _other_side(joint: str) -> tuple[str, int]:
    """The joint that takes its place in a left-right mirror, and the sign of its angle there."""
    side, _, name = joint.removesuffix("_joint").partition("_")
    if side == "waist":
        return joint, 1 if name == "pitch" else -1
    other = {"left": "right", "right": "left"}[side]
    return f"{other}_{name}_joint", -1 if name in _MIRRORED else 1


def _joint(name: str, motor: _Motor, lower: float, upper: float, default: float) -> JointSpec:
    kp = motor.armature_kg_m2 * _NATURAL_FREQUENCY**2
    kd = 2 * _DAMPING_RATIO * motor.armature_kg_m2 * _NATURAL_FREQUENCY
    return JointSpec(name, lower, upper, motor.speed_rad_s, motor.effort_nm, default, kp, kd)


UNITREE_G1 = RobotSpec(
    name="unitree_g1",
    variant="29dof",
    joints=tuple(_joint(name, *row) for name, row in _JOINTS.items()),
    armature_kg_m2=tuple(row[0].armature_kg_m2 for row in _JOINTS.values()),
    root_body="pelvis",
    floating_base=True,
    safety=SafetyProfile(
        # Passive damping of shipped runners is 3 to 8 N m s/rad on the whole robot; the small wrist motors get less.
        damping_kd_nms_rad=tuple(1.0 if row[0] is _M4010 else 3.0 for row in _JOINTS.values()),
        # Targets may move as fast as a motor can: balance needs it, and the torque limit bounds what follows.
        target_rate_limit_rad_s=tuple(row[0].speed_rad_s for row in _JOINTS.values()),
        # The vendor's own termination set trips at 10 rad/s; leg swings in training exceed it, so 1.2 × rated.
        joint_vel_trip_rad_s=tuple(1.2 * row[0].speed_rad_s for row in _JOINTS.values()),
        joint_inertia_kg_m2=tuple(
            _INERTIA[name.removeprefix("left_").removeprefix("right_").removesuffix("_joint")] for name in _JOINTS
        ),
        # Not published for the G1: four steps of 1/256 rad/s, in which the vendor's GO-M8010-6 motors report speed.
        # Their positions come in steps of 1/32768 rad, so that even a joint at rest hardly repeats one for long.
        joint_vel_at_rest_rad_s=4 / 256,
        tilt_trip_rad=1.0,
        # A unit file may set self_collision_margin_m to 0.01, less than the 0.016 m between elbow and trunk at rest. It
        # is off by default: links stop one another in the model that policies are trained in, but nothing keeps a
        # policy from resting its arms against the trunk, which the filter would fight.
        base_ang_vel_trip_rad_s=6.0,
        backup=BACKUPS["biped"],
        stand_duration_s=3.0,
        deadman=True,
    ),
    state_fields=(
        "joint_pos",
        "joint_vel",
        "joint_effort",
        "imu_quat_wxyz",
        "imu_ang_vel_b",
        "imu_lin_acc_b",
    ),
    collision=COLLISION,
    mirror=tuple(_other_side(name) for name in _JOINTS),
    source="MuJoCo Menagerie unitree_g1 (BSD-3-Clause); MuJoCo Playground; Unitree URDF",
)
