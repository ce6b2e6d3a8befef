"""A run's learning curve as a picture: `python -m robot_rl.training.curve RUN... --out FILE.png`."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from robot_rl.errors import ConfigError

COLUMNS = {"success": "success", "episode_return": "return"}
"""Column of progress.csv -> title of its panel."""
EVALUATED = {"success": "eval_success", "episode_return": "eval_return"}


def plot(runs: list[Path], out: Path) -> None:
    """Write a panel for success and one for return: while learning (line) and in evaluations (dots), a colour a run.

    Raises ConfigError for a folder without progress.csv.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    progress = {run: _columns(run) for run in runs}
    figure, axes = plt.subplots(1, len(COLUMNS), figsize=(4.6 * len(COLUMNS), 3.4), layout="constrained", squeeze=False)
    for ax, (column, title) in zip(axes[0], COLUMNS.items(), strict=True):
        for run, columns in progress.items():
            (line,) = ax.plot(*_known(columns, column), linewidth=1.2, alpha=0.6, label=run.name)
            ax.plot(*_known(columns, EVALUATED.get(column, "")), "o", markersize=4, color=line.get_color())
        ax.set_title(title, loc="left", fontsize=10)
        ax.set_xlabel("environment steps (thousands)")
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        axes[0][0].legend(frameon=False, fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
    plt.close(figure)


def _columns(run: Path) -> dict[str, list[str]]:
    path = run / "progress.csv"
    if not path.exists():
        raise ConfigError(f"no run of `robot-rl train`: {path} is missing")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def _known(columns: dict[str, list[str]], name: str) -> tuple[list[float], list[float]]:
    """Steps in thousands and values of the rows that have one."""
    pairs = [(float(s) / 1000, float(v)) for s, v in zip(columns["step"], columns.get(name, ()), strict=False) if v]
    return [s for s, _ in pairs], [v for _, v in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    plot(arguments.runs, arguments.out)


if __name__ == "__main__":
    main()
