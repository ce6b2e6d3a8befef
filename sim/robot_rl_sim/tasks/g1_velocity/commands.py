"""What a walking robot is asked: a velocity, now and then another, from ranges that widen as it obeys."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.networks.policy_io import asked_to_move

COMMAND_DRAWS = 6
"""Numbers that decide on one command."""


@dataclass(frozen=True, slots=True)
class CommandConfig:
    forward_m_s: tuple[float, float] = (-0.5, 1.0)
    left_m_s: tuple[float, float] = (-0.4, 0.4)
    turn_rad_s: tuple[float, float] = (-1.0, 1.0)
    interval_steps: tuple[int, int] = (200, 500)
    """Control steps between commands, both ends included."""
    standing_share: float = 0.1
    heading_share: float = 0.0
    """Share of commands whose yaw rate turns the robot towards a direction, and so keeps it walking straight."""
    heading_gain: float = 0.5
    """1/s, from error of direction to yaw rate."""
    least_share: float = 0.3
    """Part of the ranges that is asked at level 0; at level 1 it is all."""
    level_step: float = 0.1
    raise_at: float = 0.7
    """An episode that obeys this well, 0 to 1, raises its world's level ..."""
    lower_at: float = 0.4
    """... and one that does worse than this lowers it."""

    def __post_init__(self) -> None:
        for name in ("forward_m_s", "left_m_s", "turn_rad_s"):
            low, high = getattr(self, name)
            if not low <= 0 <= high:
                raise ConfigError(f"command range {name} must hold 0, got {(low, high)}")
        if not 1 <= self.interval_steps[0] <= self.interval_steps[1]:
            raise ConfigError(f"command interval must be an increasing pair of at least 1, got {self.interval_steps}")
        for name in ("standing_share", "heading_share", "least_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


class VelocityCommands:
    """(n, 3): forward and left, m/s, in the frame of the pelvis' heading, and yaw rate, rad/s, left positive.

    Levels start evenly spread from 0 to 1 over the worlds: hard ones come down within a few episodes, and an evaluation
    that runs a few episodes sees the whole range.
    """

    def __init__(self, config: CommandConfig, num_worlds: int, device: torch.device | str) -> None:
        self.config = config
        ranges = torch.tensor((config.forward_m_s, config.left_m_s, config.turn_rad_s), device=device)
        self._low, self._high = ranges.unbind(-1)
        self.state = {
            "level": torch.linspace(0.0, 1.0, num_worlds, device=device),
            "countdown": torch.zeros(num_worlds, dtype=torch.int64, device=device),
            "heading": torch.full((num_worlds,), torch.nan, device=device),
        }

    def judge(self, worlds: Tensor, obeyed: Tensor) -> None:
        """Move the levels of `worlds` (k,) by how well their last episodes obeyed (k,), 0 to 1; NaN: there was none."""
        c, level = self.config, self.state["level"]
        change = (obeyed >= c.raise_at).float() - (obeyed < c.lower_at).float()
        level[worlds] = (level[worlds] + c.level_step * change).clamp(0.0, 1.0)

    def draw(self, worlds: Tensor, drawn: Tensor) -> Tensor:
        """New commands (k, 3) for `worlds` (k,), each until its countdown ends, by `drawn` (k, COMMAND_DRAWS) in
        [0, 1)."""
        command, countdown, heading = self._commands(self.state["level"][worlds], drawn)
        self.state["countdown"][worlds] = countdown
        self.state["heading"][worlds] = heading
        return command

    def _commands(self, level: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Commands (k, 3) of worlds at `level` (k,) by `drawn` (k, COMMAND_DRAWS) in [0, 1), for how many steps (k,)
        they hold, and the direction (k,) they turn to, NaN where to none."""
        c = self.config
        share = c.least_share + (1 - c.least_share) * level
        command = share.unsqueeze(-1) * (self._low + (self._high - self._low) * drawn[:, :3])
        stand = (drawn[:, 3] < c.standing_share) | ~asked_to_move(command)
        first, last = c.interval_steps
        countdown = first + ((last + 1 - first) * drawn[:, 4]).long()
        heading = torch.full_like(level, torch.nan)
        if c.heading_share > 0:
            turns = 2 * math.pi * drawn[:, 5] / c.heading_share - math.pi
            heading = torch.where((drawn[:, 5] < c.heading_share) & ~stand, turns, torch.nan)
        return command.masked_fill(stand.unsqueeze(-1), 0.0), countdown, heading

    def next(self, command: Tensor, heading: Tensor, drawn: Tensor) -> Tensor:
        """Commands (n, 3) from now on, for robots that face `heading` (n, 2), x and y in the world. Where one is due,
        `drawn` (n, COMMAND_DRAWS) in [0, 1) says which."""
        state = self.state
        due = state["countdown"] <= 1
        new, countdown, direction = self._commands(state["level"], drawn)
        command = torch.where(due.unsqueeze(-1), new, command)
        state["countdown"].copy_(torch.where(due, countdown, state["countdown"] - 1))
        state["heading"].copy_(torch.where(due, direction, state["heading"]))
        if self.config.heading_share > 0:
            off = self.state["heading"] - torch.atan2(heading[:, 1], heading[:, 0])
            rate = self.config.heading_gain * torch.atan2(off.sin(), off.cos())
            rate = torch.where(rate.isnan(), command[:, 2], rate.clamp(self._low[2], self._high[2]))
            command = torch.cat((command[:, :2], rate.unsqueeze(-1)), -1)
        return command
