"""peg-insert: put a square peg into a hole with half a millimetre to spare on each side, where a camera says it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import mujoco
import torch
from torch import Tensor

from robot_rl.contract import ActionSpec, EpisodeSpec, TensorSpec
from robot_rl.errors import ConfigError
from robot_rl.networks.kinematics import TipKinematics
from robot_rl.networks.policy_io import ObservationTerm, PolicyIO
from robot_rl.replay.mirror import Mirror
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.disturbances import PushConfig
from robot_rl_sim.inverse_kinematics import solve
from robot_rl_sim.mdp import Outcome, Start, Transition
from robot_rl_sim.tasks.actions import soft_limits
from robot_rl_sim.tasks.peg_insert.scene import BLOCK_AT_M, PegScene, keypoints, model_spec, peg_robot


@dataclass(frozen=True, slots=True)
class PegInsertConfig:
    scene: PegScene = field(default_factory=PegScene)
    control_period_s: float = 0.05
    substeps: int = 25
    max_episode_steps: int = 160
    action_scale_rad: float = 0.02
    """Largest change of a target in one step: 0.4 rad/s, or some 0.2 m/s at the tip."""
    hole_x_m: tuple[float, float] = (0.45, 0.55)
    hole_y_m: tuple[float, float] = (-0.1, 0.1)
    hole_yaw_rad: float = 0.2
    """Half-width, as of the next five. The episode's hole is uniform within these."""
    estimate_xy_m: float = 0.0015
    """Error of the camera, kept for an episode: three times what the hole leaves free, so the policy has to search."""
    estimate_z_m: float = 0.0005
    estimate_yaw_rad: float = 0.02
    start_xy_m: float = 0.02
    """Where the tip starts, about the hole's axis."""
    start_yaw_rad: float = 0.1
    start_height_m: tuple[float, float] = (0.03, 0.06)
    """Of the tip above the block."""
    pool_size: int = 512
    """Holes and starts that episodes are drawn from."""
    success_depth_m: float = 0.02
    command_depth_m: float = 0.03
    """How deep the commanded pose is."""
    reward: Literal["sparse", "dense"] = "sparse"
    """sparse: 1 in each step in which the peg is in. dense: besides, the terms weighted below."""
    distance_weight: float = 5.0
    """Per metre of mean keypoint distance from the commanded depth in the true hole."""
    near_weight: float = 0.5
    near_scale_m: float = 0.01
    depth_weight: float = 1.0
    """Times the share of the commanded depth, counted in the hole only."""
    action_weight: float = 0.01

    def __post_init__(self) -> None:
        if self.reward not in ("sparse", "dense"):
            raise ConfigError(f"reward {self.reward!r}; valid: sparse, dense")
        if not 0 < self.success_depth_m < self.command_depth_m <= self.scene.hole_depth_m:
            raise ConfigError(
                f"need 0 < success_depth_m < command_depth_m <= hole_depth_m, got {self.success_depth_m}, "
                f"{self.command_depth_m}, {self.scene.hole_depth_m}"
            )


def insertion_depth(tip: Tensor, hole: Tensor, scene: PegScene) -> Tensor:
    """How far (n,) m the tip (n, 3) m is below the rim of the hole (n, 3) [x, y, yaw]; below zero outside of it."""
    offset = tip[:, :2] - hole[:, :2]
    cos, sin = hole[:, 2].cos(), hole[:, 2].sin()
    along = torch.stack((cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0]), -1)
    # The middle of the peg is this near the hole's only when the peg is in it, or above.
    within = along.abs().amax(-1) < (scene.peg_width_m + scene.clearance_m) / 2
    depth = scene.hole_depth_m - tip[:, 2]
    return torch.where(within, depth, -tip[:, 2].abs())


