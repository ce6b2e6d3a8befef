"""How each hand holds the cube: where its palm faces, how its fingers cradle the cube, and where the cube then is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robot_rl.robots import LEAP_HAND, SHADOW_HAND, RobotSpec


@dataclass(frozen=True, slots=True)
class HandSetup:
    robot: RobotSpec
    mount_pos_m: tuple[float, float, float]
    mount_quat_wxyz: tuple[float, float, float, float]
    """Pose of the root body in the world: palm up."""
    palm_normal: tuple[float, float, float]
    """Out of the palm, root body frame: the axis that goals turn the cube about."""
    grasp_rad: tuple[float, ...]
    """Joint positions (n_joints,) that cradle the cube."""
    cube_pos_m: tuple[float, float, float]
    """Centre of the cube where it is let go, root body frame."""
    cube_half_edge_m: float
    action_scale_rad: float
    """Largest change of a target in one control step: what the safety profile lets pass."""
    swing_rad: Mapping[str, float]
    """Of the scripted gait: how far each joint that spreads a finger swings, positive where that carries the fingertip
    the way in which a finger drags a cube that turns positively about the palm's normal."""
    press_joints: tuple[str, ...]
    """Joints that press the fingers on the cube, the positive way."""


LEAP = HandSetup(
    robot=LEAP_HAND,
    mount_pos_m=(0.0, 0.0, 0.1),
    # 20 degrees down towards the fingers, as in the cube scene of MuJoCo Playground: gravity keeps the cube in them.
    mount_quat_wxyz=(0.0, 0.985, 0.0, -0.1724),
    palm_normal=(0.0, 0.0, -1.0),
    grasp_rad=(0.8, 0.0, 0.8, 0.8) * 3 + (0.8, 0.8, 0.8, 0.0),
    cube_pos_m=(-0.045, -0.03, -0.085),
    cube_half_edge_m=0.035,
    action_scale_rad=0.2,
    swing_rad=dict.fromkeys(("if_rot", "mf_rot", "rf_rot"), 0.5),
    press_joints=("if_mcp", "mf_mcp", "rf_mcp"),
)

_FINGER = (0.0, 0.7, 0.8, 0.5)
SHADOW = HandSetup(
    robot=SHADOW_HAND,
    mount_pos_m=(0.0, 0.0, 0.25),
    # As the LEAP hand: 20 degrees down towards the fingers.
    mount_quat_wxyz=(0.40558, -0.579228, 0.579228, -0.40558),
    palm_normal=(0.0, -1.0, 0.0),
    grasp_rad=(0.0, 0.0, *_FINGER, *_FINGER, *_FINGER, 0.3, *_FINGER, 0.3, 0.9, 0.0, 0.2, 0.5),
    cube_pos_m=(0.0, -0.06, 0.33),
    # The 5 cm block of Gymnasium's Shadow hand tasks.
    cube_half_edge_m=0.025,
    action_scale_rad=0.1,
    swing_rad={"rh_FFJ4": 0.3, "rh_MFJ4": 0.3, "rh_RFJ4": -0.3, "rh_LFJ4": -0.3},
    press_joints=("rh_FFJ3", "rh_MFJ3", "rh_RFJ3", "rh_LFJ3"),
)
