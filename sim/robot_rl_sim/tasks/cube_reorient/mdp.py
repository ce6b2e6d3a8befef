"""cube-reorient: turn a cube in the hand to one goal orientation after the other, without dropping it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import torch
from torch import Tensor

from robot_rl.contract import ActionSpec, EpisodeSpec, ObjectStart, TensorSpec, TurnGoals
from robot_rl.networks.policy_io import ObservationTerm, PolicyIO
from robot_rl.networks.rotation import conjugate, in_body, multiply, rotation_angle, rotation_columns
from robot_rl.replay.mirror import Mirror
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.disturbances import PushConfig
from robot_rl_sim.mdp import Outcome, Start, Transition
from robot_rl_sim.tasks.actions import soft_limits
from robot_rl_sim.tasks.cube_reorient.hands import HandSetup
from robot_rl_sim.tasks.cube_reorient.scene import (
    CUBE,
    CUBE_MASS_KG,
    MAX_MOVED_M,
    MAX_TURNED_RAD,
    TIMESTEP_S,
    cube_spec,
    mount_pose,
    sample_grasps,
    touch_sensor,
    turn,
)

CUBE_WEIGHT_N = 9.81 * CUBE_MASS_KG
POSITION_SCALE = 20.0
"""5 cm of the cube's position count as 1."""


@dataclass(frozen=True, slots=True)
class CubeReorientConfig:
    control_period_s: float = 0.05
    max_episode_steps: int = 400
    pool_size: int = 256
    """Cubes let go in the hand, from whose resting states episodes start."""
    tolerance_rad: float = 0.4
    """A cube turned to within this of the goal has reached it."""
    goal_turn_rad: tuple[float, float] = (math.radians(50), math.radians(90))
    """The next goal is the last one turned about the palm's normal by an angle of this size, either way. The smallest
    is beyond twice the tolerance, so that a new goal is never reached already."""
    goals_for_success: int = 5
    """An episode of 20 s succeeds if it reaches so many goals and never drops the cube."""
    drop_distance_m: float = 0.1
    """The cube is lost once its centre is this far from where it lies in the hand."""
    turn_weight: float = 5.0
    """Per rad that the cube comes closer to its goal."""
    goal_weight: float = 5.0
    """Once for every goal reached."""
    drop_weight: float = 10.0
    away_weight: float = 0.05
    """Per 5 cm between the cube and where it lies in the hand."""
    action_weight: float = 0.005
    action_rate_weight: float = 0.01
    effort_weight: float = 0.05
    """For all joints at their torque limits."""


def goal_angle(goal: Tensor, rotation: Tensor) -> Tensor:
    """Angle (n,) rad left between the orientations (n, 4) of object and goal."""
    return rotation_angle(multiply(goal, conjugate(rotation)))


