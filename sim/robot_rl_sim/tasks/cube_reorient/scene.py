"""The hand, palm up, with a cube: its model, and cubes at rest in it, from which episodes start."""

from __future__ import annotations

import math

import mujoco
import torch
from torch import Tensor

from robot_rl.networks.rotation import conjugate, in_body, multiply, rotate, rotation_angle
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.models import load_spec
from robot_rl_sim.tasks.cube_reorient.hands import HandSetup

CUBE = "object"
"""Name of the cube's body, joint and geom."""
CUBE_MASS_KG = 0.08
CUBE_FRICTION = (0.3, 0.05, 0.0001)
"""Sliding, torsional, rolling. MuJoCo takes the larger of two surfaces' values, so fingertips hold better."""
TIMESTEP_S = 0.01
TOUCH_RADIUS_M = 0.02
_HAND, _SHELL = 1, 2
"""Collision bits: what meets hand and cube, and what meets the cube alone."""

SETTLE_S = 1.0
MAX_TURNED_RAD = 0.6
MAX_MOVED_M = 0.04
"""A cube that turned or moved further while it settled has tipped over, or left the hand."""


def touch_sensor(tip: str) -> str:
    """Name of the sensor of the contact force (N) at the tip of a RobotSpec's chain."""
    return f"{tip}_touch"


def cube_spec(hand: HandSetup) -> mujoco.MjSpec:
    """The robot's model turned palm up, with a free cube and a touch sensor at each fingertip.

    The boxes of servos and shells, which a hand alone does without, meet the cube here.
    """
    spec = load_spec(hand.robot.name)
    spec.option.timestep = TIMESTEP_S
    root = spec.body(hand.robot.root_body)
    root.pos, root.quat = hand.mount_pos_m, hand.mount_quat_wxyz
    # Room above the cube, where viewers draw its goal.
    camera = spec.camera("main")
    camera.pos[2] += 0.06
    camera.fovy *= 1.2
    for geom in spec.geoms:
        if int(geom.contype) == 0 and int(geom.type) == int(mujoco.mjtGeom.mjGEOM_BOX):
            geom.conaffinity = _SHELL
    cube = spec.worldbody.add_body(name=CUBE, pos=(0.0, 0.0, 0.5))
    cube.add_freejoint(name=CUBE)
    cube.add_geom(
        name=CUBE,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[hand.cube_half_edge_m] * 3,
        mass=CUBE_MASS_KG,
        friction=CUBE_FRICTION,
        contype=_HAND | _SHELL,
        conaffinity=_HAND,
        rgba=(0.85, 0.45, 0.2, 1.0),
    )
    for chain in hand.robot.chains:
        tip = spec.site(chain.name)
        name = touch_sensor(chain.name)
        tip.parent.add_site(name=name, pos=tip.pos, size=[TOUCH_RADIUS_M] * 3, group=5)
        spec.add_sensor(name=name, type=mujoco.mjtSensor.mjSENS_TOUCH, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=name)
    return spec


def mount_pose(hand: HandSetup) -> tuple[Tensor, Tensor]:
    """Position (1, 3) m and orientation (1, 4) of the root body in the world, in float64."""
    quat = torch.tensor([hand.mount_quat_wxyz], dtype=torch.float64)
    return torch.tensor([hand.mount_pos_m], dtype=torch.float64), quat / quat.norm()


def turn(hand: HandSetup, angle: Tensor) -> Tensor:
    """Quaternions (n, 4), root body frame, of turns by `angle` (n,) rad about the palm's normal."""
    none, axis = (angle.new_tensor(quat) for quat in ((1.0, 0.0, 0.0, 0.0), (0.0, *hand.palm_normal)))
    half = (angle / 2).unsqueeze(-1)
    return half.cos() * none + half.sin() * axis


def sample_grasps(hand: HandSetup, n: int, seed: int) -> Tensor:
    """States (k, nq) of the cube at rest in the hand: let go n times, at any angle about the palm's normal.

    k <= n: those in which the cube tipped over or left the hand are left out.
    """
    sim = MujocoCpuSim(cube_spec(hand).compile(), hand.robot, n, round(SETTLE_S / TIMESTEP_S))
    generator = torch.Generator().manual_seed(seed)
    released = turn(hand, math.tau * torch.rand(n, generator=generator, dtype=torch.float64))
    grasp = torch.tensor(hand.grasp_rad, dtype=torch.float64).repeat(n, 1)
    home = torch.tensor([hand.cube_pos_m], dtype=torch.float64)
    root_pos, root_quat = mount_pose(hand)
    pose, _ = sim.free_joint(CUBE)
    sim.joint_pos.copy_(grasp)
    pose[:, :3] = root_pos + rotate(home, root_quat)
    pose[:, 3:] = multiply(root_quat, released)
    sim.set_state(torch.arange(n), sim.qpos.clone(), torch.zeros_like(sim.qvel))
    sim.step(grasp)
    turned = rotation_angle(multiply(multiply(conjugate(root_quat), pose[:, 3:]), conjugate(released)))
    moved = torch.linalg.vector_norm(in_body(pose[:, :3] - root_pos, root_quat) - home, dim=-1)
    return sim.qpos[(turned < MAX_TURNED_RAD) & (moved < MAX_MOVED_M) & ~sim.failed].clone()
