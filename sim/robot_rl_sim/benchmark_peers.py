"""What the simulation benchmark compares with: the physics alone, and the barest environment around it."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import torch
from mujoco.rollout import Rollout
from numpy.typing import NDArray

from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.models import default_qpos

Array = NDArray[np.float64]


class PhysicsOnly:
    """mujoco.rollout on what an environment just did: its states, every `segment` control steps, and its controls.

    This is the limit: the same physics steps, from the same states, under the same controls, with nothing else done.
    """

    def __init__(self, env: SimVecEnv, actions: torch.Tensor, segment: int) -> None:
        """`actions` (steps, n_envs, action_dim), with a whole number of segments; runs `env` on them."""
        states: list[Array] = []
        controls: list[Array] = []
        step = env.sim.step

        def recorded_step(ctrl: torch.Tensor) -> None:
            states.append(np.concatenate((np.zeros((env.num_envs, 1)), env.sim.qpos, env.sim.qvel), axis=1))
            per_substep = ctrl if ctrl.dim() == 3 else ctrl.unsqueeze(1).expand(-1, env.sim.substeps, -1)
            controls.append(per_substep.double().numpy())
            step(ctrl)

        env.sim.step = recorded_step  # type: ignore[method-assign]
        for action in actions:
            env.step(action)
        env.sim.step = step  # type: ignore[method-assign]

        starts = range(0, len(actions), segment)
        self._initial = np.concatenate([states[i] for i in starts])
        self._control = np.concatenate([np.concatenate(controls[i : i + segment], axis=1) for i in starts])
        self._model = env.sim.model
        threads = len(os.sched_getaffinity(0))
        self._rollout = Rollout(nthread=threads)
        self._data = [mujoco.MjData(self._model) for _ in range(threads)]
        n, steps = self._control.shape[:2]
        # Given in advance, as the environment's buffers are, so that no page fault is counted.
        self._state = np.zeros((n, steps, self._initial.shape[1]))
        self._sensordata = np.zeros((n, steps, self._model.nsensordata))
        self.env_steps = len(actions) * env.num_envs

    def run(self) -> int:
        """Do all recorded steps once; returns how many environment steps that is."""
        self._rollout.rollout(
            self._model, self._data, self._initial, self._control, state=self._state, sensordata=self._sensordata
        )
        return self.env_steps


class BareEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A task's model, stepped from Python, with the least that makes an environment: position targets in, qpos and qvel
    out, a reward on them, a time limit. No task does as little, so what is compared with it is not flattered.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, model: mujoco.MjModel, start: Array, substeps: int, max_episode_steps: int) -> None:
        self.model = model
        self.data = mujoco.MjData(model)
        self.start = start
        self.substeps = substeps
        self.max_episode_steps = max_episode_steps
        self.low, self.high = model.jnt_range[model.actuator_trnid[:, 0]].T
        self.steps = 0
        self.action_space = gym.spaces.Box(-1.0, 1.0, (model.nu,), np.float32)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (model.nq + model.nv,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.steps = 0
        self.data.qpos[:] = self.start
        mujoco.mj_forward(self.model, self.data)
        return self._obs(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.data.ctrl[:] = self.low + (self.high - self.low) * (0.5 + 0.5 * np.clip(action, -1.0, 1.0))
        mujoco.mj_step(self.model, self.data, self.substeps)
        self.steps += 1
        obs = self._obs()
        return obs, -float(obs @ obs), False, self.steps >= self.max_episode_steps, {}

    def _obs(self) -> NDArray[np.float32]:
        return np.concatenate((self.data.qpos, self.data.qvel)).astype(np.float32)


def bare_env(env: SimVecEnv) -> BareEnv:
    """The bare form of one of `env`'s environments, starting in its robot's default pose."""
    start = default_qpos(env.sim.model, env.mdp.robot)
    return BareEnv(env.sim.model, start, env.sim.substeps, env.max_episode_steps)