class CubeReorient:
    """See robot_rl_sim.mdp.Mdp. `seed` draws the pool of starts."""

    hold_steps = 1
    pushes: PushConfig | None = None
    mirror: Mirror | None = None
    object_body: str | None = CUBE
    start_draws = 3
    outcome_draws = 2

    def __init__(self, hand: HandSetup, num_envs: int, seed: int, config: CubeReorientConfig | None = None) -> None:
        self.hand = hand
        self.robot = hand.robot
        self.config = c = config or CubeReorientConfig()
        self.substeps = round(c.control_period_s / TIMESTEP_S)
        self.max_episode_steps = c.max_episode_steps
        self.policy_io = _policy_io(hand, c)
        # Pose of the cube as 3 and 6 numbers, its velocity, and the touch of each fingertip.
        self.privileged_dim = 3 + 6 + 6 + len(hand.robot.chains)
        self.state = {
            "starts": sample_grasps(hand, c.pool_size, seed),
            "angle_left": torch.zeros(num_envs),
            "goals_reached": torch.zeros(num_envs),
        }
        self._root_pos, self._root_quat = mount_pose(hand)
        self._home = self._in_root(self.state["starts"][:, -7:])[0].mean(0)
        self.episode: EpisodeSpec | None = EpisodeSpec(
            hand.grasp_rad,
            ObjectStart(
                pos_m=tuple(round(x, 4) for x in self._home.tolist()),
                pos_tolerance_m=MAX_MOVED_M,
                quat_wxyz=(1.0, 0.0, 0.0, 0.0),
                free_axis=hand.palm_normal,
                angle_tolerance_rad=MAX_TURNED_RAD,
                lost_distance_m=c.drop_distance_m,
            ),
            TurnGoals(hand.palm_normal, c.goal_turn_rad, c.tolerance_rad),
        )
        self._effort_limit = torch.tensor([j.effort_limit_nm for j in hand.robot.joints])

    def model_spec(self) -> mujoco.MjSpec:
        return cube_spec(self.hand)

    def start(self, worlds: Tensor, drawn: Tensor) -> Start:
        starts = self.state["starts"]
        qpos = starts[(len(starts) * drawn[:, 0]).long()]
        _, rotation = self._in_root(qpos[:, -7:])
        goal = self._next_goal(self._about_normal(rotation), drawn[:, 1:])
        self.state["angle_left"][worlds] = goal_angle(goal, rotation)
        self.state["goals_reached"][worlds] = 0
        return Start(qpos=qpos, qvel=qpos.new_zeros(len(worlds), qpos.shape[1] - 1), command=goal)

    def outcome(self, t: Transition, drawn: Tensor) -> Outcome:
        c, state = self.config, self.state
        position, rotation = self._in_root(t.sim.free_joint(CUBE)[0])
        away = torch.linalg.vector_norm(position - self._home, dim=-1)
        dropped = away > c.drop_distance_m
        angle = goal_angle(t.command, rotation)
        reached = (angle < c.tolerance_rad) & ~dropped
        rewards = {
            "turn": c.turn_weight * (state["angle_left"] - angle),
            "goal": c.goal_weight * reached.float(),
            "drop": -c.drop_weight * dropped.float(),
            "away": -c.away_weight * away / 0.05,
            "action": -c.action_weight * t.action.square().mean(-1),
            "action_rate": -c.action_rate_weight * (t.action - t.last_action).square().mean(-1),
            "effort": -c.effort_weight * (t.sim.joint_effort.float() / self._effort_limit).square().mean(-1),
        }
        goal = torch.where(reached.unsqueeze(-1), self._next_goal(t.command, drawn), t.command)
        state["angle_left"].copy_(goal_angle(goal, rotation))
        state["goals_reached"].add_(reached)
        goals = state["goals_reached"].clone()
        return Outcome(rewards, dropped, goals >= c.goals_for_success, goal, {"consecutive_goals": goals})

    def privileged(self, sim: BatchSim) -> Tensor:
        pose, velocity = sim.free_joint(CUBE)
        position, rotation = self._in_root(pose)
        touch = [sim.sensor(touch_sensor(chain.name)).float() / CUBE_WEIGHT_N for chain in self.robot.chains]
        return torch.cat(
            (
                POSITION_SCALE * (position - self._home),
                rotation_columns(rotation),
                velocity[:, :3].float() / 0.2,
                velocity[:, 3:].float() / 4.0,
                *touch,
            ),
            dim=-1,
        )

    def _in_root(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Position (n, 3) m and orientation (n, 4) in the root body's frame, from a pose (n, 7) in the world."""
        root_pos, root_quat = self._root_pos.to(pose), self._root_quat.to(pose)
        return in_body(pose[:, :3] - root_pos, root_quat).float(), multiply(conjugate(root_quat), pose[:, 3:]).float()

    def _about_normal(self, rotation: Tensor) -> Tensor:
        """The turn about the palm's normal (n, 4) that is nearest to an orientation (n, 4)."""
        along = rotation[:, 1:] @ torch.tensor(self.hand.palm_normal).to(rotation)
        return turn(self.hand, 2 * torch.atan2(along, rotation[:, 0]))

    def _next_goal(self, goal: Tensor, drawn: Tensor) -> Tensor:
        """Goals (n, 4) that follow on `goal` (n, 4), by `drawn` (n, 2) in [0, 1)."""
        low, high = self.config.goal_turn_rad
        size, side = drawn.unbind(-1)
        angle = (low + (high - low) * size) * torch.where(side < 0.5, -1.0, 1.0)
        return multiply(turn(self.hand, angle), goal)


def _policy_io(hand: HandSetup, config: CubeReorientConfig) -> PolicyIO:
    """Scales bring each term to order one: 10 rad/s, two action steps of lag, 5 cm."""
    low, high = soft_limits(hand.robot)
    n = len(hand.robot.joints)
    return PolicyIO(
        robot=hand.robot,
        terms=(
            ObservationTerm("joint_pos"),
            ObservationTerm("joint_vel", 0.1),
            ObservationTerm("target_error", 0.5 / hand.action_scale_rad),
            ObservationTerm("object_pos", POSITION_SCALE),
            ObservationTerm("object_rotation"),
            ObservationTerm("goal_rotation"),
        ),
        action=ActionSpec("position_delta", (hand.action_scale_rad,) * n, (0.0,) * n, low, high),
        control_period_s=config.control_period_s,
        command=TensorSpec("goal_quat_wxyz", (4,), "1", "command", "root body, scalar first", -1.05, 1.05),
    )
