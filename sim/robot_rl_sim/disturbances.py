"""Disturbances that an episode brings: late actions and pushes. Each holds its per-world tensors in `state`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl_sim.backends.batch_sim import BatchSim


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

    def reset(self, worlds: Tensor, generator: torch.Generator) -> None:
        self.state["countdown"][worlds] = self._intervals(len(worlds), generator)

    def apply(self, sim: BatchSim, generator: torch.Generator) -> None:
        """Count down, and push the worlds that are due."""
        countdown = self.state["countdown"]
        countdown -= 1
        due = (countdown == 0).nonzero().squeeze(-1)
        if len(due) == 0:
            return
        heading, speed = torch.rand(2, len(due), generator=generator, device=due.device)
        heading = 2 * math.pi * heading
        low, high = self.config.speed_m_s
        speed = low + (high - low) * speed
        sim.qvel[due, :2] += torch.stack((speed * heading.cos(), speed * heading.sin()), -1).to(sim.qvel.dtype)
        countdown[due] = self._intervals(len(due), generator)

    def _intervals(self, n: int, generator: torch.Generator) -> Tensor:
        low, high = self.config.interval_steps
        return torch.randint(low, high + 1, (n,), generator=generator, device=generator.device)


class ActionLatency:
    """Keeps the last target in force for a delay that is fixed within an episode, in whole physics steps."""

    def __init__(
        self, num_worlds: int, n_joints: int, substeps: int, control_steps: tuple[float, float], device: torch.device
    ) -> None:
        if not 0 <= control_steps[0] <= control_steps[1] <= 1:
            raise ConfigError(f"action latency must be an increasing pair within [0, 1] steps, got {control_steps}")
        self._range = tuple(round(s * substeps) for s in control_steps)
        self._clock = torch.arange(substeps, device=device).view(1, -1, 1)
        self.state = {
            "delay": torch.zeros(num_worlds, dtype=torch.int64, device=device),
            "last_target": torch.zeros(num_worlds, n_joints, device=device),
        }

    def reset(self, worlds: Tensor, target: Tensor, generator: torch.Generator) -> None:
        """`target` (k, n_joints) is what the servos held before the first action."""
        low, high = self._range
        # A share of the range, so that with another physics step the same draw is the same time.
        share = torch.rand(len(worlds), generator=generator, device=worlds.device)
        self.state["delay"][worlds] = low + (share * (high - low + 1)).long()
        self.state["last_target"][worlds] = target

    def apply(self, target: Tensor) -> Tensor:
        """Target (n, n_joints) -> what the servos get in each physics step, (n, substeps, n_joints)."""
        arrived = self._clock >= self.state["delay"].view(-1, 1, 1)
        ctrl = torch.where(arrived, target.unsqueeze(1), self.state["last_target"].unsqueeze(1))
        self.state["last_target"].copy_(target)
        return ctrl
