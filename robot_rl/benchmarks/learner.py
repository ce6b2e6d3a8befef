"""`robot-rl bench learner`: gradient updates and whole training steps per second, beside Stable-Baselines3 and SBX.

Same networks, batch, data and machine, in interleaved rounds; a rate is the median over rounds. Each contender is
measured on every number of torch threads and keeps the best; SBX chooses its threads itself. SBX needs jax and has an
environment of its own (`make peers`, found as .venv-peers or by ROBOT_RL_PEERS); without it, its rows are left out.
Each form of ours is a row beside each peer: plain, compiled, and compiled with bfloat16 products.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro

from robot_rl.benchmarks.peers import peer_process, peers_python
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl.algorithms.algorithm import Algorithm

SIZES = {"HalfCheetah-v5": (17, 6), "Humanoid-v5": (348, 17)}
"""Observation and action dimensions of the Gymnasium environments after which the rows are named."""
ROWS = 10_000
"""Transitions to sample from."""

LEAST = {
    ("sac-compiled", "sb3"): 2.2,
    ("sac-compiled", "sbx"): 1.25,
    ("sac-bf16", "sb3"): 2.8,
    ("end-to-end-compiled", "sb3"): 2.0,
}
"""Form of ours and peer: ratio of their rates that is asked for, on two cores and at the default amounts."""
DSACT_LONGEST = 1.6
"""Time of a DSAC-T update over that of SAC's of the same form."""

SBX_WORKER = Path(__file__).with_name("sbx_worker.py")

Run = Callable[[int], float]
"""Does about n updates and returns updates per second."""


@dataclass(frozen=True)
class Amounts:
    """How much is measured, and of what."""

    batch: int = 256
    """Transitions per update."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of all networks."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of torch threads, of which each contender keeps its best."""
    rounds: int = 5
    """Interleaved rounds, after one to warm up."""
    updates: int = 60
    """Updates per round and contender."""
    compile: bool = True
    """Also measure the compiled forms, which take a C++ compiler and half a minute each."""
    env: str = "HalfCheetah-v5"
    """Gymnasium environment of the whole training."""
    env_steps: int = 2_500
    """Steps of one such training; 0 leaves them out."""
    env_warmup: int = 500
    """Steps before its first update."""
    env_window: int = 500
    """Rates are medians over windows of this many steps, the first after the warm-up, with the compiling, left out."""


def benchmark(sizes: tuple[str, ...] = tuple(SIZES), amounts: tyro.conf.OmitArgPrefixes[Amounts] = Amounts()) -> Result:
    """Of the environments in `sizes` only the dimensions count: updates are made on random transitions."""
    if unknown := sorted(set(sizes) - SIZES.keys()):
        raise ConfigError(f"unknown size {', '.join(unknown)}; valid: {', '.join(SIZES)}")
    if 0 < amounts.env_steps < (least := amounts.env_warmup + 3 * amounts.env_window):
        raise ConfigError(
            f"env_steps must be 0, or env_warmup + 3 env_window = {least} or more; got {amounts.env_steps}"
        )
    rows: list[Row] = []
    for env in sizes:
        rates = _measure(*SIZES[env], amounts)
        rows += [Row(f"learner/updates/{env}/{name}", rate, "updates/s") for name, rate in rates.items()]
        peers = [peer for peer in ("sb3", "sbx") if peer in rates]
        rows += [
            Row(f"learner/{ours}/{env}/{peer}", rate, "updates/s", peer, rate / rates[peer])
            for ours, rate in rates.items()
            if ours not in peers
            for peer in peers
        ]
        for form in ("dsact", "dsact-compiled"):
            if form in rates:
                sac = form.replace("dsact", "sac")
                rows.append(Row(f"learner/{form}/{env}/time", 1e3 / rates[form], "ms", sac, rates[sac] / rates[form]))
    if amounts.env_steps:
        rows += _end_to_end(amounts)
    short = [text for row in rows if (text := _falls_short(row))]
    return Result(not short, tuple(rows), "; ".join(short), asdict(amounts))


def _falls_short(row: Row) -> str:
    """What a row misses, or nothing."""
    _, form, _, *_ = row.name.split("/")
    least = LEAST.get((form, row.reference or ""))
    if least and row.ratio is not None and row.ratio < least:
        return f"{row.name} is {row.ratio:.2f}, asked {least}"
    if row.name.endswith("/time") and row.ratio is not None and row.ratio > DSACT_LONGEST:
        return f"{row.name} is {row.ratio:.2f} times {row.reference}'s, asked at most {DSACT_LONGEST}"
    return ""


def _measure(obs_dim: int, action_dim: int, amounts: Amounts) -> dict[str, float]:
    """Updates per second of each contender at its best number of threads."""
    import torch

    with ExitStack() as stack:
        hidden = amounts.hidden
        small: dict[str, Any] = {"actor_hidden": hidden, "critic_hidden": hidden, "activation": "relu"}
        small["batch_size"] = amounts.batch
        torch_runs: dict[str, Run] = {
            "sac": _ours(obs_dim, action_dim, "sac", **small),
            "dsact": _ours(obs_dim, action_dim, "dsact", **small),
            "sb3": _sb3(obs_dim, action_dim, amounts),
        }
        if amounts.compile:
            torch_runs["sac-compiled"] = _ours(obs_dim, action_dim, "sac", **small, compile=True)
            torch_runs["dsact-compiled"] = _ours(obs_dim, action_dim, "dsact", **small, compile=True)
            bf16: dict[str, Any] = {"compile": True, "precision": "bfloat16"}
            torch_runs["sac-bf16"] = _ours(obs_dim, action_dim, "sac", **small, **bf16)
        python = peers_python()
        numbers = map(str, (obs_dim, action_dim, amounts.batch, *hidden))
        sbx = stack.enter_context(peer_process(python, SBX_WORKER, *numbers)) if python else None
        rates: dict[tuple[str, int], list[float]] = {}
        for round_ in range(amounts.rounds + 1):
            for threads in amounts.threads:
                torch.set_num_threads(threads)
                for name, run in torch_runs.items():
                    rate = run(amounts.updates)
                    if round_:  # the first warms up, and compiles
                        rates.setdefault((name, threads), []).append(rate)
            if sbx:
                rate = sbx(amounts.updates)
                if round_:
                    rates.setdefault(("sbx", 0), []).append(rate)
    torch.set_num_threads(1)
    best: dict[str, float] = {}
    for (name, _), values in rates.items():
        best[name] = max(best.get(name, 0.0), statistics.median(values))
    return best


