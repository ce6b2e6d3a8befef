"""The fault table for people and as data: FAULTS.md and faults.json, to lie beside the bundle."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robot_rl.commands.result import Row
from robot_rl_sim.faults.ordinary import Ordinary
from robot_rl_sim.faults.ordinary import figures as ordinary_figures
from robot_rl_sim.faults.plot import write_plot
from robot_rl_sim.faults.report import FaultReport, Finding
from robot_rl_sim.faults.trial import WATCH_S, Peaks

_HEADER = (
    "fault", "verdict", "noticed as", "threshold", "latency", "mode", "runs again", "q beyond", "dq beyond", "τ beyond"
)  # fmt: skip
_MEASURES = (("joint_pos_rad", "{:.3f}"), ("joint_vel_rad_s", "{:.1f}"), ("torque_share", "{:.2f}"))


def figures(finding: Finding) -> dict[str, Any]:
    """What is known of one fault; s, rad, rad/s, shares. The worst of all seeds."""
    expect = finding.case.expect
    out: dict[str, Any] = {
        "detected": "tolerated" if expect is None else "not due" if finding.detected is None else finding.detected,
        "threshold_s": finding.threshold_s,
        "latency_s": max(finding.latencies_s, default=None),
        "due": len(finding.due),
        "trials": len(finding.trials),
        "cause": _most(t.cause for t in finding.due or finding.trials),
        "mode": _most(t.mode for t in finding.due or finding.trials),
        "recovered": finding.recovered,
        "violations": sum(len(t.violations) for t in finding.trials),
        "problem": finding.problem,
        "reason": finding.case.reason,
    }
    for name, _ in _MEASURES:
        out[f"{name}/filter_on"] = _worst([t.peaks for t in finding.trials], name)
        out[f"{name}/filter_off"] = _worst(finding.bare, name) if finding.bare else None
    return out


def data_of(report: FaultReport, ordinary: Ordinary | None, command: str) -> dict[str, Any]:
    """All that is written; `command` repeats it."""
    faults = {f.case.name: figures(f) for f in report.findings}
    sound = None if ordinary is None else ordinary_figures(ordinary)
    why = "; ".join(filter(None, (failures(faults), "" if sound is None else sound["problem"])))
    return {
        "task": report.bundle.manifest.task,
        "contract_digest": report.bundle.contract.digest(),
        "robot": report.spec.name,
        "command": command,
        "loop_period_s": report.limits.loop_period_s,
        "seeds": report.seeds,
        "left_out": report.left_out,
        "passed": not why,
        "reason": why,
        "ordinary": sound,
        "faults": faults,
    }


def rows(faults: Mapping[str, Mapping[str, Any]], prefix: str = "fault") -> tuple[Row, ...]:
    """<prefix>/<kind>/<severity>/<figure>; a latency beside its threshold."""
    out = []
    for fault, values in faults.items():
        for name, value in values.items():
            threshold_s = values["threshold_s"] if name == "latency_s" else None
            ratio = value / threshold_s if threshold_s and value is not None else None
            out.append(Row(f"{prefix}/{fault}/{name}", value, "", None if ratio is None else "threshold", ratio))
    return tuple(out)


def ordinary_rows(ordinary: Mapping[str, Any] | None) -> tuple[Row, ...]:
    """fault/none/training/<figure>."""
    if ordinary is None:
        return ()
    return tuple(Row(f"fault/none/training/{name}", v, "") for name, v in ordinary.items() if name != "causes")


def _ordinary_lines(ordinary: Mapping[str, Any] | None) -> list[str]:
    if ordinary is None:
        return []
    causes = ", ".join(f"{cause} {n}" for cause, n in ordinary["causes"].items())
    ended = f" {ordinary['failed']} other episodes ended in a fall." if ordinary["failed"] else ""
    return [
        "## Nothing is broken",
        "",
        f"In {ordinary['minutes']:.0f} minutes of ordinary operation the safety filter tripped a sound robot in "
        f"{ordinary['trips']} of {ordinary['episodes']} episodes{f' ({causes})' if causes else ''}: "
        f"{ordinary['trips_per_hour']:.1f} an hour, "
        f"{ordinary['share']:.1%} of the episodes, 95 % interval (Clopper and Pearson) {ordinary['share_low']:.1%} to "
        f"{ordinary['share_high']:.1%}.{ended} Ordinary means training's own environment: its dynamics, pushes and "
        "errors of sensors, targets bounded as by the filter, checks at the policy's rate. A trip within a second "
        "before the task counts the episode as failed would be right, and is not counted.",
        "",
    ]


def failures(faults: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence on what is wrong with which fault; empty if nothing is."""
    failed = [f"{name} ({f['problem']})" for name, f in faults.items() if f["problem"]]
    return f"{len(failed)} of {len(faults)} faults failed: {', '.join(failed)}" if failed else ""


