"""`robot-rl bench env`: how fast the environments are, beside the physics alone and beside what others would use.

All contenders are measured in interleaved rounds on all cores; a value is the median over rounds, a ratio the median of
the rounds' own ratios, so that a machine that slows down for a while does not favour anyone. Ours does all of its task:
observation, reward, randomisation, sensor noise, latency, episode ends; as it is and, with a C++ compiler, compiled.
The peers step the same model in the barest environment there is (`BareEnv`); EnvPool steps its own tasks with these
robots, if it is installed (`make peers`).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import gymnasium as gym
import torch

from robot_rl.algorithms.compiling import compiler_found
from robot_rl.benchmarks.peers import peer_process, peers_python
from robot_rl.commands.result import Result, Row
from robot_rl.env import Task
from robot_rl_sim.benchmark_peers import PhysicsOnly, bare_env
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.tasks import TASKS

TASK_NAMES = ("leap-reach", "g1-velocity", "leap-cube", "shadow-reach")
NUM_ENVS = 64
PROCESSES = 8
"""Of AsyncVectorEnv and SubprocVecEnv: more than this does not make them faster on a laptop."""
ROUNDS = 5
ROUND_S = 1.0
RECORDED_STEPS = 80
SEGMENT = 10
"""Control steps after which the physics-only rollout takes up the record's state again, as episodes end in it."""

PHYSICS, ASYNC, SUBPROC, ENVPOOL = "mujoco.rollout", "gymnasium.AsyncVectorEnv", "sb3.SubprocVecEnv", "envpool"
ENVPOOL_TASKS = {
    "g1-balance": "G1JoystickFlatTerrain-v1",
    "g1-velocity": "G1JoystickFlatTerrain-v1",
    "leap-cube": "LeapCubeReorient-v1",
}
"""EnvPool's task with the same robot. What it computes per step differs from ours."""
ENVPOOL_WORKER = Path(__file__).with_name("envpool_worker.py")

Contender = Callable[[float], float]
"""Steps for about so many seconds and returns environment steps per second."""


def benchmark(rounds: int = ROUNDS, round_s: float = ROUND_S) -> Result:
    """Environment steps per second of the tasks, with their ratio to each reference."""
    rows = [row for name in TASK_NAMES for row in benchmark_task(TASKS[name], rounds, round_s)]
    return Result(ok=True, rows=tuple(rows), details={"rounds": rounds, "round_s": round_s, "processes": PROCESSES})


def benchmark_task(task: Task, rounds: int, round_s: float) -> list[Row]:
    env, compiled = (task.make_env(num_envs=NUM_ENVS, seed=0) for _ in range(2))
    assert isinstance(env, SimVecEnv)
    assert isinstance(compiled, SimVecEnv)
    with ExitStack() as stack:
        # Processes first: forking is safest before threads are busy.
        contenders = {ASYNC: stack.enter_context(_async(env)), SUBPROC: stack.enter_context(_subproc(env))}
        python = peers_python()
        if python is not None and task.name in ENVPOOL_TASKS:
            threads = str(len(os.sched_getaffinity(0)))
            worker = peer_process(python, ENVPOOL_WORKER, ENVPOOL_TASKS[task.name], str(NUM_ENVS), threads)
            contenders[ENVPOOL] = stack.enter_context(worker)
        actions = (
            torch.rand(RECORDED_STEPS, NUM_ENVS, env.action_dim, generator=torch.Generator().manual_seed(0)) * 2 - 1
        )
        contenders = {
            "ours": partial(_rate, _env_runner(env, actions)),
            PHYSICS: partial(_rate, PhysicsOnly(env, actions, SEGMENT).run),
        } | contenders
        if compiler_found():
            compiled.compile()
            contenders |= {"ours, compiled": partial(_rate, _env_runner(compiled, actions))}
        rates = _interleaved(contenders, rounds, round_s)
    for own in (env, compiled):
        own.close()

    name = f"env/{task.name}/{NUM_ENVS}"
    ours = {name: rates.pop("ours")}
    if "ours, compiled" in rates:
        ours[f"{name}/compiled"] = rates.pop("ours, compiled")
    rows = [
        Row(row, statistics.median(own), "env steps/s", reference, _median_ratio(own, theirs))
        for row, own in ours.items()
        for reference, theirs in rates.items()
    ]
    return rows + [Row(f"{name}/{k}", statistics.median(v), "env steps/s") for k, v in rates.items()]


def _interleaved(contenders: dict[str, Contender], rounds: int, round_s: float) -> dict[str, list[float]]:
    """Environment steps per second of each contender in each round. The first, untimed round warms up."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run(0.0)
    for _ in range(rounds):
        for name, run in contenders.items():
            rates[name].append(run(round_s))
    return rates


def _rate(run: Callable[[], int], seconds: float) -> float:
    """`run` does some environment steps and returns how many."""
    steps, start, elapsed = 0, time.perf_counter(), 0.0
    while not steps or elapsed < seconds:
        steps += run()
        elapsed = time.perf_counter() - start
    return steps / elapsed


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _env_runner(env: SimVecEnv, actions: torch.Tensor) -> Callable[[], int]:
    def run() -> int:
        for action in actions:
            env.step(action)
        return len(actions) * env.num_envs

    return run


@contextmanager
def _async(env: SimVecEnv) -> Iterator[Contender]:
    peers = gym.vector.AsyncVectorEnv([partial(bare_env, env)] * PROCESSES)
    peers.reset(seed=0)
    peers.action_space.seed(0)
    actions = [peers.action_space.sample() for _ in range(20)]

    def run() -> int:
        for action in actions:
            peers.step(action)
        return len(actions) * PROCESSES

    try:
        yield partial(_rate, run)
    finally:
        peers.close()


@contextmanager
def _subproc(env: SimVecEnv) -> Iterator[Contender]:
    from stable_baselines3.common.vec_env import SubprocVecEnv

    peers = SubprocVecEnv([partial(bare_env, env)] * PROCESSES, start_method="fork")
    peers.reset()
    actions = (
        torch.rand(20, PROCESSES, env.action_dim, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).numpy()
    )

    def run() -> int:
        for action in actions:
            peers.step(action)
        return len(actions) * PROCESSES

    try:
        yield partial(_rate, run)
    finally:
        peers.close()
