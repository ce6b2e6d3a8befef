"""Does DSAC-T learn what its authors' code learns, whatever the size of the reward?

python -m robot_rl.benchmarks.learning_dsact    # minutes per reward scale on one core; --help for its amounts
"""

from __future__ import annotations

import csv
import dataclasses
import statistics
from pathlib import Path

from torch import Tensor

from robot_rl.algorithms.dsact import DSACTConfig
from robot_rl.commands.result import Result, Row
from robot_rl.env import Step, Task
from robot_rl.interop.gymnasium import GymnasiumVecEnv
from robot_rl.training.config import make_config
from robot_rl.training.loop import train

RUNS = Path("runs/learning")

PENDULUM_RETURN = -200.0
"""What the mean return over iterations 8k to 12k must reach; the authors' own log averages -166 there."""
REWARD_SCALES = (0.1, 1.0, 10.0)

PENDULUM_PROTOCOL = {
    "warmup_env_steps": 10_000,
    "warmup_policy": "initial",
    "updates_per_env_step": 1 / 20,
    "total_env_steps": 250_000,
    "buffer_size": 250_000,
    "entropy_units": "environment",
    "evaluate_every": 10_000,
    "evaluate_episodes": 24,
    "checkpoint_every": 0,
    "log_every": 10_000,
}
"""The authors': 20 environment steps per iteration, 12k iterations, after 10k samples of the initial policy."""
FIRST_JUDGED_UPDATE = 8_000


def pendulum(
    reward_scales: tuple[float, ...] = REWARD_SCALES, scale_alpha: bool = True, seed: int = 0, runs: Path = RUNS
) -> Result:
    """Pendulum-v1 under the authors' protocol, with the reward that DSAC-T sees multiplied by each scale.

    With `scale_alpha` the initial temperature is multiplied too, so that every scale is the same problem in other
    units. Without it, small rewards take longer whatever the critics do: Adam moves log α by at most its step size, so
    that the 6k policy updates of this protocol bring α from e to 0.45, ten times too much where the reward is a tenth.

    Rows: mean return, in the environment's own reward, of the evaluations from update 8k to 12k.
    """
    values = {scale: pendulum_return(scale, scale if scale_alpha else 1.0, seed, runs) for scale in reward_scales}
    rows = tuple(
        Row(f"learning/dsact-pendulum-x{scale:g}", value, "", "threshold", value / PENDULUM_RETURN)
        for scale, value in values.items()
    )
    low = [f"x{scale:g}: {value:.0f}" for scale, value in values.items() if value < PENDULUM_RETURN]
    return Result(not low, rows, f"mean return below {PENDULUM_RETURN:g} at reward {', '.join(low)}" if low else "")


def pendulum_return(reward_scale: float, alpha_scale: float, seed: int, runs: Path) -> float:
    """Mean return, undoing the scale, of the evaluations after FIRST_JUDGED_UPDATE updates."""
    task = Task(
        "gym:Pendulum-v1", "", None, lambda *, num_envs, seed, **_: ScaledPendulum(reward_scale, num_envs, seed)
    )
    config = make_config(
        task, "dsact", **PENDULUM_PROTOCOL, initial_alpha=alpha_scale * DSACTConfig.initial_alpha, seed=seed, runs=runs,
        name=f"dsact_reward_x{reward_scale:g}_alpha_x{alpha_scale:g}_s{seed}",
    )  # fmt: skip
    curve = _evaluations(train(config, task).run_dir)
    return statistics.mean(value for update, value in curve if update >= FIRST_JUDGED_UPDATE) / reward_scale


class ScaledPendulum(GymnasiumVecEnv):
    """Pendulum-v1 with its reward, and so the returns of an evaluation, times `reward_scale`."""

    def __init__(self, reward_scale: float, num_envs: int, seed: int) -> None:
        self.reward_scale = reward_scale
        super().__init__("Pendulum-v1", num_envs, seed)

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        return dataclasses.replace(step, reward=step.reward * self.reward_scale)


def _evaluations(run_dir: Path) -> list[tuple[int, float]]:
    """(updates made, mean return) of every evaluation of a run."""
    with (run_dir / "progress.csv").open() as file:
        return [(int(row["updates"]), float(row["eval_return"])) for row in csv.DictReader(file) if row["eval_return"]]


if __name__ == "__main__":
    import tyro

    print(tyro.cli(pendulum).table())
