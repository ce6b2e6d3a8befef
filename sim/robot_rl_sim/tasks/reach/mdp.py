"""reach: from a random pose, bring all fingertips of a hand to where another random pose has them, and stay there."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import torch
from torch import Tensor

from robot_rl.contract import ActionSpec, EpisodeSpec, TensorSpec
from robot_rl.networks.kinematics import TipKinematics
from robot_rl.networks.policy_io import ObservationTerm, PolicyIO
from robot_rl.replay.mirror import Mirror
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.disturbances import PushConfig
from robot_rl_sim.mdp import Outcome, Start, Transition
from robot_rl_sim.models import load_spec
from robot_rl_sim.tasks.actions import soft_limits
from robot_rl_sim.tasks.reach.goals import TOLERANCE_M, sample_goals
from robot_rl_sim.tasks.reach.hands import ReachHand

TIP_ERROR_SCALE = 30.0
"""An error of twice the tolerance counts as 1."""


@dataclass(frozen=True, slots=True)
class ReachConfig:
    control_period_s: float = 0.05
    substeps: int = 10
    max_episode_steps: int = 40
    action_scale_rad: float = 0.1
    """Largest change of a target in one step: 2 rad/s at 20 Hz."""
    pool_size: int = 4096
    """Poses from which starts and goals are drawn."""
    distance_weight: float = 10.0
    """Per metre of mean fingertip distance."""
    near_weight: float = 1.0
    near_scale_m: float = 0.015
    action_weight: float = 0.01
    action_rate_weight: float = 0.02


def tip_distance(tips: Tensor, goal: Tensor) -> Tensor:
    """Distance (n, n_tips) m of each tip (n, n_tips, 3) from its goal (n, 3 n_tips)."""
    return torch.linalg.vector_norm(tips - goal.unflatten(-1, (-1, 3)), dim=-1)


def closeness(distance: Tensor, scale_m: float) -> Tensor:
    """Mean over tips (n,) of exp(-(d / scale)²): 1 on the goal, and flat far from it."""
    return torch.exp(distance.square() * (-1 / scale_m**2)).mean(-1)


def mean_square(x: Tensor) -> Tensor:
    """(n, k) -> (n,)."""
    return x.square().mean(-1)


class Reach:
    """See robot_rl_sim.mdp.Mdp. `seed` draws the pool of poses."""

    hold_steps = 5
    object_body: str | None = None
    episode: EpisodeSpec | None = None
    start_draws = 2
    outcome_draws = 0
    pushes: PushConfig | None = None
    mirror: Mirror | None = None
    privileged_dim = 0

    def __init__(self, hand: ReachHand, seed: int, config: ReachConfig | None = None) -> None:
        self.robot = hand.robot
        self.config = config or ReachConfig()
        self.substeps = self.config.substeps
        self.max_episode_steps = self.config.max_episode_steps
        self.policy_io = _policy_io(hand, self.config)
        self._tips = TipKinematics(hand.robot, hand.robot.chains)
        poses, goals = sample_goals(hand, self.config.pool_size, seed)
        self.state = {"poses": poses, "goals": goals}

    def model_spec(self) -> mujoco.MjSpec:
        return load_spec(self.robot.name)

    def start(self, worlds: Tensor, drawn: Tensor) -> Start:
        begin, end = (self.config.pool_size * drawn).long().unbind(-1)
        pose = self.state["poses"][begin]
        return Start(qpos=pose, qvel=torch.zeros_like(pose), command=self.state["goals"][end])

    def privileged(self, sim: BatchSim) -> Tensor:
        return torch.zeros(sim.num_worlds, 0, device=sim.device)

    def outcome(self, t: Transition, drawn: Tensor) -> Outcome:
        c = self.config
        distance = tip_distance(self._tips(t.joint_pos), t.command)
        rewards = {
            "distance": -c.distance_weight * distance.mean(-1),
            "near": c.near_weight * closeness(distance, c.near_scale_m),
            "action": -c.action_weight * mean_square(t.action),
            "action_rate": -c.action_rate_weight * mean_square(t.action - t.last_action),
        }
        never = torch.zeros(len(distance), dtype=torch.bool, device=distance.device)
        return Outcome(rewards, terminated=never, at_goal=(distance < TOLERANCE_M).all(-1))


def _policy_io(hand: ReachHand, config: ReachConfig) -> PolicyIO:
    """Scales bring each term to order one: 10 rad/s, one action step of lag, and an error of twice the tolerance."""
    low, high = soft_limits(hand.robot)
    n, bound = len(hand.robot.joints), hand.command_bound_m
    return PolicyIO(
        robot=hand.robot,
        terms=(
            ObservationTerm("joint_pos"),
            ObservationTerm("joint_vel", 0.1),
            ObservationTerm("target_error", 1 / config.action_scale_rad),
            ObservationTerm("tip_error", TIP_ERROR_SCALE),
        ),
        action=ActionSpec("position_delta", (config.action_scale_rad,) * n, (0.0,) * n, low, high),
        control_period_s=config.control_period_s,
        command=TensorSpec(
            "fingertip_goal", (3 * len(hand.robot.chains),), "m", "command", hand.command_frame, -bound, bound
        ),
    )
