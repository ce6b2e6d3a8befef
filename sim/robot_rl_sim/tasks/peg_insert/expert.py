"""A scripted policy for peg-insert, as good or as bad as is wanted: above the hole, down, search in a spiral, push.

It sees what a trained policy sees, the measured joint positions and the commanded pose. It moves a posture whose peg is
where it wants it, and presses by adding what the arm's springs need for a force F at the tip: the torques Jᵀ F, divided
by kp. (Moving the target into the surface would press, too, but the springs of a bent arm then slip sideways by
millimetres.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.env import VecEnv
from robot_rl.errors import ConfigError
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.inverse_kinematics import damped_step, jacobian
from robot_rl_sim.tasks.peg_insert.mdp import PegInsert
from robot_rl_sim.tasks.peg_insert.scene import keypoints

APPROACH, DESCEND, SEARCH, PUSH = range(4)


@dataclass(frozen=True, slots=True)
class ExpertConfig:
    """Lengths in m; what moves, moves this far in a control step."""

    quality: float = 1.0
    """1: as good as it gets, 0: hopeless. The next four are what lack of it costs, each times 1 - quality."""
    misjudged_m: float = 0.008
    """Radius of the disc from which a further error of the hole's position is drawn, one per episode."""
    tremble: float = 0.15
    """Standard deviation of noise on each action."""
    careless_m: float = 0.01
    """Goes down this far beside the axis, besides `aligned_m`."""
    search_lost: float = 1.0
    """Share of the search radius that is not searched."""

    hover_m: float = 0.008
    """Above the rim, before going down."""
    approach_m: float = 0.008
    aligned_m: float = 0.0015
    descend_m: float = 0.0015
    press_n: float = 8.0
    """While searching."""
    search_m: float = 0.0005
    search_radius_m: float = 0.0032
    search_pitch_m: float = 0.0008
    """Between turns of the spiral: less than the clearance, or it passes the hole by."""
    settled_m: float = 0.0002
    """A pressed tip that moves less is on the surface."""
    found_m: float = 0.0007
    """A tip this far below the surface is in the hole."""
    patience: int = 15
    """Steps of pushing after which a tip that is no deeper than a quarter of what is asked searches again."""
    push_m: float = 0.003
    push_n: float = 15.0
    relax: float = 0.3
    """Share of the sideways load that is let go in each step of pushing."""

    def __post_init__(self) -> None:
        if not 0 <= self.quality <= 1:
            raise ConfigError(f"quality must lie in [0, 1], got {self.quality}")


