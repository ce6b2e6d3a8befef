"""Imperfections: all by which a world differs from the model, and what decides on it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.chance import Chance
from robot_rl_sim.disturbances import PUSH_DRAWS, ActionLatency, PushConfig, Pushes, TorqueNoise
from robot_rl_sim.draws import Draws
from robot_rl_sim.mdp import Mdp
from robot_rl_sim.randomization import RandomizationConfig
from robot_rl_sim.randomizer import Randomizer
from robot_rl_sim.sensors import Sensors


class StepChance(NamedTuple):
    """Random numbers for one step of n worlds, (n, width) each."""

    outcome: Tensor
    torque: Tensor
    push: Tensor
    reading: Tensor


class StartChance(NamedTuple):
    """Random numbers for the starts of k episodes, (k, width) each."""

    start: Tensor
    draws: Tensor
    push: Tensor
    reading: Tensor


class Imperfections:
    """Dynamics, sensors, servos and pushes of every world, as a RandomizationConfig and a task ask for them. What an
    episode draws is in `draws`; what each part keeps besides is in its `state`; parts that are not asked for are None.
    """

    def __init__(self, sim: BatchSim, mdp: Mdp, config: RandomizationConfig, seed: int) -> None:
        """Raises ConfigError for what the robot cannot have."""
        n, robot, device, latency = sim.num_worlds, mdp.robot, sim.device, config.action_latency_steps
        measured = tuple(t.name for t in mdp.policy_io.contract.inputs if t.source == "state")
        self.draws = Draws()
        self.randomizer = Randomizer(sim, robot, config, self.draws)
        self.sensors = Sensors(sim, robot, measured, config.sensors, self.draws, mdp.object_body)
        self.latency = None
        if latency and latency[1] > 0:
            self.latency = ActionLatency(n, len(robot.joints), sim.substeps, latency, self.draws, device)
        share = config.torque_noise_share
        self.torque_noise = TorqueNoise(robot, share, device) if share else None
        pushes = mdp.pushes
        if config.push_speed_m_s:
            if not robot.floating_base:
                raise ConfigError(f"randomization push_speed_m_s: robot {robot.name!r} has no floating base to push")
            pushes = PushConfig(config.push_speed_m_s, config.push_interval_steps or PushConfig().interval_steps)
        self.pushes = Pushes(pushes, n, device) if pushes else None
        self.draws.allocate(n, device)

        torques, kicks, reading = len(robot.joints) if share else 0, PUSH_DRAWS if pushes else 0, self.sensors.draws
        self._step_widths = (mdp.outcome_draws, torques, kicks, reading)
        self._start_widths = (mdp.start_draws, len(self.draws.mirror), 1, reading)
        self.chance = Chance(
            n, sum(self._step_widths), sum(self._start_widths),
            lambda drawn, generator: self.sensors.draw_normal(drawn[..., -reading:], generator),
            torch.Generator(device).manual_seed(seed),
        )  # fmt: skip

    def of_step(self, drawn: Tensor) -> StepChance:
        """Which of a row of `chance.step()` is for what."""
        return StepChance(*drawn.split(self._step_widths, 1))

    def of_start(self, drawn: Tensor) -> StartChance:
        """Which of a row of `chance.start()` is for what."""
        return StartChance(*drawn.split(self._start_widths, 1))

    def servo_targets(self, target: Tensor, torque: Tensor) -> Tensor:
        """Target (n, n_joints) of the policy -> what the servos get in this control period, as `BatchSim.step` takes
        it; `torque` as in StepChance."""
        offset = self.torque_noise.offset(torque) if self.torque_noise else None
        bias = self.sensors.joint_bias
        if bias is not None:
            # A servo regulates what its own encoder says, with the same error that the policy sees.
            offset = -bias if offset is None else offset - bias
        if self.latency:
            return self.latency.apply(target, offset)
        return target if offset is None else target + offset

    def hold(self, worlds: Tensor, target: Tensor, push: Tensor) -> None:
        """Episodes begin in `worlds` (k,), whose servos hold `target` (k, n_joints); `push` as in StartChance."""
        if self.latency:
            self.latency.reset(worlds, target)
        if self.pushes:
            self.pushes.reset(worlds, push.squeeze(1))

    @property
    def state(self) -> dict[str, dict[str, Tensor]]:
        """The live tensors of each part, but for those of `chance`."""
        groups = {"draws": {"values": self.draws.values}, "sensors": self.sensors.state}
        if self.latency:
            groups["latency"] = self.latency.state
        if self.pushes:
            groups["pushes"] = self.pushes.state
        return groups
