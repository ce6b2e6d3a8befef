"""What a GPU brings to simulation: environment steps per second with thousands of worlds, alone and while learning.

python -m robot_rl_sim.benchmark_gpu                     # on an NVIDIA GPU; --help for its amounts

Rows, for each number of worlds: physics alone; the environment (observation, reward, noise, randomisation and resets
of what falls, under random actions); and a whole FastSAC training run with networks and replay on the same device,
warm-up and compilation left out. Those of the default task stand beside what was published for one RTX 4090. The
hardware is named in the result, written to runs/gpu/sim.json.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from robot_rl.benchmarks.gpu import hardware, steps_per_s
from robot_rl.commands.result import Result, Row
from robot_rl.env import get_task
from robot_rl.errors import ConfigError
from robot_rl.training.config import make_config
from robot_rl.training.recipes import get_recipe
from robot_rl_sim.env import SimVecEnv

RESULT = Path("runs/gpu/sim.json")
TASK = "g1-velocity"
PUBLISHED = {"env": 94_000.0, "training": 82_000.0}
"""env steps/s of velocity tracking with the Unitree G1 on one RTX 4090."""


def benchmark(
    task: str = TASK,
    num_envs: tuple[int, ...] = (1024, 4096, 16384),
    device: str = "cuda",
    backend: str = "auto",
    seconds: float = 5.0,
    training_steps: int = 400,
    batch_size: int = 8192,
) -> Result:
    """`seconds` of physics and of the environment alone, then `training_steps` steps of all environments while
    learning."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: this torch sees no CUDA device; --device cpu tries the benchmark out")
    rows: list[Row] = []
    memory: dict[str, float] = {}
    for n in num_envs:
        rates, memory[str(n)] = simulation_rates(task, n, device, backend, seconds)
        rates["training"] = training_rate(task, n, device, backend, training_steps, batch_size)
        rows += [_row(task, n, kind, rate) for kind, rate in rates.items()]
        print(*(f"{row.name}: {row.value:,.0f} {row.unit}" for row in rows[-3:]), sep="\n", file=sys.stderr)
    return Result(ok=True, rows=tuple(rows), details={"hardware": hardware(device), "device_memory_gb": memory})


def simulation_rates(
    task: str, num_envs: int, device: str, backend: str, seconds: float
) -> tuple[dict[str, float], float]:
    """Control periods per second of physics alone and of the environment, and the GB of device memory they take."""
    before = _used_gb(device)
    env = get_task(task).make_env(num_envs=num_envs, seed=0, device=device, backend=backend)
    assert isinstance(env, SimVecEnv)
    try:
        generator = torch.Generator(env.device).manual_seed(0)

        def env_step() -> None:
            action = torch.rand(num_envs, env.action_dim, generator=generator, device=env.device)
            env.step(2 * action - 1)

        rates = {"env": _rate(env_step, num_envs, device, seconds)}
        used = _used_gb(device) - before
        env.reset()
        hold = env.sim.joint_pos.clone()
        rates["physics"] = _rate(lambda: env.sim.step(hold), num_envs, device, seconds)
    finally:
        env.close()
    return {kind: rates[kind] for kind in ("physics", "env")}, used


def training_rate(task: str, num_envs: int, device: str, backend: str, steps: int, batch_size: int) -> float:
    """Environment steps per second of a training run after its warm-up."""
    settings = {
        **get_recipe("fastsac").settings,
        "num_envs": num_envs, "device": device, "env_device": device, "env_backend": backend,
        "updates_per_env_step": 8 / num_envs, "warmup_env_steps": 10 * num_envs, "buffer_size": 64 * num_envs,
        "batch_size": batch_size,
    }  # fmt: skip
    return steps_per_s(make_config(get_task(task), "sac", **settings), steps * num_envs)


def _rate(step: Callable[[], None], num_envs: int, device: str, seconds: float) -> float:
    """Steps of `num_envs` environments per second, after some that warm up."""
    for _ in range(5):
        step()
    _finish(device)
    start, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        for _ in range(10):
            step()
        done += 10
        _finish(device)
    return done * num_envs / elapsed


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _used_gb(device: str) -> float:
    """Of the whole device, as Warp's memory is not torch's."""
    if not device.startswith("cuda"):
        return 0.0
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 1e9


def _row(task: str, num_envs: int, kind: str, rate: float) -> Row:
    name = f"sim/{task}/{num_envs}/{kind}"
    if task != TASK or kind not in PUBLISHED:
        return Row(name, rate, "env steps/s")
    return Row(name, rate, "env steps/s", "RTX 4090, published", rate / PUBLISHED[kind])


if __name__ == "__main__":
    import tyro

    outcome = tyro.cli(benchmark)
    outcome.write(RESULT)
    print(outcome.table(), outcome.details["hardware"], sep="\n")
    sys.exit(not outcome.ok)
