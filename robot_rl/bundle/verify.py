"""Prove a bundle on this machine: replay its golden rows on the runtime to be used, and hold it against a robot."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.load import Bundle, load_bundle
from robot_rl.bundle.metadata import metadata_problems
from robot_rl.contract import Contract
from robot_rl.errors import BundleError, ContractError
from robot_rl.robots import RobotSpec, check_contract

GOLDEN_TOLERANCE = 1e-5
"""Largest |runtime - trained| / max(1, |trained|), per element.

Two correct float32 implementations differ by the order in which they sum: about eps sqrt(n) for a dot product of n
terms, 3e-6 for 512, and a few layers of them in a row. A wrong scale, order or normaliser is off by 1e-3 or more, so
1e-5 tells them apart on every CPU.
"""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found. `problems` is empty for a bundle that may run."""

    bundle: Bundle
    problems: tuple[str, ...]
    golden_errors: dict[str, float]
    """Output name -> largest error over all golden rows, as GOLDEN_TOLERANCE defines it."""
    rows: int
    tick_s: tuple[float, ...]
    """Time of one policy evaluation, s, for each golden row."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def require_ok(self) -> None:
        """Raise BundleError naming every problem."""
        if self.problems:
            raise BundleError(f"bundle {self.bundle.path}: {'; '.join(self.problems)}")


def verify_bundle(path: Path | str | Bundle, robot: RobotSpec | None = None) -> VerifyReport:
    """Load (which checks files, digests and the graph's edges), replay, and check against `robot` if one is given.

    Raises BundleError or ContractError where the bundle cannot even be loaded; everything else is in `problems`.
    """
    bundle = path if isinstance(path, Bundle) else load_bundle(path)
    errors, tick_s = replay_golden(bundle)
    problems = [
        f"golden rows: output {name!r} is off by {error:.3g}, tolerance {GOLDEN_TOLERANCE:g}"
        for name, error in errors.items()
        if not error <= GOLDEN_TOLERANCE
    ]
    problems += metadata_problems(bundle.policy.metadata, bundle.contract)
    problems += quaternion_problems(bundle.contract, bundle.golden)
    if robot is not None:
        try:
            check_contract(bundle.contract, robot)
        except ContractError as error:
            problems.append(str(error))
    return VerifyReport(bundle, tuple(problems), errors, len(tick_s), tuple(tick_s))


def replay_golden(bundle: Bundle) -> tuple[dict[str, float], list[float]]:
    """Largest scaled error of each output over the golden rows, and the time of each evaluation in s."""
    contract = bundle.contract
    errors = {t.name: 0.0 for t in contract.outputs}
    times = []
    for row in range(len(bundle.golden[f"in/{contract.inputs[0].name}"])):
        inputs = {t.name: bundle.golden[f"in/{t.name}"][row] for t in contract.inputs}
        start = time.perf_counter()
        outputs = bundle.policy.run(inputs)
        times.append(time.perf_counter() - start)
        for name in errors:
            expected = bundle.golden[f"out/{name}"][row]
            error = np.abs(outputs[name][0] - expected) / np.maximum(1.0, np.abs(expected))
            # Not max(): a NaN must come out as an error, and NaN compares false.
            worst = float(np.max(error))
            errors[name] = worst if not worst <= errors[name] else errors[name]
    return errors, times


def quaternion_problems(contract: Contract, golden: dict[str, NDArray[np.float32]]) -> list[str]:
    """Whether golden orientations are unit quaternions, scalar first, and the graph reads them so.

    Nothing in a graph states the order of its quaternions. But where the observation holds the projected gravity, the
    golden rows decide: it must be a positive multiple of the gravity that `wxyz` gives.
    """
    quat = golden.get("in/imu_quat_wxyz")
    if quat is None:
        return []
    norm = np.linalg.norm(quat, axis=-1)
    if np.abs(norm - 1.0).max() > 0.05:
        return [f"golden rows: imu_quat_wxyz has norm {norm[np.abs(norm - 1.0).argmax()]:.4g}, expected 1"]
    span = _term_span(contract, "projected_gravity")
    if span is None:
        return []
    found = golden["out/obs"][:, span].astype(np.float64)
    expected = _gravity(quat.astype(np.float64))
    scale = float((found * expected).sum() / (expected * expected).sum())
    residual = float(np.abs(found - scale * expected).max())
    if not (scale > 0 and residual <= 1e-3 * scale):
        return [
            "quaternion order: the projected gravity in the golden obs does not follow from imu_quat_wxyz read as wxyz "
            f"(scale {scale:.3g}, residual {residual:.3g})"
        ]
    return []


def _term_span(contract: Contract, term: str) -> slice | None:
    """Where the newest frame's `term` lies in obs."""
    start = contract.observation_dim - contract.observation_dim // contract.history_length
    for name, size in contract.observation_terms:
        if name == term:
            return slice(start, start + size)
        start += size
    return None


def _gravity(quat_wxyz: NDArray[np.float64]) -> NDArray[np.float64]:
    w, x, y, z = quat_wxyz.T
    return np.stack((-2 * (x * z - w * y), -2 * (y * z + w * x), -(1 - 2 * (x * x + y * y))), axis=-1)