def line(name: str, f: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of one fault, under `_HEADER`."""
    noticed = str({"tolerated": "tolerated", "not due": "nothing to notice"}.get(f["detected"], f["cause"]))
    if f["detected"] is True and not noticed:
        noticed = "bounded"
    beyond = []
    for measure, form in _MEASURES:
        on, off = f[f"{measure}/filter_on"], f[f"{measure}/filter_off"]
        beyond.append(form.format(on) if off is None else f"{form.format(on)} / {form.format(off)}")
    return (
        name,
        f"FAIL: {f['problem']}" if f["problem"] else "ok",
        noticed,
        "" if f["threshold_s"] is None else f"{1e3 * f['threshold_s']:.0f} ms",
        "" if f["latency_s"] is None else f"{1e3 * f['latency_s']:.0f} ms",
        f["mode"],
        "" if f["recovered"] is None else f"{f['recovered']:.0%}",
        *beyond,
    )


def write_report(data_path: Path, page_path: Path, data: Mapping[str, Any]) -> Path:
    """faults.json, FAULTS.md and the plot beside it, whose path is returned."""
    faults = data["faults"]
    picture = page_path.with_suffix(".png")
    write(data_path, json.dumps(data, indent=1) + "\n")
    write_plot(picture, f"{data['task']}: faults", faults, data["loop_period_s"])
    reasons = [(name, f["reason"]) for name, f in faults.items() if f["reason"]]
    left_out = f"- seeds left out, because the robot falls without a fault: {data['left_out']}"
    lines = [
        f"# Faults: {'passed' if data['passed'] else 'FAILED'}",
        "",
        *([] if data["passed"] else [data["reason"] + ".", ""]),
        f"- bundle: {data['task']}, contract sha256 {data['contract_digest']}",
        f"- {len({name.split('/')[0] for name in faults})} kinds, {len(faults)} with their severities, "
        f"{len(data['seeds'])} seeds each; loop at {1 / data['loop_period_s']:.0f} Hz; `{data['command']}`",
        *([left_out] if data["left_out"] else []),
        "",
        *markdown(_HEADER, [line(name, f) for name, f in faults.items()]),
        "",
        f"![latencies, and torque with and without the safety filter]({picture.name})",
        "",
        "Worst of all seeds. `threshold`: what the robot's safety profile and the lines of `CHECKS` allow; a fault "
        "must be noticed one tick later at the latest. `latency`: from the fault's first effect, for thresholds of the "
        "body from the first reading beyond them. `expired`: noticed by the robot, which damps when its commands "
        f"expire. `mode`: at the end of the fault, after {WATCH_S:g} s, or half a second beyond a later threshold. "
        "`runs again`: the policy runs, still or after the operator's reset, stand and run; a humanoid on the ground "
        "counts as lost. `beyond`: past the joint's "
        "range (rad), its rated speed (rad/s) and its effort limit (share of it, as asked of the motor), with the "
        "safety filter / without any, the same seeds. All commands, before and after, were finite and inside the "
        "limits, unless the verdict says otherwise.",
        "",
        *_ordinary_lines(data["ordinary"]),
        *markdown(("tolerated, or noticed by its consequences", "because"), reasons),
    ]
    write(page_path, "\n".join(lines) + "\n")
    return picture


def _worst(peaks: Sequence[Peaks], name: str) -> float:
    return max(getattr(p, name) for p in peaks)


def _most(values: Any) -> str:
    return Counter(values).most_common(1)[0][0]


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *lines)]


def write(path: Path, text: str) -> None:
    """Atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
