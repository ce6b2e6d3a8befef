"""Success of the scripted expert over its quality, as a table and a plot:

python -m robot_rl_sim.tasks.peg_insert.quality --out expert_quality.png
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import tyro

from robot_rl.training.evaluate import evaluate
from robot_rl_sim.tasks.peg_insert import make_env
from robot_rl_sim.tasks.peg_insert.expert import Expert, ExpertConfig

Curve = dict[float, float]
"""Quality -> success rate."""


def measure(
    randomize: bool, qualities: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0), episodes: int = 200
) -> Curve:
    """One episode in each of `episodes` environments; the starts are the same for every quality."""
    env = make_env(num_envs=episodes, seed=1000, randomize=randomize)
    rates = {}
    for quality in qualities:
        result = evaluate(env, Expert(env, ExpertConfig(quality=quality), seed=7), episodes, seed=1000)
        assert result.success_rate is not None
        rates[quality] = result.success_rate
        print(f"{'randomised' if randomize else 'nominal':<10} quality {quality:.2f} success {rates[quality]:.3f}")
    return rates


def plot(curves: dict[str, Curve], episodes: int, out: Path) -> None:
    """Rates with twice their standard errors."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2))
    for name, curve in curves.items():
        qualities = sorted(curve)
        rates = [curve[q] for q in qualities]
        errors = [2 * math.sqrt(r * (1 - r) / episodes) for r in rates]
        axes.errorbar(qualities, rates, errors, marker="o", capsize=3, label=name)
    axes.set(xlabel="quality of the expert", ylabel=f"success, {episodes} episodes", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=130)


def main(out: Path = Path("expert_quality.png"), episodes: int = 200) -> None:
    torch.set_num_threads(1)
    curves = {name: measure(name == "randomised", episodes=episodes) for name in ("randomised", "nominal")}
    plot(curves, episodes, out)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
