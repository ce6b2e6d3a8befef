"""`robot-rl bench env`: how fast the environments are, beside the physics alone and beside Gymnasium's.

All contenders run in one process, in interleaved rounds, on all cores; a value is the median over rounds, a ratio the
median of the rounds' own ratios, so that a machine that slows down for a while does not favour anyone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import gymnasium as gym
import torch

from robot_rl.commands.result import Result, Row
from robot_rl.env import Task
from robot_rl_sim.benchmark_peers import PLAIN_ENVS, PhysicsOnly
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.tasks import TASKS

NUM_ENVS = 64
ASYNC_ENVS = 8
"""Processes of AsyncVectorEnv: more than this does not make it faster on a laptop."""
ROUNDS = 5
ROUND_S = 1.0
RECORDED_STEPS = 80
SEGMENT = 10
"""Control steps after which the physics-only rollout takes up the record's state again, as episodes end in it."""

PHYSICS, SYNC, ASYNC = "mujoco.rollout", "gymnasium.SyncVectorEnv", "gymnasium.AsyncVectorEnv"

Runner = Callable[[], int]
"""Does some environment steps and returns how many."""


def benchmark(rounds: int = ROUNDS, round_s: float = ROUND_S) -> Result:
    """Environment steps per second of every task, with its ratio to each reference."""
    rows: list[Row] = []
    for task in TASKS.values():
        rows += _benchmark_task(task, rounds, round_s)
    return Result(ok=True, rows=tuple(rows), details={"rounds": rounds, "round_s": round_s, "async_envs": ASYNC_ENVS})


def _benchmark_task(task: Task, rounds: int, round_s: float) -> list[Row]:
    env = task.make_env(num_envs=NUM_ENVS, seed=0)
    assert isinstance(env, SimVecEnv)
    make_plain = partial(PLAIN_ENVS[task.name], env.policy_io.contract)
    # Processes first: forking is safest before threads are busy.
    processes = gym.vector.AsyncVectorEnv([make_plain] * ASYNC_ENVS)
    loop = gym.vector.SyncVectorEnv([make_plain] * NUM_ENVS)
    try:
        actions = (
            torch.rand(RECORDED_STEPS, NUM_ENVS, env.action_dim, generator=torch.Generator().manual_seed(0)) * 2 - 1
        )
        contenders: dict[str, Runner] = {
            "ours": _env_runner(env, actions),
            PHYSICS: PhysicsOnly(env, actions, SEGMENT).run,
            SYNC: _gymnasium_runner(loop),
            ASYNC: _gymnasium_runner(processes),
        }
        rates = _interleaved(contenders, rounds, round_s)
    finally:
        processes.close()
        loop.close()
        env.close()

    ours = rates.pop("ours")
    name = f"env/{task.name}/{NUM_ENVS}"
    rows = [
        Row(name, statistics.median(ours), "env steps/s", reference, _median_ratio(ours, theirs))
        for reference, theirs in rates.items()
    ]
    return rows + [Row(f"{name}/{k}", statistics.median(v), "env steps/s") for k, v in rates.items()]


def _interleaved(contenders: dict[str, Runner], rounds: int, round_s: float) -> dict[str, list[float]]:
    """Environment steps per second of each contender in each round. The first, untimed round warms up."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            steps, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < round_s:
                steps += run()
            rates[name].append(steps / elapsed)
    return rates


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _env_runner(env: SimVecEnv, actions: torch.Tensor) -> Runner:
    def run() -> int:
        for action in actions:
            env.step(action)
        return len(actions) * env.num_envs

    return run


def _gymnasium_runner(envs: gym.vector.VectorEnv) -> Runner:
    envs.reset(seed=0)
    envs.action_space.seed(0)
    actions = [envs.action_space.sample() for _ in range(20)]

    def run() -> int:
        for action in actions:
            envs.step(action)
        return len(actions) * envs.num_envs

    return run
