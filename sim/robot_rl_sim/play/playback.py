"""Playback: one world of a task under a policy, stepped for someone to watch."""

from __future__ import annotations

import time
from collections.abc import Callable

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from robot_rl.training.evaluate import Policy
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.markers import Marker, command_markers
from robot_rl_sim.play.controls import CommandControls
from robot_rl_sim.video import place

Vector = NDArray[np.float64]

SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Simulated seconds in a second."""


class Playback:
    """World 0 of `env`. A viewer reads `data`, `markers` and `status`, and sets `paused`, `speed` and, where the task
    takes commands, `controls` and `by_hand`."""

    def __init__(self, env: SimVecEnv, policy: Policy, seed: int) -> None:
        self.env = env
        self.model: mujoco.MjModel = env.sim.model  # pyright: ignore[reportAttributeAccessIssue]
        self._data = mujoco.MjData(self.model)
        self.period_s = env.policy_io.contract.control_period_s
        self.paused = False
        self.speed = 1.0
        spec = next((t for t in env.policy_io.contract.inputs if t.source == "command"), None)
        self.controls = None if spec is None else CommandControls(spec)
        self.by_hand = False
        """Whether `controls` replace what the task asks for."""
        self._command_name = None if spec is None else spec.name
        self._policy = policy
        self._outcomes: list[bool | None] = []
        """Success of each episode so far; None where the task has no notion of it."""
        self._restart(env.reset(seed))

    def reset(self) -> None:
        """Start a new episode."""
        self._restart(self.env.reset())

    @torch.no_grad()
    def step(self) -> None:
        """One control period; an episode that ends is followed by the next."""
        if self.by_hand and self.controls is not None:
            self._obs = self.env.set_command(torch.from_numpy(self.controls.command()).float().unsqueeze(0))
        step = self.env.step(self._policy(self._obs))
        self._obs = step.obs
        self._steps += 1
        self._return += float(step.reward[0])
        if bool(step.terminated[0] | step.truncated[0]):
            self._outcomes.append(bool(step.info["success"][0]) if "success" in step.info else None)
            self._restart(step.obs)

    def command(self) -> Vector:
        """(command_dim,) that the policy sees now; empty where the task takes none."""
        if self._command_name is None:
            return np.zeros(0)
        return self.env.policy_inputs()[self._command_name][0].cpu().double().numpy()

    def take_over(self) -> None:
        """From now on the controls command, beginning with what is asked now."""
        if self.controls is not None and not self.by_hand:
            self.controls.take(self.command())
            self.by_hand = True

    def data(self) -> mujoco.MjData:
        """The world's state; the same object at every call."""
        return place(self.model, self._data, self.env.sim.qpos[0], self.env.sim.qvel[0])

    def markers(self, data: mujoco.MjData) -> list[Marker]:
        """What is asked of the robot, drawn at the state in `data`."""
        return command_markers(self.env.mdp, self.model, data, self.command())

    def status(self) -> str:
        """One line of where the playback stands."""
        done = len(self._outcomes)
        parts = [f"episode {done + 1}", f"{self._steps * self.period_s:.2f} s", f"return {self._return:.2f}"]
        if done and self._outcomes[-1] is not None:
            last = "success" if self._outcomes[-1] else "failure"
            parts.append(f"{sum(map(bool, self._outcomes))} of {done} succeeded, last: {last}")
        if self.speed != 1.0:
            parts.append(f"speed {self.speed:g}")
        return ", ".join([*parts, *(["paused"] if self.paused else []), *(["by hand"] if self.by_hand else [])])

    def change_speed(self, steps: int) -> None:
        """Up or down in SPEEDS."""
        nearest = min(range(len(SPEEDS)), key=lambda i: abs(SPEEDS[i] - self.speed))
        self.speed = SPEEDS[min(max(nearest + steps, 0), len(SPEEDS) - 1)]

    def run(self, show: Callable[[], bool]) -> None:
        """Step in time with the clock, as far as the machine can, until `show`, called after each step, says False."""
        due = time.monotonic()
        while show():
            if not self.paused:
                self.step()
            # What is late is not caught up: a viewer that hangs for a second must not race afterwards.
            due = max(due + self.period_s / self.speed, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def _restart(self, obs: torch.Tensor) -> None:
        self._obs, self._steps, self._return = obs, 0, 0.0