def _ours(obs_dim: int, action_dim: int, algo: str, **changes: Any) -> Run:
    import torch

    from robot_rl.algorithms.algorithm import get_algorithm
    from robot_rl.replay.ring_buffer import RingBuffer

    entry = get_algorithm(algo)
    algorithm: Algorithm = entry.make(entry.config(**changes), obs_dim, action_dim)
    replay = RingBuffer(ROWS, obs_dim, action_dim)
    action = torch.rand(ROWS, action_dim) * 2 - 1
    zeros = torch.zeros(ROWS)
    replay.add(torch.randn(ROWS, obs_dim), action, torch.randn(ROWS), zeros, zeros, torch.randn(ROWS, obs_dim))

    def run(updates: int) -> float:
        start = time.perf_counter()
        for _ in range(updates):
            algorithm.update(replay.sample(changes["batch_size"]))
        return updates / (time.perf_counter() - start)

    return run


def _sb3(obs_dim: int, action_dim: int, amounts: Amounts) -> Run:
    import gymnasium as gym
    import numpy as np
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import Logger

    class Shapes(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        action_space = gym.spaces.Box(-1, 1, (action_dim,), np.float32)

    model = SAC("MlpPolicy", Shapes(), buffer_size=ROWS, device="cpu", policy_kwargs={"net_arch": list(amounts.hidden)})
    model.set_logger(Logger(None, []))
    rng = np.random.default_rng(0)
    assert model.replay_buffer is not None
    for _ in range(ROWS):
        obs, next_obs = rng.normal(size=(2, 1, obs_dim)).astype(np.float32)
        action = rng.uniform(-1, 1, (1, action_dim)).astype(np.float32)
        model.replay_buffer.add(obs, next_obs, action, rng.normal(size=1), np.zeros(1), [{}])

    def run(updates: int) -> float:
        start = time.perf_counter()
        model.train(updates, amounts.batch)
        return updates / (time.perf_counter() - start)

    return run


def _end_to_end(amounts: Amounts) -> list[Row]:
    """Environment steps per second of training at one update per step, once it has warmed up and compiled."""
    import tempfile

    import torch

    with tempfile.TemporaryDirectory() as folder:
        contenders: dict[str, Callable[[int], float]] = {
            "end-to-end": partial(_train_ours, Path(folder), amounts),
            "sb3": partial(_train_sb3, amounts),
        }
        if amounts.compile:
            contenders["end-to-end-compiled"] = partial(_train_ours, Path(folder), amounts, compile=True)
        rates: dict[tuple[str, int], list[float]] = {}
        for _ in range(3):
            for threads in amounts.threads:
                for name, train in contenders.items():
                    torch.set_num_threads(threads)
                    rates.setdefault((name, threads), []).append(train(threads))
    torch.set_num_threads(1)
    best = {n: max(statistics.median(v) for (name, _), v in rates.items() if name == n) for n in contenders}
    rows = [
        Row(f"learner/{name}/{amounts.env}/sb3", rate, "env steps/s", "sb3", rate / best["sb3"])
        for name, rate in best.items()
        if name != "sb3"
    ]
    return [*rows, Row(f"learner/end-to-end/{amounts.env}/sb3/rate", best["sb3"], "env steps/s")]


def _train_ours(folder: Path, amounts: Amounts, threads: int, compile: bool = False) -> float:
    from robot_rl.env import get_task
    from robot_rl.training.config import make_config
    from robot_rl.training.loop import train

    config = make_config(
        get_task(f"gym:{amounts.env}"), "sac", total_env_steps=amounts.env_steps, warmup_env_steps=amounts.env_warmup,
        runs=folder, evaluate_episodes=1, evaluate_every=0, checkpoint_every=0, torch_threads=threads,
        log_every=amounts.env_window, buffer_size=10_000, compile=compile,
    )  # fmt: skip
    with (train(config).run_dir / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    # The last row has the final evaluation in it.
    first = amounts.env_warmup + amounts.env_window
    return statistics.median(float(row["env_steps_per_s"]) for row in rows[:-1] if int(row["step"]) > first)


def _train_sb3(amounts: Amounts, threads: int) -> float:
    from stable_baselines3 import SAC
    from stable_baselines3.common.callbacks import BaseCallback

    class Clock(BaseCallback):
        times: ClassVar[list[float]] = []

        def _on_step(self) -> bool:
            if self.num_timesteps % amounts.env_window == 0:
                self.times.append(time.perf_counter())
            return True

    clock = Clock()
    clock.times.clear()
    model = SAC("MlpPolicy", amounts.env, device="cpu", learning_starts=amounts.env_warmup, buffer_size=10_000)
    model.learn(amounts.env_steps, callback=clock)
    return statistics.median(
        amounts.env_window / (b - a) for a, b in pairwise(clock.times[amounts.env_warmup // amounts.env_window :])
    )