class Expert:
    """obs (n, obs_dim) -> action (n, 7), for one environment. A command that it has not seen begins an episode."""

    def __init__(self, env: VecEnv, config: ExpertConfig | None = None, seed: int = 0) -> None:
        if not (isinstance(env, SimVecEnv) and isinstance(env.mdp, PegInsert)):
            raise ConfigError(f"the expert is for environments of peg-insert, got {type(env).__name__}")
        self.config = config or ExpertConfig()
        self._env = env
        self._task = env.mdp.config
        self._kinematics = env.mdp.kinematics
        self._generator = torch.Generator(env.device).manual_seed(seed)
        n, device = env.num_envs, env.device
        self._kp = torch.tensor([j.kp_nm_rad for j in env.mdp.robot.joints], device=device)
        self._kd = torch.tensor([j.kd_nms_rad for j in env.mdp.robot.joints], device=device)
        self.phase = torch.zeros(n, dtype=torch.int64, device=device)
        self._command = torch.full((n, 9), torch.nan, device=device)
        self._misjudged = torch.zeros(n, 2, device=device)
        self._posture = torch.zeros(n, len(self._kp), device=device)
        self._tip = torch.zeros(n, 3, device=device)  # where the posture has it, or soon will
        self._angle = torch.zeros(n, device=device)  # of the spiral, rad
        self._heading = torch.zeros(n, 2, device=device)  # of the search, unit vectors
        self._height = torch.zeros(n, device=device)  # of the measured tip, one step ago
        self._surface = torch.zeros(n, device=device)  # height at which the tip met something
        self._pushed = torch.zeros(n, dtype=torch.int64, device=device)  # steps

    def __call__(self, obs: Tensor) -> Tensor:
        inputs = self._env.policy_inputs()
        command, last_target = inputs["peg_goal"], inputs["last_target"]
        self._begin((command != self._command).any(-1), command, last_target)
        self._move(self._kinematics(inputs["joint_pos"])[:, 0])
        side = command[:, 6:8] - command[:, :2]
        goal = keypoints(self._tip, torch.atan2(side[:, 1], side[:, 0]))
        change = damped_step(self._kinematics, self._posture, goal)
        self._posture = self._posture + change
        tip_jacobian = jacobian(self._kinematics, self._posture)[:, :3]
        pressing = (self._force().unsqueeze(1) @ tip_jacobian).squeeze(1)
        torque = pressing + self._kd * change / self._task.control_period_s
        action = (self._posture + torque / self._kp - last_target) / self._task.action_scale_rad
        action = action / action.abs().amax(-1, keepdim=True).clamp(min=1.0)
        noise = torch.randn(action.shape, generator=self._generator, device=action.device)
        return (action + self._lack * self.config.tremble * noise).clamp(-1.0, 1.0)

    @property
    def _lack(self) -> float:
        return 1.0 - self.config.quality

    def _begin(self, new: Tensor, command: Tensor, last_target: Tensor) -> None:
        """Start afresh where `new` (n,)."""
        size, heading = torch.rand(2, len(new), generator=self._generator, device=new.device)
        error = (self._lack * self.config.misjudged_m * size.sqrt()).unsqueeze(-1) * _direction(2 * math.pi * heading)
        self._command = command
        self.phase = self.phase.masked_fill(new, APPROACH)
        self._angle = self._angle.masked_fill(new, 0.0)
        self._pushed = self._pushed.masked_fill(new, 0)
        new = new.unsqueeze(-1)
        self._misjudged = torch.where(new, error, self._misjudged)
        self._posture = torch.where(new, last_target, self._posture)
        self._tip = torch.where(new, self._kinematics(last_target)[:, 0], self._tip)

    def _move(self, measured: Tensor) -> None:
        """Next phase and next position of the tip, for where it is measured (n, 3)."""
        c, lack, tip = self.config, self._lack, self._tip
        hole, bottom = self._command[:, :2] + self._misjudged, self._command[:, 2:3]
        rim = bottom + self._task.command_depth_m
        above = torch.cat((hole, rim + c.hover_m), -1)

        height, rim_height = measured[:, 2], rim[:, 0]
        near = torch.linalg.vector_norm(above - measured, dim=-1) < c.aligned_m + lack * c.careless_m
        down = (self.phase == APPROACH) & near
        touched = self._pressing() & (self.phase == DESCEND) & ((height - self._height).abs() < c.settled_m)
        # What gives way far below the rim is no surface: a good estimate drops the peg straight into the hole.
        self._surface = torch.where(touched, torch.maximum(height, rim_height - 2 * c.found_m), self._surface)
        found = (touched | (self.phase == SEARCH)) & (height < self._surface - c.found_m)
        stuck = (self._pushed > c.patience) & (height > rim_height - 0.25 * self._task.command_depth_m)
        self._surface = torch.where(stuck, height, self._surface)
        search = touched | stuck
        self.phase = self.phase.masked_fill(down, DESCEND).masked_fill(search, SEARCH).masked_fill(found, PUSH)
        self._pushed = (self._pushed + 1) * (self.phase == PUSH)
        self._height = height

        searching = self.phase == SEARCH
        radius = self._radius()
        spiral = hole + radius.unsqueeze(-1) * _direction(self._angle)
        self._heading = _direction(self._angle + math.pi / 2)
        further = self._angle + c.search_m / radius.clamp(min=c.search_pitch_m / 2)
        self._angle = torch.where(searching, further, self._angle)

        step = above - tip
        step = step * (c.approach_m / torch.linalg.vector_norm(step, dim=-1, keepdim=True)).clamp(max=1.0)
        relaxed = tip[:, :2] + c.relax * (measured[:, :2] - tip[:, :2])
        moves = {
            APPROACH: tip + step,
            DESCEND: torch.cat((hole, torch.maximum(tip[:, 2:] - c.descend_m, rim)), -1),
            SEARCH: torch.cat((spiral, rim), -1),
            PUSH: torch.cat((relaxed, torch.maximum(measured[:, 2:] - c.push_m, bottom)), -1),
        }
        for phase, move in moves.items():
            self._tip = torch.where((self.phase == phase).unsqueeze(-1), move, self._tip)

    def _radius(self) -> Tensor:
        """(n,) m: of a spiral that goes out and comes back in, over and over."""
        largest = max(self.config.search_radius_m * (1 - self._lack * self.config.search_lost), 1e-6)
        gone = self.config.search_pitch_m * self._angle / (2 * math.pi)
        return largest - (largest - gone % (2 * largest)).abs()

    def _pressing(self) -> Tensor:
        """(n,) bool: down at the rim, or searching."""
        at_rim = self._tip[:, 2] <= self._command[:, 2] + self._task.command_depth_m
        return ((self.phase == DESCEND) & at_rim) | (self.phase == SEARCH)

    def _force(self) -> Tensor:
        """(n, 3) N: downwards, and against the friction of what is pressed."""
        c = self.config
        press = torch.zeros_like(self._angle).masked_fill(self._pressing(), c.press_n)
        friction = self._task.scene.friction * press.masked_fill(self.phase != SEARCH, 0.0)
        press = press.masked_fill(self.phase == PUSH, c.push_n)
        return torch.cat((friction.unsqueeze(-1) * self._heading, -press.unsqueeze(-1)), -1)


def _direction(angle: Tensor) -> Tensor:
    """Unit vectors (n, 2) at angles (n,) rad."""
    return torch.stack((angle.cos(), angle.sin()), -1)
