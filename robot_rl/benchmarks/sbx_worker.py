"""Gradient updates of SBX's SAC, on request: runs in the interpreter of the peers' environment, without robot_rl.

Usage: sbx_worker.py OBS_DIM ACTION_DIM BATCH HIDDEN... Prints "ready", then for each number n read from standard input
does about n updates (in calls of 20, which SBX fuses into one compiled scan) and prints updates per second.
"""

from __future__ import annotations

import sys
import time

import gymnasium as gym
import numpy as np
from sbx import SAC  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.logger import Logger

FUSED = 20
ROWS = 10_000


class Shapes(gym.Env):  # type: ignore[type-arg]
    """Only its spaces are used."""

    def __init__(self, obs_dim: int, action_dim: int) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (action_dim,), np.float32)


def main() -> None:
    obs_dim, action_dim, batch, *hidden = map(int, sys.argv[1:])
    model = SAC(
        "MlpPolicy",
        Shapes(obs_dim, action_dim),
        buffer_size=ROWS,
        batch_size=batch,
        policy_kwargs={"net_arch": hidden},
    )
    model.set_logger(Logger(None, []))
    rng = np.random.default_rng(0)
    for _ in range(ROWS):
        obs, next_obs = rng.normal(size=(2, 1, obs_dim)).astype(np.float32)
        action = rng.uniform(-1, 1, (1, action_dim)).astype(np.float32)
        model.replay_buffer.add(obs, next_obs, action, rng.normal(size=1), np.zeros(1), [{}])
    model.train(FUSED, batch)  # compiles
    print("ready", flush=True)
    for line in sys.stdin:
        calls = max(1, int(line) // FUSED)
        start = time.perf_counter()
        for _ in range(calls):
            model.train(FUSED, batch)
        print(calls * FUSED / (time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
