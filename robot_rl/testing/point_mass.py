"""PointMassEnv: a learnable environment whose optimum is known exactly, for tests and for trying an installation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from robot_rl.env import Step, Task, refuse_backend
from robot_rl.errors import ConfigError, EnvError


class PointMassEnv:
    """Push unit point masses to the origin; a linear-quadratic problem, one double integrator per axis.

    Dynamics, with a in [-1, 1] m/s² and dt = 0.25 s:   v' = v + dt a,   p' = p + dt v'
    Reward:   -Σ_axes (p² + 0.1 v² + 0.7 a²), before the step. Episodes start at rest, p uniform in [-1, 1], and last
    `max_episode_steps`. Leaving |p| <= 3 m terminates with reward -50; the optimum never comes near.
    obs (n, 2 n_axes) = (p, v). Success: all |p| < 0.1 m at the end.

    The optimum a = -K (p, v) never saturates (|K₁| < 1), so `optimal_gain` and `optimal_return` are exact.
    Raises EnvError for actions of another shape, outside [-1, 1] or not finite, naming the first such env.
    """

    dt_s = 0.25
    start_m = 1.0
    bound_m = 3.0
    fall_reward = -50.0
    velocity_cost = 0.1
    action_cost = 0.7

    def __init__(self, num_envs: int, seed: int = 0, n_axes: int = 1, max_episode_steps: int = 20) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs must be at least 1, got {num_envs}")
        self.num_envs = num_envs
        self.obs_dim, self.action_dim = 2 * n_axes, n_axes
        self.max_episode_steps = max_episode_steps
        self.device = torch.device("cpu")
        self._generator = torch.Generator().manual_seed(seed)
        self._pos = torch.zeros(num_envs, n_axes)
        self._vel = torch.zeros(num_envs, n_axes)
        self._steps = torch.zeros(num_envs, dtype=torch.int64)
        self._return = torch.zeros(num_envs)
        self.reset()

    def reset(self, seed: int | None = None) -> Tensor:
        if seed is not None:
            self._generator.manual_seed(seed)
        self._start(torch.ones(self.num_envs, dtype=torch.bool))
        return self._obs()

    def step(self, action: Tensor) -> Step:
        self._check(action)
        reward = -(self._pos**2 + self.velocity_cost * self._vel**2 + self.action_cost * action**2).sum(-1)
        self._vel = self._vel + self.dt_s * action
        self._pos = self._pos + self.dt_s * self._vel
        terminated = (self._pos.abs() > self.bound_m).any(-1)
        reward = torch.where(terminated, self.fall_reward, reward)
        self._steps = self._steps + 1
        self._return = self._return + reward
        truncated = (self._steps >= self.max_episode_steps) & ~terminated
        info = {
            "episode_return": self._return,
            "episode_length": self._steps,
            "success": truncated & (self._pos.abs() < 0.1).all(-1),
            "reward/total": reward,
        }
        final_obs = self._obs()
        self._start(terminated | truncated)
        return Step(self._obs(), reward, terminated, truncated, final_obs, info)

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "pos": self._pos,
            "vel": self._vel,
            "steps": self._steps,
            "return": self._return,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._pos, self._vel = state["pos"].clone(), state["vel"].clone()
        self._steps, self._return = state["steps"].clone(), state["return"].clone()
        self._generator.set_state(state["generator"])

    def close(self) -> None:
        """Nothing to release."""

    @classmethod
    def optimal_gain(cls, gamma: float) -> Tensor:
        """K (2,) of a = -K (p, v), optimal for the infinite horizon discounted by gamma: the fixed point of the
        Riccati recursion P = Q + γ AᵀP(A - BK)."""
        A, B, Q, R = cls._linear_quadratic()
        P = Q
        K = torch.zeros(2, dtype=torch.float64)
        for _ in range(2000):
            K = gamma * (B @ P @ A) / (R + gamma * (B @ P @ B))
            P = Q + gamma * A.T @ P @ (A - torch.outer(B, K))
        return K

    @classmethod
    def optimal_return(cls, gamma: float, n_axes: int = 1, max_episode_steps: int = 20) -> float:
        """Expected undiscounted return of one episode under `optimal_gain(gamma)`."""
        A, B, Q, R = cls._linear_quadratic()
        K = cls.optimal_gain(gamma)
        closed, cost = A - torch.outer(B, K), Q + R * torch.outer(K, K)
        total, power = torch.zeros_like(Q), torch.eye(2, dtype=torch.float64)
        for _ in range(max_episode_steps):
            total += power.T @ cost @ power
            power = closed @ power
        # The start is uniform in ±start_m at rest, so that E[p²] = start_m² / 3.
        return -n_axes * float(total[0, 0]) * cls.start_m**2 / 3

    @classmethod
    def _linear_quadratic(cls) -> tuple[Tensor, Tensor, Tensor, float]:
        """A (2, 2), B (2,), Q (2, 2), R of one axis."""
        dt = cls.dt_s
        A = torch.tensor([[1.0, dt], [0.0, 1.0]], dtype=torch.float64)
        B = torch.tensor([dt * dt, dt], dtype=torch.float64)
        return A, B, torch.diag(torch.tensor([1.0, cls.velocity_cost], dtype=torch.float64)), cls.action_cost

    def _obs(self) -> Tensor:
        return torch.cat((self._pos, self._vel), dim=-1)

    def _start(self, mask: Tensor) -> None:
        start = (2 * torch.rand(self._pos.shape, generator=self._generator) - 1) * self.start_m
        self._pos = torch.where(mask.unsqueeze(-1), start, self._pos)
        self._vel = torch.where(mask.unsqueeze(-1), 0.0, self._vel)
        self._steps = torch.where(mask, 0, self._steps)
        self._return = torch.where(mask, 0.0, self._return)

    def _check(self, action: Tensor) -> None:
        if action.shape != self._pos.shape:
            raise EnvError(f"action has shape {tuple(action.shape)}; expected {tuple(self._pos.shape)}")
        bad = ~((action.abs() <= 1).all(-1))  # also true for NaN
        if bad.any():
            env = int(bad.nonzero()[0])
            raise EnvError(f"action of env {env} is outside [-1, 1] or not finite: {action[env].tolist()}")


def make_env(
    *,
    num_envs: int,
    seed: int,
    randomize: bool = True,
    device: str = "cpu",
    num_threads: int = 0,
    backend: str = "auto",
) -> PointMassEnv:
    """See robot_rl.env.EnvFactory. There is nothing to randomise."""
    refuse_backend(backend)
    if device != "cpu":
        raise ConfigError(f"point-mass runs on the cpu, not on {device!r}")
    return PointMassEnv(num_envs, seed)


_AMOUNTS = {
    "num_envs": 8,
    "total_env_steps": 12_000,
    "warmup_env_steps": 1_000,
    "updates_per_env_step": 0.2,
    "buffer_size": 20_000,
    "evaluate_every": 4_000,
    "checkpoint_every": 4_000,
    "gamma": 0.95,
    "tau": 0.02,
}
_PRESET = {
    **_AMOUNTS,
    "learning_rate": 2e-3,
    "initial_alpha": 0.1,
    "actor_hidden": (64, 64),
    "critic_hidden": (64, 64),
}

POINT_MASS = Task(
    name="point-mass",
    summary="Test task with a known optimum: push a point mass to the origin (learned in ten seconds)",
    robot=None,
    make_env=make_env,
    presets={
        "sac": _PRESET,
        # Its targets move at every second update only.
        "dsact": {**_PRESET, "tau": 0.04, "alpha_learning_rate": 2e-3, "activation": "relu"},
        "arsq": {
            **_AMOUNTS,
            "total_env_steps": 16_000,
            "lr_decay": True,
            "learning_rate": 1e-3,
            "batch_size": 128,
            "hidden": (64, 64),
            "activation": "relu",
            "levels": 1,
            "bins": 15,
            "alpha": 0.1,
        },
    },
)
