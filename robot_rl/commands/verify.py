"""`robot-rl verify`: is this bundle what was exported, and does it compute the same here?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row


@dataclass(frozen=True)
class VerifyArgs:
    """Check a bundle: digests, contract, and its golden rows replayed on this machine's onnxruntime."""

    bundle: Annotated[Path, tyro.conf.Positional]
    """Folder or zip."""
    robot: str | None = None
    """Robot that it shall run on. Default: the one its contract names."""


def run(args: VerifyArgs) -> Result:
    import numpy as np

    from robot_rl.bundle.load import load_bundle
    from robot_rl.bundle.verify import GOLDEN_TOLERANCE, verify_bundle
    from robot_rl.robots import get_robot

    bundle = load_bundle(args.bundle)
    report = verify_bundle(bundle, get_robot(args.robot or bundle.contract.robot))
    rows = [
        Row(f"golden/{name}", error, "", reference="tolerance", ratio=error / GOLDEN_TOLERANCE)
        for name, error in report.golden_errors.items()
    ]
    p50_ms, p99_ms = np.percentile(np.array(report.tick_s) * 1e3, [50, 99])
    rows += [Row("policy/p50", float(p50_ms), "ms"), Row("policy/p99", float(p99_ms), "ms")]
    details = {
        "bundle": str(args.bundle),
        "robot": args.robot or bundle.contract.robot,
        "rows": report.rows,
        "tolerance": GOLDEN_TOLERANCE,
        "task": bundle.manifest.task,
        "algorithm": bundle.manifest.algorithm,
        "contract_digest": bundle.manifest.contract_digest,
        "problems": list(report.problems),
    }
    return Result(ok=report.ok, rows=tuple(rows), reason="; ".join(report.problems), details=details)


VERB = Verb(VerifyArgs, run)