class PegInsert:
    """See robot_rl_sim.mdp.Mdp. `seed` draws the pool of holes and starts."""

    hold_steps = 5
    object_body: str | None = None
    episode: EpisodeSpec | None = None
    start_draws = 5
    outcome_draws = 0
    pushes: PushConfig | None = None
    mirror: Mirror | None = None
    # A demonstration recorded on a robot has no privileged observations, so nothing here needs any.
    privileged_dim = 0

    def __init__(self, num_envs: int, seed: int, config: PegInsertConfig | None = None) -> None:
        self.config = c = config or PegInsertConfig()
        self.robot = peg_robot(c.scene)
        self.substeps = c.substeps
        self.max_episode_steps = c.max_episode_steps
        self.policy_io = _policy_io(c)
        self.kinematics = TipKinematics(self.robot, self.robot.chains)
        holes, poses = _sample_pool(c, self.kinematics, seed)
        self.state = {"pool_holes": holes, "pool_poses": poses, "hole": torch.zeros(num_envs, 3)}

    def model_spec(self) -> mujoco.MjSpec:
        return model_spec(self.config.scene)

    def start(self, worlds: Tensor, drawn: Tensor) -> Start:
        c, one = self.config, (self.config.pool_size * drawn[:, 0]).long()
        hole, pose = self.state["pool_holes"][one], self.state["pool_poses"][one]
        self.state["hole"][worlds] = hole
        half_width = hole.new_tensor((c.estimate_xy_m, c.estimate_xy_m, c.estimate_z_m, c.estimate_yaw_rad))
        error = half_width * (2 * drawn[:, 1:] - 1)
        tip = torch.cat((hole[:, :2], torch.full_like(hole[:, :1], self._command_height_m)), -1) + error[:, :3]
        qpos = torch.cat((pose, hole - hole.new_tensor((*BLOCK_AT_M, 0.0))), -1)
        return Start(qpos, torch.zeros_like(qpos), command=keypoints(tip, hole[:, 2] + error[:, 3]))

    def privileged(self, sim: BatchSim) -> Tensor:
        return torch.zeros(sim.num_worlds, 0, device=sim.device)

    def outcome(self, t: Transition, drawn: Tensor) -> Outcome:
        c, hole = self.config, self.state["hole"]
        points = self.kinematics(t.joint_pos).flatten(1)
        depth = insertion_depth(points[:, :3], hole, c.scene)
        inserted = depth > c.success_depth_m
        rewards = {"inserted": inserted.float()}
        if c.reward == "dense":
            tip = torch.cat((hole[:, :2], torch.full_like(hole[:, :1], self._command_height_m)), -1)
            error = (points - keypoints(tip, hole[:, 2])).unflatten(-1, (3, 3))
            distance = torch.linalg.vector_norm(error, dim=-1).mean(-1)
            rewards |= {
                "distance": -c.distance_weight * distance,
                "near": c.near_weight * torch.exp(-(distance / c.near_scale_m).square()),
                "depth": c.depth_weight * (depth / c.command_depth_m).clamp(0.0, 1.0),
                "action": -c.action_weight * t.action.square().mean(-1),
            }
        return Outcome(
            rewards,
            terminated=torch.zeros_like(inserted),
            at_goal=inserted,
            metrics={"insertion_depth_m": depth.clamp(min=0.0)},
        )

    @property
    def _command_height_m(self) -> float:
        """Of the tip of a peg that is in as deep as commanded."""
        return self.config.scene.hole_depth_m - self.config.command_depth_m


def _sample_pool(config: PegInsertConfig, kinematics: TipKinematics, seed: int) -> tuple[Tensor, Tensor]:
    """Holes (pool, 3) [x, y, yaw], and joint positions (pool, 7) rad with the peg upright somewhere above each."""
    c, n, io = config, config.pool_size, _policy_io(config)
    u = torch.rand(n, 7, generator=torch.Generator().manual_seed(seed))
    low = torch.tensor(
        (c.hole_x_m[0], c.hole_y_m[0], -c.hole_yaw_rad, -c.start_xy_m, -c.start_xy_m, c.start_height_m[0], -1.0)
    )
    high = torch.tensor(
        (c.hole_x_m[1], c.hole_y_m[1], c.hole_yaw_rad, c.start_xy_m, c.start_xy_m, c.start_height_m[1], 1.0)
    )
    drawn = low + (high - low) * u
    hole, offset, height, turn = drawn[:, :3], drawn[:, 3:5], drawn[:, 5:6], c.start_yaw_rad * drawn[:, 6]
    tip = torch.cat((hole[:, :2] + offset, c.scene.hole_depth_m + height), -1)
    goal = keypoints(tip, hole[:, 2] + turn)
    pose = solve(kinematics, io.default_pos.repeat(n, 1), goal)
    off = (kinematics(pose).flatten(1) - goal).abs().amax(-1)
    if off.max() > 1e-4 or ((pose < io.low) | (pose > io.high)).any():
        raise ConfigError(f"the arm cannot reach above every hole in x {c.hole_x_m}, y {c.hole_y_m} m")
    return hole, pose


def _policy_io(config: PegInsertConfig) -> PolicyIO:
    """Scales bring each term to order one: 2 rad/s, 0.05 rad of lag, and an error of 2 cm."""
    robot = peg_robot(config.scene)
    n = len(robot.joints)
    low, high = soft_limits(robot)
    return PolicyIO(
        robot=robot,
        terms=(
            ObservationTerm("joint_pos"),
            ObservationTerm("joint_vel", 0.5),
            ObservationTerm("target_error", 20.0),
            ObservationTerm("tip_error", 50.0),
        ),
        action=ActionSpec("position_delta", (config.action_scale_rad,) * n, (0.0,) * n, low, high),
        control_period_s=config.control_period_s,
        command=TensorSpec("peg_goal", (9,), "m", "command", "link0", -1.0, 1.0),
    )
