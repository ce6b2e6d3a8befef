"""Disturbances that an episode brings: pushes, late actions, random torques. What they keep per world is in `state`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec
from robot_rl_sim.draws import Draws, Range, between

PUSH_DRAWS = 3
"""Numbers that decide on one push and on when the next one comes."""


@dataclass(frozen=True, slots=True)
class PushConfig:
    """Sudden changes of a floating base's horizontal velocity, as a shove at the hip would cause."""

    speed_m_s: tuple[float, float] = (0.3, 0.8)
    interval_steps: tuple[int, int] = (75, 150)
    """Control steps between pushes, both ends included."""

    def __post_init__(self) -> None:
        if not 0 <= self.speed_m_s[0] <= self.speed_m_s[1]:
            raise ConfigError(f"push speed must be an increasing pair, got {self.speed_m_s}")
        if not 1 <= self.interval_steps[0] <= self.interval_steps[1]:
            raise ConfigError(f"push interval must be an increasing pair of at least 1, got {self.interval_steps}")


class Pushes:
    """Kicks each world's base when its own countdown runs out."""

    def __init__(self, config: PushConfig, num_worlds: int, device: torch.device) -> None:
        self.config = config
        self.state = {"countdown": torch.zeros(num_worlds, dtype=torch.int64, device=device)}

    def reset(self, worlds: Tensor, drawn: Tensor) -> None:
        """New episodes in `worlds` (k,); `drawn` (k,) in [0, 1) says when their first pushes come."""
        self.state["countdown"][worlds] = self._intervals(drawn)

    def kick(self, drawn: Tensor) -> Tensor:
        """Count down; returns what the base's horizontal velocity changes by (n, 2) m/s, zero where no push is due. All
        that is left to chance is in `drawn` (n, PUSH_DRAWS), in [0, 1)."""
        countdown = self.state["countdown"]
        due = countdown == 1
        countdown.copy_(torch.where(due, self._intervals(drawn[:, 2]), countdown - 1))
        low, high = self.config.speed_m_s
        heading, speed = 2 * math.pi * drawn[:, 0], low + (high - low) * drawn[:, 1]
        return due.unsqueeze(-1) * torch.stack((speed * heading.cos(), speed * heading.sin()), -1)

    def _intervals(self, drawn: Tensor) -> Tensor:
        low, high = self.config.interval_steps
        return low + ((high + 1 - low) * drawn).long()


class ActionLatency:
    """Lets targets arrive late, by a delay that is fixed within an episode, in whole physics steps."""

    def __init__(
        self, num_worlds: int, n_joints: int, substeps: int, control_steps: Range, draws: Draws, device: torch.device
    ) -> None:
        """`control_steps` are the shortest and the longest delay."""
        if not 0 <= control_steps[0] <= control_steps[1]:
            raise ConfigError(f"action latency must be an increasing pair of at least 0 steps, got {control_steps}")
        self._range = (control_steps[0] * substeps, control_steps[1] * substeps)
        self._clock = torch.arange(substeps, device=device)
        self._draws = draws
        self._column = draws.add("action_latency_steps", ((0, 1),))
        earlier = math.ceil(control_steps[1])
        self.state = {
            "delay": torch.zeros(num_worlds, dtype=torch.int64, device=device),
            # Targets on their way or in force, the last one first.
            "targets": torch.zeros(num_worlds, earlier, n_joints, device=device),
            # Which row of all worlds' targets, the newest ahead of them, is in force in each physics step.
            "row": torch.zeros(num_worlds, substeps, dtype=torch.int64, device=device),
        }

    def reset(self, worlds: Tensor, target: Tensor) -> None:
        """New episodes, whose draws are drawn; `target` (k, n_joints) is what the servos held before them."""
        delay = between(self._draws.values[worlds, self._column.start], self._range)
        self.set_delay(worlds, torch.round(delay).to(torch.int64))
        targets = self.state["targets"]
        targets.index_copy_(0, worlds, target.unsqueeze(1).expand(-1, targets.shape[1], -1))

    def set_delay(self, worlds: Tensor, delay: Tensor) -> None:
        """From now on, targets of `worlds` (k,) arrive after `delay` (k,) physics steps."""
        self.state["delay"].index_copy_(0, worlds, delay)
        # The target of the period is missing for so many of its physics steps; each period before had its own.
        missing = (delay.unsqueeze(1) - self._clock).clamp(min=0)
        periods_ago = torch.div(missing + len(self._clock) - 1, len(self._clock), rounding_mode="floor")
        first = worlds.unsqueeze(1) * (self.state["targets"].shape[1] + 1)
        self.state["row"].index_copy_(0, worlds, first + periods_ago)

    def apply(self, target: Tensor, offset: Tensor | None = None) -> Tensor:
        """Target (n, n_joints) -> what the servos get in each physics step, (n, substeps, n_joints).

        `offset` (n, n_joints) comes on top of whatever target is in force, without delay.
        """
        targets = torch.cat((target.unsqueeze(1), self.state["targets"]), 1)
        self.state["targets"].copy_(targets[:, :-1])
        if offset is not None:
            targets = targets + offset.unsqueeze(1)
        rows = self.state["row"]
        return targets.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, rows.shape)


class TorqueNoise:
    """Random torque of every motor, as an offset of its servo's target: so the motor's limits hold for it, too."""

    def __init__(self, robot: RobotSpec, share: float, device: torch.device) -> None:
        """Uniform within ± `share` of each joint's effort limit, drawn for each control period."""
        offset = [share * j.effort_limit_nm / j.kp_nm_rad for j in robot.joints]
        self._offset = torch.tensor(offset, device=device)

    def offset(self, drawn: Tensor) -> Tensor:
        """(n, n_joints) rad, to be added to the targets of one control period, by `drawn` (n, n_joints) in [0, 1)."""
        return (2 * drawn - 1) * self._offset
