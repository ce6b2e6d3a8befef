"""What a GPU brings: FastSAC and DSAC-T with thousands of environments, plain, and with bfloat16 and torch.compile.

python -m robot_rl.benchmarks.gpu                        # on an NVIDIA GPU; --help for its amounts

Rows, each beside the plain form of the same learner: gradient updates per second on batches from a full replay, and
environment steps per second of a whole training run, warm-up and compilation left out. The hardware is named in the
result, written to runs/gpu/result.json.
"""

from __future__ import annotations

import csv
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robot_rl.commands.result import Result, Row
from robot_rl.env import get_task
from robot_rl.errors import ConfigError
from robot_rl.training.config import TrainConfig, make_config
from robot_rl.training.loop import train
from robot_rl.training.recipes import get_recipe
from robot_rl.training.run import Run, make_run

RESULT = Path("runs/gpu/result.json")
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"precision": "float32", "compile": False},
    "compile": {"precision": "float32", "compile": True},
    "bf16": {"precision": "bfloat16", "compile": False},
    "bf16+compile": {"precision": "bfloat16", "compile": True},
}


def benchmark(
    task: str = "g1-balance",
    num_envs: int = 4096,
    device: str = "cuda",
    env_device: str = "cpu",
    batch_size: int = 8192,
    updates: int = 200,
    env_steps: int = 40 * 4096,
) -> Result:
    """Measure every learner in every form, one after the other."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: this torch sees no CUDA device; --device cpu tries the benchmark out")
    shared = {
        "num_envs": num_envs, "device": device, "env_device": env_device, "batch_size": batch_size,
        "updates_per_env_step": 8 / num_envs, "warmup_env_steps": 10 * num_envs, "buffer_size": 64 * num_envs,
    }  # fmt: skip
    learners: dict[str, tuple[str, Mapping[str, Any]]] = {
        "fastsac": ("sac", {**get_recipe("fastsac").settings, **shared}),
        "dsact": ("dsact", shared),
    }
    rows: list[Row] = []
    for name, (algo, settings) in learners.items():
        plain: dict[str, float] = {}
        for form, changes in FORMS.items():
            config = make_config(get_task(task), algo, **{**settings, **changes})
            rates = {
                ("updates", "updates/s"): updates_per_s(config, updates),
                ("end-to-end", "env steps/s"): steps_per_s(config, env_steps),
            }
            for (kind, unit), rate in rates.items():
                ratio = rate / plain.setdefault(kind, rate)
                rows.append(Row(f"learner/{name}/{task}/{kind}/{form}", rate, unit, "plain", ratio))
    return Result(ok=True, rows=tuple(rows), details={"hardware": hardware(device), "settings": shared})


def updates_per_s(config: TrainConfig, updates: int) -> float:
    """Gradient updates per second on batches of what random actions yield."""
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(config, get_task(config.task), Path(folder))
        try:
            for _ in range(10):
                env_step(run)
            for _ in range(5):  # warms up, and compiles
                run.algorithm.update(run.sample())
            start = _now(config.device)
            for _ in range(updates):
                run.algorithm.update(run.sample())
            return updates / (_now(config.device) - start)
        finally:
            run.close()


def env_step(run: Run) -> None:
    """One random step of all environments, stored."""
    from robot_rl.training.collect import collect

    run.obs = collect(run.env, run.replay, run.obs, run.act()).obs


def steps_per_s(config: TrainConfig, env_steps: int) -> float:
    """Environment steps per second of training: median of the last three quarters of a run after its warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"runs": Path(folder), "evaluate_every": 0, "evaluate_episodes": 1, "checkpoint_every": 0}
        total = config.warmup_env_steps + env_steps
        result = train(replace(config, **quiet, total_env_steps=total, log_every=env_steps // 4))
        with (result.run_dir / "progress.csv").open() as file:
            rows = [(int(row["step"]), float(row["env_steps_per_s"])) for row in csv.DictReader(file)]
        return statistics.median(rate for step, rate in rows if step > total - 0.7 * env_steps)


def hardware(device: str) -> str:
    """The device's name, and torch's version."""
    name = (
        torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine()
    )
    return f"{name}, torch {torch.__version__}"


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    import tyro

    outcome = tyro.cli(benchmark)
    outcome.write(RESULT)
    print(outcome.table(), outcome.details["hardware"], sep="\n")
    sys.exit(not outcome.ok)
