"""Disturbances that an episode brings: pushes, late actions, random torques. What they keep per world is in `state`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.draws import Draws, Range, between


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
    """Lets targets arrive late, by a delay that is fixed within an episode, in whole physics steps."""

    def __init__(
        self, num_worlds: int, n_joints: int, substeps: int, control_steps: Range, draws: Draws, device: torch.device
    ) -> None:
        """`control_steps` are the shortest and the longest delay."""
        if not 0 <= control_steps[0] <= control_steps[1]:
            raise ConfigError(f"action latency must be an increasing pair of at least 0 steps, got {control_steps}")
        self._range = (control_steps[0] * substeps, control_steps[1] * substeps)
        self._substeps = substeps
        self._clock = torch.arange(substeps, device=device)
        self._draws = draws
        self._column = draws.add("action_latency_steps", ((0, 1),))
        earlier = math.ceil(control_steps[1])
        self.state = {
            "delay": torch.zeros(num_worlds, dtype=torch.int64, device=device),
            "targets": torch.zeros(num_worlds, earlier, n_joints, device=device),
        }
        """Targets on their way or in force, the last one first."""

    def reset(self, worlds: Tensor, target: Tensor) -> None:
        """New episodes, whose draws are drawn; `target` (k, n_joints) is what the servos held before them."""
        delay = between(self._draws.values[worlds, self._column.start], self._range)
        self.state["delay"].index_copy_(0, worlds, torch.round(delay).to(torch.int64))
        targets = self.state["targets"]
        targets.index_copy_(0, worlds, target.unsqueeze(1).expand(-1, targets.shape[1], -1))

    def apply(self, target: Tensor) -> Tensor:
        """Target (n, n_joints) -> what the servos get in each physics step, (n, substeps, n_joints)."""
        targets = torch.cat((target.unsqueeze(1), self.state["targets"]), 1)
        # Physics steps until this target arrives.
        missing = (self.state["delay"].unsqueeze(1) - self._clock).clamp(min=0)
        in_force = torch.div(missing + self._substeps - 1, self._substeps, rounding_mode="floor")
        self.state["targets"] = targets[:, :-1].contiguous()
        return targets.gather(1, in_force.unsqueeze(-1).expand(-1, -1, targets.shape[2]))


class TorqueNoise:
    """Random torque of every motor, as an offset of its servo's target: so the motor's limits hold for it, too."""

    def __init__(self, robot: RobotSpec, share: float, device: torch.device) -> None:
        """Uniform within ± `share` of each joint's effort limit, drawn for each control period."""
        offset = [share * j.effort_limit_nm / j.kp_nm_rad for j in robot.joints]
        self._offset = torch.tensor(offset, device=device)

    def apply(self, ctrl: Tensor, generator: torch.Generator) -> Tensor:
        """Targets (n, n_joints) or (n, substeps, n_joints) -> the same."""
        drawn = torch.empty(len(ctrl), ctrl.shape[-1], device=ctrl.device).uniform_(-1, 1, generator=generator)
        return torch.addcmul(ctrl, drawn if ctrl.dim() == 2 else drawn.unsqueeze(1), self._offset)
