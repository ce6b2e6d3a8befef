"""What reaching needs to know of each hand besides its RobotSpec."""

from __future__ import annotations

from dataclasses import dataclass

from robot_rl.robots import LEAP_HAND, SHADOW_HAND, RobotSpec


@dataclass(frozen=True, slots=True)
class ReachHand:
    robot: RobotSpec
    sideways_joints: tuple[str, ...]
    """Joints that spread the fingers."""
    sideways_rad: float
    """Largest angle of those in a drawn pose: beyond it, neighbours cross."""
    clearance_m: float
    """Links of a drawn pose are at least this far apart: contact within the tolerance would decide, not skill."""
    command_frame: str
    command_bound_m: float
    """No fingertip goes further from the root body, along any axis."""


LEAP = ReachHand(
    robot=LEAP_HAND,
    sideways_joints=("if_rot", "mf_rot", "rf_rot"),
    sideways_rad=0.35,
    clearance_m=0.005,
    command_frame="palm",
    command_bound_m=0.3,
)

SHADOW = ReachHand(
    robot=SHADOW_HAND,
    sideways_joints=("rh_FFJ4", "rh_MFJ4", "rh_RFJ4", "rh_LFJ4"),
    # Straight fingers lie 4 mm apart.
    sideways_rad=0.1,
    clearance_m=0.001,
    command_frame="rh_forearm",
    command_bound_m=0.5,
)
