"""Play a policy until the robot trips or falls, and keep the states that led there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.contract import RobotState
from robot_rl.runtime.checks import Cause, Severity, Target
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.safety import SafetyMemory, filter_command
from robot_rl_sim.backups.sources import Source
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.motors import GAIN_COLUMNS
from robot_rl_sim.sensor_readings import make_readings

LEADS_S = (0.0, 0.25, 0.5)
"""How long before a trip states are taken: a monitor that sees trouble coming would switch then."""
FIRST_S = 0.5
"""A policy does not stop before."""
WRONG_S = 1.0
"""How long a policy that has gone wrong may go on, if no check notices."""
HELD_S = 0.1
"""How long each random action lasts."""
FALL = "fall"
"""The task ended the episode before any check tripped."""


@dataclass(frozen=True, slots=True)
class Trips:
    """n worlds, each with the states of one episode that led to a trip."""

    episode: dict[str, Tensor]
    """The environment as the episodes began: their dynamics, sensors and servos."""
    qpos: Tensor
    """(steps, n, nq), of which those up to the trip are of the episode."""
    qvel: Tensor
    """(steps, n, nv)."""
    target: Tensor
    """(steps, n, n_joints) rad that the servos were given last."""
    step: Tensor
    """(n,) int64, of the trip; -1 where none came."""
    causes: dict[str, int]
    """How often each came first."""

    def before(self, lead_steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States so many control steps before the trip: which worlds have one (n,), qpos, qvel, target."""
        at = self.step - lead_steps
        there = (self.step >= 0) & (at >= 0)
        rows, worlds = at.clamp(min=0), torch.arange(len(at))
        return there, self.qpos[rows, worlds], self.qvel[rows, worlds], self.target[rows, worlds]


class _Watch:
    """The runtime's own safety filter on every world.

    It sees the truth, and end stops that do not give way: the errors of training's sensors are wider than a robot's and
    its end stops softer, and both would trip it in states that nobody needs to be saved from.
    """

    def __init__(self, env: SimVecEnv, limits: SafetyLimits) -> None:
        self._sim = env.sim
        readings = make_readings(env.sim, env.mdp.robot, env.mdp.object_body)
        fields = limits.state_fields if limits.object is None else (*limits.state_fields, *limits.object.fields)
        self._readings = {f: readings[f] for f in fields}
        self._limits = limits
        self._memory = [SafetyMemory.start(limits) for _ in range(env.num_envs)]

    def tripped(self, target: Tensor, alive: Tensor, now_s: float) -> dict[int, Cause]:
        """World -> cause, of those of the living whose checks ask for a backup in this tick."""
        causes = {}
        arrays = {f: reading(self._sim).double().cpu().numpy() for f, reading in self._readings.items()}
        arrays["joint_pos"] = arrays["joint_pos"].clip(self._limits.lower, self._limits.upper)
        wanted = target.double().numpy()
        for i in alive.nonzero().squeeze(-1).tolist():
            one = RobotState(**{f: v[i : i + 1] for f, v in arrays.items()} | {"stamp_s": np.array([now_s])})
            _, verdict, self._memory[i] = filter_command(
                one, 0.0, Target(wanted[i], "policy"), self._limits, self._memory[i], now_s
            )
            if verdict.severity >= Severity.HOLD:
                causes[i] = verdict.cause
        return causes


@torch.no_grad()
def collect(env: SimVecEnv, policy: OnnxPolicy, source: Source, limits: SafetyLimits, seed: int) -> Trips:
    """One episode of every world of `env`, which is as `source` asks; each until it trips, falls or ends."""
    n, period_s = env.num_envs, env.policy_io.contract.control_period_s
    generator = torch.Generator().manual_seed(seed)
    steps = env.max_episode_steps
    first, last = round(FIRST_S / period_s), steps - 1
    if source.driver == "random":
        last = min(last, first + round(WRONG_S / period_s))
    stops = torch.randint(min(first, last), last + 1, (n,), generator=generator)
    held = max(1, round(HELD_S / period_s))
    env.reset(seed)
    for name, _ in GAIN_COLUMNS[env.randomization.motor.kind].kp + GAIN_COLUMNS[env.randomization.motor.kind].kd:
        env.sim.model_field(name)  # so that it is part of the state below
    episode = env.state_dict()
    watch = _Watch(env, limits)
    alive = torch.ones(n, dtype=torch.bool)
    at = torch.full((n,), -1)
    causes: dict[str, int] = {}
    qpos, qvel, targets = [], [], []
    action = torch.zeros(n, env.action_dim)
    for step in range(steps):
        inputs = {name: value.cpu().numpy() for name, value in env.policy_inputs().items()}
        if source.driver == "policy":
            action = torch.from_numpy(policy.run_batch(inputs)["action"])
        elif source.driver == "random" and step % held == 0:
            action = 2 * torch.rand(action.shape, generator=generator) - 1
        target = env.policy_io.decode(action.clamp(-1, 1), torch.from_numpy(inputs["last_target"]))
        qpos.append(env.sim.qpos.clone().cpu())
        qvel.append(env.sim.qvel.clone().cpu())
        targets.append(torch.from_numpy(inputs["last_target"]).clone())
        found = {i: cause.value for i, cause in watch.tripped(target, alive, step * period_s).items()}
        if source.stops:
            found |= {i: "stopped" for i in (alive & (stops == step)).nonzero().squeeze(-1).tolist() if i not in found}
        for i, cause in found.items():
            at[i], alive[i] = step, False
            causes[cause] = causes.get(cause, 0) + 1
        result = env.step(action.to(env.device))
        ended = (result.terminated | result.truncated).cpu() & alive
        fell = result.terminated.cpu() & alive
        at[fell] = step
        if fell.any():
            causes[FALL] = causes.get(FALL, 0) + int(fell.sum())
        alive &= ~ended
        if not alive.any():
            break
    return Trips(episode, torch.stack(qpos), torch.stack(qvel), torch.stack(targets), at, causes)
