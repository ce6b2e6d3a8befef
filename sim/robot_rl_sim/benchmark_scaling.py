"""`robot-rl bench scaling`: environment steps per second and memory from a few to a thousand environments.

Each size runs in a process of its own, so that its peak memory is its own; the rounds go through all sizes in turn.
Writes the plot that it returns the path of.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from robot_rl.commands.result import Result, Row
from robot_rl.errors import RobotRLError

TASK_NAMES = ("leap-reach", "g1-velocity", "leap-cube")
SIZES = (16, 64, 256, 1024)
ROUNDS = 3
ROUND_S = 2.0
PLOT = Path("runs/scaling.png")


def benchmark() -> Result:
    """Median rate and largest memory over the rounds, of every task and size."""
    rates: dict[tuple[str, int], list[float]] = {}
    memory: dict[tuple[str, int], float] = {}
    for _ in range(ROUNDS):
        for task in TASK_NAMES:
            for size in SIZES:
                rate, mib = _measure(task, size, ROUND_S)
                rates.setdefault((task, size), []).append(rate)
                memory[task, size] = max(memory.get((task, size), 0.0), mib)
    medians = {key: statistics.median(values) for key, values in rates.items()}
    rows = [Row(f"scaling/{task}/{size}", rate, "env steps/s") for (task, size), rate in medians.items()]
    rows += [Row(f"scaling/{task}/{size}/memory", mib, "MiB") for (task, size), mib in memory.items()]
    plot(PLOT, medians, memory)
    return Result(ok=True, rows=tuple(rows), details={"plot": str(PLOT), "rounds": ROUNDS, "round_s": ROUND_S})


def _measure(task: str, num_envs: int, seconds: float) -> tuple[float, float]:
    """Environment steps/s and peak resident memory, MiB, of a process that does nothing else."""
    command = [sys.executable, "-m", __name__, task, str(num_envs), str(seconds)]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise RobotRLError(f"{task} with {num_envs} environments failed: {process.stderr.strip()[-500:]}")
    rate, mib = json.loads(process.stdout.splitlines()[-1])
    return rate, mib


def main() -> None:
    """TASK NUM_ENVS SECONDS: prints [env steps/s, MiB]."""
    import torch

    from robot_rl.env import get_task

    torch.set_num_threads(1)
    name, num_envs, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    env = get_task(name).make_env(num_envs=num_envs, seed=0)
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(20, num_envs, env.action_dim, generator=generator) * 2 - 1
    for action in actions:  # until some episodes have ended, where they do so soon
        env.step(action)
    steps, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not steps:
        env.step(actions[steps % len(actions)])
        steps += 1
    print(json.dumps([steps * num_envs / elapsed, _peak_memory_mib()]))


def _peak_memory_mib() -> float:
    """Of this process since it runs this program. On Linux, ru_maxrss includes what its parent had when it forked."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def plot(path: Path, rates: dict[tuple[str, int], float], memory: dict[tuple[str, int], float]) -> None:
    """Both quantities over the number of environments, a line a task."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axes, values, label in ((left, rates, "environment steps/s"), (right, memory, "peak memory, MiB")):
        for task in dict.fromkeys(task for task, _ in values):
            sizes = [size for name, size in values if name == task]
            axes.plot(sizes, [values[task, size] for size in sizes], marker="o", label=task)
        axes.set_xscale("log", base=2)
        axes.set_xticks(SIZES, [str(size) for size in SIZES])
        axes.set_ylim(0, 1.1 * max(values.values()))
        axes.set_xlabel("environments")
        axes.set_title(label, loc="left", fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
