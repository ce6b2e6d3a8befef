"""Nothing is broken: how often the safety filter would trip a sound robot all the same.

A policy must live with whatever it was trained for: its dynamics, its task's pushes, the errors of its sensors. The
filter runs beside it in training's own environment, which bounds the targets as the filter does and goes on after a
trip; what becomes of the robot then tells whether the trip was right. End stops do not give way here: at the time steps
of training they are soft, and a joint that leans on one sinks in further than a robot's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_rl.bundle.load import Bundle
from robot_rl.contract import RobotState
from robot_rl.runtime.checks import Cause, Severity, Target
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.safety import SafetyMemory, filter_command
from robot_rl_sim.backups.interval import clopper_pearson
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.sensor_readings import make_readings

MOST_SHARE = 0.01
"""Of the episodes may be tripped for no reason; more, beyond doubt, fails."""
FALL_S = 1.0
"""A trip at most this long before the task ends the episode as a failure was right."""


@dataclass
class Ordinary:
    """What became of all episodes."""

    period_s: float
    episodes: int = 0
    ticks: int = 0
    failed: int = 0
    """Episodes that the task ended: falls."""
    wrong: Counter[Cause] = field(default_factory=Counter)
    """Cause -> episodes that went on well after a trip."""
    right: Counter[Cause] = field(default_factory=Counter)
    """Cause -> episodes that failed within `FALL_S` of the trip."""

    @property
    def hours(self) -> float:
        return self.ticks * self.period_s / 3600.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, of the share of episodes that are tripped for no reason."""
        return clopper_pearson(self.wrong.total(), self.episodes)

    @property
    def problem(self) -> str:
        """Empty if the filter lets a sound robot work."""
        if self.interval[0] <= MOST_SHARE:
            return ""
        causes = ", ".join(f"{cause.value} ({n})" for cause, n in self.wrong.most_common())
        return f"a sound robot tripped in {self.wrong.total()} of {self.episodes} episodes: {causes}"


def figures(ordinary: Ordinary) -> dict[str, Any]:
    """As data."""
    low, high = ordinary.interval
    trips, hours = ordinary.wrong.total(), ordinary.hours
    return {
        "episodes": ordinary.episodes,
        "minutes": 60.0 * hours,
        "trips": trips,
        "trips_per_hour": trips / hours,
        "share": trips / ordinary.episodes,
        "share_low": low,
        "share_high": high,
        "causes": {cause.value: n for cause, n in ordinary.wrong.items()},
        "failed": ordinary.failed,
        "tripped_before_failing": ordinary.right.total(),
        "problem": ordinary.problem,
    }


@torch.no_grad()
def run_ordinary(bundle: Bundle, env: SimVecEnv, minutes: float, seed: int) -> Ordinary:
    """At least one episode in each world of `env`, and so many minutes in all. Uses up the environment."""
    period_s = bundle.contract.control_period_s
    limits = SafetyLimits.make(
        env.mdp.robot,
        bundle.contract,
        period_s,
        low_pass_hz=bundle.manifest.low_pass_hz,
        episode=bundle.manifest.episode,
    )
    env.limit_targets(bundle.manifest.low_pass_hz)
    env.reset(seed)
    ordinary = Ordinary(period_s)
    watches = [_Watch(limits) for _ in range(env.num_envs)]
    states = _States(env, limits)
    for _ in range(max(env.max_episode_steps, round(60.0 * minutes / (period_s * env.num_envs)))):
        inputs = {name: value.cpu().numpy() for name, value in env.policy_inputs().items()}
        outputs = bundle.policy.run_batch(inputs)
        targets = outputs["joint_target"].astype(np.float64)
        z = np.abs((outputs["obs"] - bundle.manifest.obs_mean) / bundle.manifest.obs_std).max(-1)
        for i, watch in enumerate(watches):
            watch.tick(states.of(i, inputs, watch.now_s), Target(targets[i], "policy", obs_z=float(z[i])), period_s)
        ordinary.ticks += env.num_envs
        step = env.step(torch.from_numpy(outputs["action"]).to(env.device))
        for i in (step.terminated | step.truncated).nonzero().squeeze(-1).tolist():
            watches[i].end(ordinary, bool(step.terminated[i]))
            watches[i] = _Watch(limits)
    for watch in watches:
        watch.end(ordinary, failed=False)
    return ordinary


class _Watch:
    """The filter beside one episode."""

    def __init__(self, limits: SafetyLimits) -> None:
        self.now_s = 0.0
        self._limits = limits
        self._memory = SafetyMemory.start(limits)
        self._trips: list[tuple[float, Cause]] = []
        """When a check that was green turned red, and which."""
        self._tripped = False

    def tick(self, state: RobotState[NDArray[Any]], target: Target, period_s: float) -> None:
        _, verdict, self._memory = filter_command(state, 0.0, target, self._limits, self._memory, self.now_s)
        tripped = verdict.severity >= Severity.HOLD
        if tripped and not self._tripped:
            self._trips.append((self.now_s, verdict.cause))
        self._tripped = tripped
        self.now_s += period_s

    def end(self, ordinary: Ordinary, failed: bool) -> None:
        if not self.now_s:
            return  # it never began
        ordinary.episodes += 1
        ordinary.failed += failed
        wrong = [cause for at_s, cause in self._trips if not failed or self.now_s - at_s > FALL_S]
        if wrong:
            ordinary.wrong[wrong[0]] += 1
        elif self._trips:
            ordinary.right[self._trips[0][1]] += 1


class _States:
    """What each robot of an environment measures."""

    def __init__(self, env: SimVecEnv, limits: SafetyLimits) -> None:
        self._env, self._limits = env, limits
        readings = make_readings(env.sim, env.mdp.robot, env.mdp.object_body)
        of_object = () if limits.object is None else limits.object.fields
        self._true = {name: readings[name] for name in (*limits.state_fields, *of_object)}
        self._fields: dict[str, NDArray[Any]] = {}
        self._pictured_s: NDArray[np.float64] | None = None
        """(num_worlds,) time of the picture of each object, since its episode began, if it is not the present."""

    def of(self, world: int, inputs: dict[str, NDArray[Any]], now_s: float) -> RobotState[NDArray[Any]]:
        if world == 0:
            self._read(inputs)
        fields = {name: value[world : world + 1].astype(np.float64) for name, value in self._fields.items()}
        if self._limits.object is not None:
            pictured_s = now_s if self._pictured_s is None else self._pictured_s[world]
            fields["object_stamp_s"] = np.array([pictured_s])
        return RobotState(**fields | {"stamp_s": np.array([now_s])})

    def _read(self, inputs: dict[str, NDArray[Any]]) -> None:
        sim, sensors = self._env.sim, self._env.imperfections.sensors
        if sensors.object_late:
            self._pictured_s = _numpy(sensors.object_sample_steps) * sim.model.opt.timestep
        self._fields = {n: inputs[n] if n in inputs else _numpy(reading(sim)) for n, reading in self._true.items()}
        true = _numpy(sim.joint_pos)
        sunk = true - true.clip(self._limits.lower, self._limits.upper)
        self._fields["joint_pos"] = self._fields["joint_pos"] - sunk


def _numpy(value: Tensor) -> NDArray[Any]:
    return value.double().cpu().numpy()
