"""The gate's outcome as a table for people and as data: GATE.md and gate.json, to lie beside the bundle."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import mujoco

from robot_rl.bundle.load import Bundle
from robot_rl.commands.result import Row
from robot_rl_sim.gate.compare import FAMILY_ERROR, Tolerance
from robot_rl_sim.gate.gate import Finding, GateReport
from robot_rl_sim.gate.rollout import REPLAY_STEPS
from robot_rl_sim.gate.variants import CORNER_TOLERANCE, DOUBLE_STEP_TOLERANCE, PHYSICS_TOLERANCE

_HEADER = ("variant", "verdict", "success", "return", "replay", "observations", "differs most")


def rows(report: GateReport) -> list[Row]:
    """gate/<variant>/<quantity>; differences beside their tolerances."""
    out = [
        Row("gate/reference/success", report.reference.success.double().mean().item()),
        Row("gate/reference/return", report.reference.returns.mean().item()),
        Row("gate/reference/return/zero", report.zero.returns.mean().item()),
    ]
    for f in report.findings:
        name = f"gate/{f.variant.name}"
        if f.skipped:
            out.append(Row(f"{name}/skipped", f.skipped))
            continue
        out += [Row(f"{name}/success", f.success_rate), Row(f"{name}/return", f.return_mean)]
        for m in f.measures:
            end = f"{m.quantity}/{m.term}" if m.term else m.quantity
            judged = m.tolerance is not None
            out.append(Row(f"{name}/{end}", m.value, "", "tolerance" if judged else None, m.excess if judged else None))
        out.append(Row(f"{name}/passed", f.worst is None))
    return out


def reason(report: GateReport) -> str:
    """Why the gate is shut: how many variants, and of the worst one, what differs most. "" if it is open."""
    if report.problem:
        return report.problem
    failed = report.failed
    if not failed:
        return ""
    ran = sum(not f.skipped for f in report.findings)
    return f"{len(failed)} of {ran} variants differ; most: {failed[0].variant.name}: {explain(failed[0])}"


def explain(finding: Finding) -> str:
    """The measure at fault, and for a loss the observation that differs most, which may say why."""
    worst, observed = finding.worst, finding.most_different
    assert worst is not None
    text = f"{worst.term} {worst.quantity}" if worst.term else worst.quantity
    text += f" {worst.value:.3g}, tolerance {worst.tolerance:g}"
    if not worst.term and observed is not None and observed.value > 0:
        text += f"; the observation that differs most is {observed.term} ({observed.quantity} {observed.value:.3g})"
    return text


def line(finding: Finding) -> tuple[str, ...]:
    """The cells of one variant, under `_HEADER`."""
    name = finding.variant.name
    if finding.skipped:
        return (name, "skipped", "", "", "", "", finding.skipped)
    replayed = max((m.value for m in finding.measures if m.quantity == "replay"), default=0.0)
    observed = finding.most_different
    assert observed is not None
    share = observed.value / getattr(Tolerance(), observed.quantity)
    if finding.worst is not None:
        differs = explain(finding)
    else:
        differs = f"{observed.term} {observed.quantity} {observed.value:.2g}" if observed.value > 0 else "nothing"
    verdict = "pass" if finding.worst is None else "FAIL"
    success = f"{finding.success_rate:.1%}"
    return (name, verdict, success, f"{finding.return_mean:.4g}", f"{replayed:.2f}", f"{share:.2f}", differs)


def table(report: GateReport) -> str:
    """Aligned text, one line per variant."""
    reference = report.reference
    success, mean = reference.success.double().mean().item(), reference.returns.mean().item()
    cells = [_HEADER, ("reference", "", f"{success:.1%}", f"{mean:.4g}", "", "", "")]
    cells += [line(f) for f in report.findings]
    widths = [max(len(c[i]) for c in cells) for i in range(len(_HEADER) - 1)]
    return "\n".join("  ".join([*(t.ljust(w) for t, w in zip(c, widths, strict=False)), c[-1]]).rstrip() for c in cells)


def write_page(path: Path, report: GateReport, bundle: Bundle) -> None:
    """GATE.md."""
    why = reason(report)
    reference = report.reference
    lines = [
        f"# Sim-to-sim gate: {'FAILED' if why else 'passed'}",
        "",
        *([why + ".", ""] if why else []),
        f"- bundle: {bundle.manifest.task}, contract sha256 {bundle.contract.digest()}",
        *(
            ["- behind the robot's safety filter, as it was trained"]
            if bundle.manifest.config.get("safety_filter")
            else []
        ),
        f"- {report.episodes} episodes per variant, the same starts, dynamics, commands and sensor noise in each "
        f"(seed {report.seed}); MuJoCo {mujoco.__version__}",
        f"- reference: success {reference.success.double().mean().item():.1%}, return {reference.returns.mean():.4g}; "
        f"action zero: return {report.zero.returns.mean():.4g}",
        "",
        f"| {' | '.join(_HEADER)} |",
        f"|{'---|' * len(_HEADER)}",
        *(f"| {' | '.join(line(f))} |" for f in report.findings),
        "",
        f"`replay`: the reference's first {REPLAY_STEPS} actions, played in the variant: largest median "
        "difference of a measurement, in its standard deviations. `observations`: largest difference of an "
        "observation's mean, spread or distribution over whole episodes, in units of the tolerance. A difference "
        f"counts if a paired test rejects chance; all tests together err with probability {FAMILY_ERROR:g}.",
        "",
        "| tolerance | other physics | twice the time step | corner of the randomisation |",
        "|---|---|---|---|",
    ]
    for f in dataclasses.fields(Tolerance):
        values = (getattr(t, f.name) for t in (PHYSICS_TOLERANCE, DOUBLE_STEP_TOLERANCE, CORNER_TOLERANCE))
        lines.append(f"| {f.name} | {' | '.join('not judged' if v is None else f'{v:g}' for v in values)} |")
    _write(path, "\n".join(lines) + "\n")


def write_data(path: Path, report: GateReport, bundle: Bundle) -> None:
    """gate.json: every figure, with what it was measured from."""
    findings = [
        {
            "variant": f.variant.name,
            "physics": dataclasses.asdict(f.variant.physics),
            "backend": f.variant.backend,
            "randomization": dataclasses.asdict(f.variant.randomization),
            "skipped": f.skipped,
            "passed": None if f.skipped else f.worst is None,
            "success_rate": f.success_rate,
            "return_mean": f.return_mean,
            "measures": [dataclasses.asdict(m) for m in f.measures],
        }
        for f in report.findings
    ]
    data: dict[str, Any] = {
        "task": report.task,
        "contract_digest": bundle.contract.digest(),
        "episodes": report.episodes,
        "seed": report.seed,
        "mujoco": mujoco.__version__,
        "passed": not reason(report),
        "reason": reason(report),
        "success_rate": report.reference.success.double().mean().item(),
        "return_mean": report.reference.returns.mean().item(),
        "zero_return_mean": report.zero.returns.mean().item(),
        "variants": findings,
    }
    _write(path, json.dumps(data, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
