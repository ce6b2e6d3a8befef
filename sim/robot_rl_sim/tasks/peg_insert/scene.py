"""The scene of peg-insert: a square peg held by the arm, and a block with a square hole on the table that the arm
stands on. The arm's root frame is the world's; z points up, and the table is z = 0."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.robots import FRANKA_PANDA, RobotSpec
from robot_rl.robots.franka_panda import FLANGE
from robot_rl_sim.models import load_spec

BLOCK_AT_M = (0.5, 0.0)
"""Where the block is while its joints (x, y, turn about z; the last three of qpos) are at zero. Its origin is on the
table under the middle of the hole."""

_STEEL_KG_M3 = 7850.0
_KEYPOINT_M = 0.05
"""From the tip to the two further keypoints: the length of the peg, so that an error of direction counts as much as the
error of position that it causes."""


@dataclass(frozen=True, slots=True)
class PegScene:
    """Sizes, m."""

    peg_width_m: float = 0.016
    peg_length_m: float = 0.05
    clearance_m: float = 0.001
    """Width of the hole minus that of the peg: half of it is free on each side."""
    hole_depth_m: float = 0.04
    """The hole goes through the block, down to the table."""
    block_width_m: float = 0.1
    holder_length_m: float = 0.06
    """From flange to peg, where a gripper would be."""
    friction: float = 0.3
    """Of peg on block: oiled metal."""

    def __post_init__(self) -> None:
        if not 0 < self.clearance_m <= 0.01:
            raise ConfigError(f"clearance_m must lie in (0, 0.01], got {self.clearance_m}")
        if not 0 < self.peg_width_m + self.clearance_m < self.block_width_m:
            raise ConfigError(f"a peg of {self.peg_width_m} m does not fit a block of {self.block_width_m} m")
        if not 0 < self.hole_depth_m < self.peg_length_m:
            raise ConfigError(f"hole_depth_m must lie in (0, {self.peg_length_m}), got {self.hole_depth_m}")


def peg_robot(scene: PegScene) -> RobotSpec:
    """The arm with three points of the peg as its tips, so that where they are is computed in the exported graph: the
    middle of its end face, a point up its axis, and one to its side (world +x in the arm's default pose)."""
    z = FLANGE.tip_pos_m[2] + scene.holder_length_m + scene.peg_length_m
    side = _KEYPOINT_M * 0.5**0.5
    points = {"peg_tip": (0.0, 0.0, z), "peg_axis": (0.0, 0.0, z - _KEYPOINT_M), "peg_side": (side, -side, z)}
    chains = tuple(replace(FLANGE, name=name, tip_pos_m=point) for name, point in points.items())
    return replace(FRANKA_PANDA, chains=chains)


def keypoints(tip: Tensor, yaw: Tensor) -> Tensor:
    """Where the three points of a vertical peg are, (n, 9) m, for its tip (n, 3) m and its turn (n,) rad about z."""
    axis = tip + tip.new_tensor((0.0, 0.0, _KEYPOINT_M))
    side = tip + _KEYPOINT_M * torch.stack((yaw.cos(), yaw.sin(), torch.zeros_like(yaw)), -1)
    return torch.cat((tip, axis, side), -1)


def model_spec(scene: PegScene) -> mujoco.MjSpec:
    """Arm, peg and block."""
    spec = load_spec(FRANKA_PANDA.name)
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0  # friction as stiff as contact: a pressed peg must stick, not creep
    _add_peg(spec.body("attachment"), scene)
    _add_block(spec.worldbody, scene)
    return spec


def _add_peg(flange: mujoco.MjsBody, scene: PegScene) -> None:
    peg = flange.add_body(name="peg", gravcomp=1.0)
    half, middle = scene.peg_length_m / 2, scene.holder_length_m + scene.peg_length_m / 2
    peg.add_geom(
        name="holder",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(0.02, scene.holder_length_m / 2, 0.0),
        pos=(0.0, 0.0, scene.holder_length_m / 2),
        mass=0.2,
        rgba=(0.2, 0.21, 0.23, 1.0),
        contype=0,
        conaffinity=3,
    )
    peg.add_geom(
        name="peg",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(scene.peg_width_m / 2, scene.peg_width_m / 2, half),
        pos=(0.0, 0.0, middle),
        density=_STEEL_KG_M3,
        rgba=(0.13, 0.55, 0.6, 1.0),
        contype=0,
        conaffinity=3,
        **_contact(scene),
    )


def _add_block(world: mujoco.MjsBody, scene: PegScene) -> None:
    """Four walls: two as long as the block, two between them.

    It has joints because an episode begins with values of qpos, in every backend; then they hold it by more friction
    than the arm can overcome.
    """
    block = world.add_body(name="block", pos=(*BLOCK_AT_M, 0.0), mass=10.0, inertia=(1.0, 1.0, 1.0))
    block.explicitinertial = True
    slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
    for name, kind, axis in (("x", slide, (1, 0, 0)), ("y", slide, (0, 1, 0)), ("yaw", hinge, (0, 0, 1))):
        block.add_joint(
            name=f"block_{name}",
            type=kind,
            axis=axis,
            frictionloss=1e4,
            solref_friction=(0.004, 1.0),
            solimp_friction=(0.9999, 0.9999, 0.001, 0.5, 2.0),
        )
    hole, outer = (scene.peg_width_m + scene.clearance_m) / 2, scene.block_width_m / 2
    thick, middle, height = (outer - hole) / 2, (outer + hole) / 2, scene.hole_depth_m / 2
    walls = {
        "left": ((outer, thick, height), (0.0, middle, height)),
        "right": ((outer, thick, height), (0.0, -middle, height)),
        "front": ((thick, hole, height), (middle, 0.0, height)),
        "back": ((thick, hole, height), (-middle, 0.0, height)),
    }
    for name, (size, pos) in walls.items():
        block.add_geom(
            name=f"wall_{name}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=size,
            pos=pos,
            rgba=(0.75, 0.68, 0.55, 1.0),
            contype=1,
            conaffinity=0,
            **_contact(scene),
        )


def _contact(scene: PegScene) -> dict:
    """As hard as the time step of 2 ms bears: a pressed peg sinks in by hundredths of a millimetre."""
    return {
        "priority": 1,  # as hard for table and arm
        "friction": (scene.friction, 0.005, 0.0001),
        "solref": (0.004, 1.0),
        "solimp": (0.95, 0.99, 0.0005, 0.5, 2.0),
    }
