"""The outcome as a section of the bundle's card, a plot and data: CARD.md, backups.png and backups.json."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from robot_rl.commands.result import Row
from robot_rl_sim.backups.report import BackupReport, Finding, Rate

TITLE = "Backups"
PLOT_FILE, DATA_FILE = "backups.png", "backups.json"

_WORDS = {
    "damp": "damping alone",
    "hold": "the measured pose is held",
    "home": "a ramp to the default pose",
    "recovery": "the recovery policy takes over, with an empty memory",
}


def section(report: BackupReport) -> str:
    """Markdown without its heading."""
    names = [r.tier for r in report.findings[0].rates] if report.findings else []
    sources = {f.source.name: f.source.words for f in report.findings}
    untouched = [name for name in report.causes if name not in sources]
    lines = [
        "How often each backup saves the robot, in simulation, from states in which a policy stopped, tripped the "
        "safety filter (which sees true states here, and end stops that do not give way) or fell. Share of states and, "
        "in brackets, its 95 % interval (Clopper and Pearson).",
        "",
        f"Recovered means: {report.criterion}.",
        "",
        f"| what happened | before the trip | states | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
        *(f"| {' | '.join(_cells(f))} |" for f in report.findings),
        "",
        *(f"- {name}: {words}; ended by {_ended(report.causes[name])}" for name, words in sources.items()),
        *(f"- {name}: no state, since nothing tripped" for name in untouched),
        *(f"- {name}: {_WORDS[name]}" for name in names),
        *([f"- recovery policy: {report.recovery}"] if report.recovery else []),
        f"- on this robot the runtime prefers: {', '.join(report.preference)}. After a hard trip, such as a tilt, it "
        "damps in any case: what the others do from there is what could have been saved",
        f"- {report.episodes} episodes of each kind, seed {report.seed}, MuJoCo {mujoco.__version__}; dynamics, servos "
        "and sensors stay those of the episode, and nobody pushes any more",
        "",
        f"![recovery rates]({PLOT_FILE})",
    ]
    return "\n".join(lines)


def table(report: BackupReport) -> str:
    """Aligned text."""
    names = [r.tier for r in report.findings[0].rates] if report.findings else []
    cells = [("what happened", "before", "states", *names), *(_cells(f) for f in report.findings)]
    widths = [max(len(c[i]) for c in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(t.ljust(w) for t, w in zip(c, widths, strict=True)).rstrip() for c in cells)


def rows(report: BackupReport) -> list[Row]:
    """backup/<source>/<lead>/<tier>."""
    out = []
    for f in report.findings:
        name = f"backup/{f.source.name.replace(' ', '_')}/{f.lead_s:g}s"
        out.append(Row(f"{name}/states", f.states))
        for r in f.rates:
            low, high = r.interval
            out += [
                Row(f"{name}/{r.tier}", r.share),
                Row(f"{name}/{r.tier}/low", low),
                Row(f"{name}/{r.tier}/high", high),
            ]
    return out


def write_data(path: Path, report: BackupReport) -> None:
    """Every count."""
    findings = [
        {
            "source": f.source.name,
            "lead_s": f.lead_s,
            "states": f.states,
            "tiers": {r.tier: {"recovered": r.recovered, "interval": r.interval} for r in f.rates},
        }
        for f in report.findings
    ]
    fields = {f.name: getattr(report, f.name) for f in dataclasses.fields(report)}
    data: dict[str, Any] = fields | {"mujoco": mujoco.__version__, "findings": findings}
    text = json.dumps(data, indent=1) + "\n"
    _write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_plot(path: Path, report: BackupReport) -> None:
    """One panel per tier: share and interval of every finding."""
    from robot_rl_sim.plots import BLUE, INK, ORANGE, plt

    names = [r.tier for r in report.findings[0].rates]
    labels = [f"{f.source.name}{f', {f.lead_s:g} s before' if f.lead_s else ''}" for f in report.findings]
    height = 0.32 * len(labels) + 1.0
    plot, panels = plt.subplots(1, len(names), figsize=(2.3 * len(names) + 2.2, height), sharey=True, squeeze=False)
    y = np.arange(len(labels))[::-1]
    for axes, name in zip(panels[0], names, strict=True):
        rates = [next(r for r in f.rates if r.tier == name) for f in report.findings]
        for row, rate in zip(y, rates, strict=True):
            axes.plot(rate.interval, (row, row), color=INK, linewidth=1.2)
        colour = BLUE if name in report.preference else ORANGE
        axes.plot([r.share for r in rates], y, "o", color=colour, markersize=5)
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        axes.set_title(f"{name}{'' if name in report.preference else ' (not used)'}", loc="left", fontsize=10)
    panels[0][0].set_yticks(y, labels)
    plot.suptitle(f"{report.task}: recovered, with 95 % intervals", x=0.01, ha="left", fontsize=11)
    plot.tight_layout()
    _write(path, lambda temporary: plot.savefig(temporary, format="png", dpi=110))
    plt.close(plot)


def _cells(finding: Finding) -> tuple[str, ...]:
    lead = f"{finding.lead_s:g} s" if finding.lead_s else "at it"
    return (finding.source.name, lead, str(finding.states), *(_rate(r) for r in finding.rates))


def _rate(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.share:.0%} [{low:.0%}, {high:.0%}]"


def _ended(causes: dict[str, int]) -> str:
    counts = sorted(causes.items(), key=lambda item: -item[1])
    return ", ".join(f"{name.replace('_', ' ')} ({count})" for name, count in counts)


def _write(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    os.replace(temporary, path)
