"""`robot-rl bench learning`: do the learners learn as fast as published runs of theirs?

python -m robot_rl.benchmarks.learning [CHECK ...]    # some of them only; hours for all

Thresholds come from public logs, never from runs of ours. Seeds run side by side, one torch thread each; every seed is
reported, and the threshold holds for their mean. Values are means of the evaluation at that step, of deterministic
actions, not the best of several. Runs, curves.png and results lie under runs/learning.
"""

from __future__ import annotations

import csv
import os
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError

RUNS = Path("runs/learning")


@dataclass(frozen=True)
class Check:
    algo: str
    task: str
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    thresholds: Mapping[int, float]
    """Environment step: least mean return over the seeds."""
    published: Mapping[int, float]
    """Environment step: mean return of others' runs."""
    source: str


# Stable-Baselines3 zoo: one run of Pendulum-v1 with this learning rate.
_ZOO = "RL-Zoo benchmark, Stable-Baselines3 SAC"
# SBX SAC by the authors of CrossQ, Gym-v4, 10 seeds, learning rate 1e-3, 2 x 256, warm-up 5,000. Rewards of
# HalfCheetah are the same in v5; Hopper-v5 pays the healthy reward differently (see Gymnasium's notes on v5).
_CROSSQ = "SBX SAC, public logs of the CrossQ authors"
_MUJOCO: dict[str, Any] = {
    "learning_rate": 1e-3, "warmup_env_steps": 5_000, "total_env_steps": 100_000, "buffer_size": 100_000,
    "evaluate_every": 10_000, "evaluate_episodes": 10, "checkpoint_every": 0, "log_every": 5_000,
    "compile": shutil.which("g++") is not None,
}  # fmt: skip

CHECKS: dict[str, Check] = {
    "sac-pendulum": Check(
        "sac", "gym:Pendulum-v1", (0, 1, 2),
        {
            "learning_rate": 1e-3, "warmup_env_steps": 100, "total_env_steps": 20_000, "buffer_size": 20_000,
            "evaluate_every": 2_000, "evaluate_episodes": 20, "checkpoint_every": 0,
        },
        {20_000: -200.0}, {20_000: -157.0}, _ZOO,
    ),
    "sac-halfcheetah": Check(
        "sac", "gym:HalfCheetah-v5", (0, 1, 2), _MUJOCO,
        {50_000: 3400.0, 100_000: 5000.0}, {50_000: 4212.0, 100_000: 6156.0}, _CROSSQ,
    ),
    "sac-hopper": Check(
        "sac", "gym:Hopper-v5", (0, 1, 2), _MUJOCO, {100_000: 700.0}, {50_000: 530.0, 100_000: 1103.0}, _CROSSQ,
    ),
}  # fmt: skip

Curve = dict[int, float]
"""Environment step: return of the evaluation there."""


def benchmark() -> Result:
    """All checks, and DSAC-T's under its authors' protocol."""
    from robot_rl.benchmarks.learning_dsact import pendulum

    ours, dsact = run_checks(tuple(CHECKS)), pendulum()
    reasons = [result.reason for result in (ours, dsact) if result.reason]
    return Result(ours.ok and dsact.ok, (*ours.rows, *dsact.rows), "; ".join(reasons), ours.details)


def run_checks(names: Sequence[str], runs: Path = RUNS) -> Result:
    """Rows `learning/<check>/<step>`: mean over the seeds, against its threshold; details hold every seed's curve."""
    unknown = sorted(set(names) - CHECKS.keys())
    if unknown:
        raise ConfigError(f"unknown check {', '.join(unknown)}; valid: {', '.join(CHECKS)}")
    # Spawned, because forking a process with torch's threads in it can hang.
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        futures = {(name, seed): pool.submit(_curve, name, seed, runs) for name in names for seed in CHECKS[name].seeds}
        curves = {key: future.result() for key, future in futures.items()}
    rows: list[Row] = []
    failed: list[str] = []
    for name in names:
        check = CHECKS[name]
        for step, threshold in check.thresholds.items():
            values = [_at(curves[name, seed], step) for seed in check.seeds]
            mean = statistics.fmean(values)
            row = f"learning/{name}/{step}"
            rows.append(Row(row, mean, "return", "threshold", mean / threshold))
            rows += [
                Row(f"{row}/seed-{seed}", value, "return") for seed, value in zip(check.seeds, values, strict=True)
            ]
            if mean < threshold:
                failed.append(f"{row} is {mean:.0f}, asked {threshold:.0f}")
    plot = _plot(names, curves, runs / "curves.png")
    details = {"curves": {f"{name}/{seed}": curve for (name, seed), curve in curves.items()}, "plot": str(plot)}
    return Result(ok=not failed, rows=tuple(rows), reason="; ".join(failed), details=details)


def _curve(name: str, seed: int, runs: Path) -> Curve:
    """Train one seed, and return its evaluations."""
    from robot_rl.env import get_task
    from robot_rl.training.config import make_config
    from robot_rl.training.loop import train

    check = CHECKS[name]
    result = train(
        make_config(get_task(check.task), check.algo, **check.settings, seed=seed, runs=runs, name=f"{name}-{seed}")
    )
    with (result.run_dir / "progress.csv").open() as file:
        return {int(row["step"]): float(row["eval_return"]) for row in csv.DictReader(file) if row["eval_return"]}


def _at(curve: Curve, step: int) -> float:
    """Return of the first evaluation at or after `step`."""
    return next(value for at, value in sorted(curve.items()) if at >= step)


def _plot(names: Sequence[str], curves: Mapping[tuple[str, int], Curve], path: Path) -> Path:
    """Every seed, their mean, the thresholds, and the published means."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(names), figsize=(4.6 * len(names), 3.6), squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        check = CHECKS[name]
        own = [curves[name, seed] for seed in check.seeds]
        steps = sorted(set.intersection(*(set(curve) for curve in own)))
        for curve in own:
            ax.plot(sorted(curve), [curve[s] for s in sorted(curve)], color="#2864c7", alpha=0.35, linewidth=1)
        ax.plot(steps, [statistics.fmean(c[s] for c in own) for s in steps], color="#2864c7", label="mean of ours")
        ax.plot(*zip(*check.published.items(), strict=True), "s", color="#d9822b", label=check.source)
        ax.plot(*zip(*check.thresholds.items(), strict=True), "_", color="#c4314b", markersize=14, label="asked")
        ax.set_title(f"{name}, {len(own)} seeds", loc="left", fontsize=10)
        ax.set_xlabel("environment steps")
        ax.legend(fontsize=7, frameon=False, loc="lower right")
        ax.grid(alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    outcome = run_checks(sys.argv[1:] or tuple(CHECKS))
    outcome.write(RUNS / "result.json")
    print(outcome.table(), outcome.reason, sep="\n")
    sys.exit(not outcome.ok)
