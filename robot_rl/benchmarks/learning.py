"""`robot-rl bench learning`: do the learners learn as fast as published runs of theirs?

python -m robot_rl.benchmarks.learning [CHECK ...]    # some of them only; hours for all

Thresholds come from public logs, never from runs of ours. Seeds run side by side, one torch thread each; every seed is
reported, and the threshold holds for their mean. Values are means of the evaluation at that step, of deterministic
actions, not the best of several. Runs, curves.png and results lie under runs/learning; started again, the benchmark
goes on with the runs it finds there, and does not repeat finished ones of the same settings.
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
from typing import TYPE_CHECKING, Any

from robot_rl.commands.result import Result, Row
from robot_rl.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from robot_rl.training.config import TrainConfig

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
    beside: str = ""
    """Check whose returns this one's last are divided by."""


# Stable-Baselines3 zoo: one run of Pendulum-v1 with this learning rate.
_ZOO = "RL-Zoo benchmark, Stable-Baselines3 SAC"
# SBX SAC by the authors of CrossQ, Gym-v4, 10 seeds, learning rate 1e-3, 2 x 256, warm-up 5,000. Rewards of
# HalfCheetah are the same in v5; Hopper-v5 pays the healthy reward differently (see Gymnasium's notes on v5).
_CROSSQ = "SBX SAC, public logs of the CrossQ authors"
_MUJOCO: dict[str, Any] = {
    "learning_rate": 1e-3, "warmup_env_steps": 5_000, "total_env_steps": 100_000, "buffer_size": 100_000,
    "evaluate_every": 10_000, "evaluate_episodes": 10, "checkpoint_every": 25_000, "log_every": 5_000,
    "compile": shutil.which("g++") is not None,
}  # fmt: skip

_AS_SAC: dict[str, Any] = _MUJOCO | {
    "actor_hidden": (256, 256), "critic_hidden": (256, 256), "activation": "relu", "total_env_steps": 50_000,
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
    # Without a threshold, because nobody has published DSAC-T at so few steps: beside SAC of the same settings.
    "dsact-halfcheetah": Check(
        "dsact", "gym:HalfCheetah-v5", (0, 1, 2), _AS_SAC, {}, {}, "", "sac-halfcheetah",
    ),
    "dsact-hopper": Check("dsact", "gym:Hopper-v5", (0, 1, 2), _AS_SAC, {}, {}, "", "sac-hopper"),
    # Do products in bfloat16 cost return? Five seeds of each, of which those in float32 have the public threshold.
    "sac-float32": Check(
        "sac", "gym:HalfCheetah-v5", (0, 1, 2, 3, 4), _AS_SAC, {50_000: 3400.0}, {50_000: 4212.0}, _CROSSQ,
    ),
    "sac-bfloat16": Check(
        "sac", "gym:HalfCheetah-v5", (0, 1, 2, 3, 4), _AS_SAC | {"precision": "bfloat16"}, {}, {}, "", "sac-float32",
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
        last = max(curves[name, check.seeds[0]])
        for step in check.thresholds or {last: None}:
            values = [_at(curves[name, seed], step) for seed in check.seeds]
            mean, threshold = statistics.fmean(values), check.thresholds.get(step)
            row = f"learning/{name}/{step}"
            if threshold is not None:
                rows.append(Row(row, mean, "return", "threshold", mean / threshold))
            elif check.beside in names:
                other = statistics.fmean(_at(curves[check.beside, seed], step) for seed in CHECKS[check.beside].seeds)
                rows.append(Row(row, mean, "return", check.beside, mean / other))
            else:
                rows.append(Row(row, mean, "return"))
            rows += [
                Row(f"{row}/seed-{seed}", value, "return") for seed, value in zip(check.seeds, values, strict=True)
            ]
            if threshold is not None and mean < threshold:
                failed.append(f"{row} is {mean:.0f}, asked {threshold:.0f}")
    plot = _plot(names, curves, runs / "curves.png")
    details = {"curves": {f"{name}/{seed}": curve for (name, seed), curve in curves.items()}, "plot": str(plot)}
    return Result(ok=not failed, rows=tuple(rows), reason="; ".join(failed), details=details)


def _curve(name: str, seed: int, runs: Path) -> Curve:
    """Train one seed, unless that is done already, and return its evaluations."""
    from robot_rl.env import get_task
    from robot_rl.training.config import make_config
    from robot_rl.training.loop import resume, train

    check, label = CHECKS[name], f"{name}-{seed}"
    config = make_config(get_task(check.task), check.algo, **check.settings, seed=seed, runs=runs, name=label)
    found = _started_run(config)
    if found is None:
        return _evaluations(train(config).run_dir)
    if max(_evaluations(found), default=0) < config.total_env_steps:
        resume(found, total_env_steps=config.total_env_steps)
    return _evaluations(found)


def _started_run(config: TrainConfig) -> Path | None:
    """The newest run folder of the same settings that is finished, or has a checkpoint to go on from."""
    from robot_rl.training.checkpoint import load_config, newest_checkpoint
    from robot_rl.training.config import MAY_CHANGE_ON_RESUME

    fixed = vars(config).keys() - MAY_CHANGE_ON_RESUME
    for folder in sorted(config.runs.glob(f"*/*_{config.name}"), reverse=True):
        try:
            saved = load_config(folder)
            same = all(getattr(saved, key) == getattr(config, key) for key in fixed)
            if same and (max(_evaluations(folder), default=0) >= config.total_env_steps or newest_checkpoint(folder)):
                return folder
        except (ConfigError, CheckpointError):
            continue  # of another version, or stopped before its first checkpoint
    return None


def _evaluations(run_dir: Path) -> Curve:
    path = run_dir / "progress.csv"
    if not path.exists():
        return {}
    with path.open() as file:
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
        if check.published:
            ax.plot(*zip(*check.published.items(), strict=True), "s", color="#d9822b", label=check.source)
        if check.thresholds:
            ax.plot(*zip(*check.thresholds.items(), strict=True), "_", color="#c4314b", markersize=14, label="asked")
        if check.beside in names:
            other = [curves[check.beside, seed] for seed in CHECKS[check.beside].seeds]
            ax.plot(
                steps, [statistics.fmean(_at(c, s) for c in other) for s in steps], "--", color="#777777",
                label=f"mean of {check.beside}",
            )  # fmt: skip
        ax.set_title(f"{name}, {len(own)} seeds", loc="left", fontsize=10)
        ax.set_xlabel("environment steps")
        ax.legend(fontsize=7, frameon=False, loc="best")
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
