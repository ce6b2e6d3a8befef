"""All faults by all seeds: what was found of each, and what that says of the runtime."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from robot_rl.bundle.load import Bundle
from robot_rl.errors import RobotRLError
from robot_rl.robots import RobotSpec
from robot_rl.runtime.limits import SafetyLimits
from robot_rl_sim.faults.rig import stand_up
from robot_rl_sim.faults.table import FAULTS, Case
from robot_rl_sim.faults.trial import Peaks, Trial, judge, latency_s, run_bare, run_trial
from robot_rl_sim.sim_robot_config import SimRobotConfig


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    case: Case
    threshold_s: float | None
    """None: tolerated."""
    trials: tuple[Trial, ...]
    """By seed."""
    bare: tuple[Peaks, ...]
    """The same without the safety filter; empty where that was not asked for."""
    problems: tuple[str, ...]
    """By seed; "" if all is well."""

    @property
    def problem(self) -> str:
        """The first, with how many there are; empty if all is well."""
        found = [(seed, p) for seed, p in enumerate(self.problems) if p]
        return f"{found[0][1]}, with {len(found)} of {len(self.problems)} seeds" if found else ""

    @property
    def due(self) -> tuple[Trial, ...]:
        """Trials in which there was something to notice."""
        expect = self.case.expect
        if expect is None:
            return ()
        return tuple(t for t in self.trials if expect.due is None or t.due_s is not None or t.detected_s is not None)

    @property
    def latencies_s(self) -> tuple[float, ...]:
        expect = self.case.expect
        return () if expect is None else tuple(latency_s(t, expect) for t in self.due if t.detected_s is not None)

    @property
    def detected(self) -> bool | None:
        """None: nothing to notice."""
        return None if not self.due else all(t.detected_s is not None for t in self.due)

    @property
    def recovered(self) -> float | None:
        """Share of the trials; None where the process is gone."""
        known = [t.recovered for t in self.trials if t.recovered is not None]
        return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class FaultReport:
    """The table."""

    bundle: Bundle
    spec: RobotSpec
    limits: SafetyLimits
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]
    """Seeds with which the robot does not keep running even without a fault."""
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.problem)


def run_faults(
    bundle: Bundle,
    spec: RobotSpec,
    cases: Sequence[Case],
    *,
    loop_period_s: float,
    config: SimRobotConfig,
    seeds: Sequence[int],
    bare: bool = True,
    note: Callable[[Finding], None] = lambda finding: None,
) -> FaultReport:
    """Every case with every seed. Raises RobotRLError if the policy runs with none of the seeds."""
    with _quiet_loop():
        rigs, left_out = {}, []
        for seed in seeds:
            rig = stand_up(bundle, spec, loop_period_s, config, seed)
            still = run_trial(
                rig.copy(), FAULTS[0].make(spec, rig.controller.limits), None, np.random.default_rng(seed)
            )
            rigs |= {seed: rig} if still.tripped_s is None else {}
            left_out += [] if still.tripped_s is None else [seed]
        if not rigs:
            raise RobotRLError(f"{spec.name} does not keep running without a fault, with none of the seeds {seeds}")
        limits = next(iter(rigs.values())).controller.limits
        findings = []
        for case in cases:
            trials, peaks = [], []
            for seed, rig in rigs.items():
                fault = case.make(spec, limits)
                trials.append(run_trial(rig.copy(), fault, case.expect, np.random.default_rng(seed)))
                if bare:
                    peaks.append(run_bare(rig.copy(), case.make(spec, limits), np.random.default_rng(seed)))
            findings.append(
                Finding(
                    case=case,
                    threshold_s=None if case.expect is None else case.expect.within(limits),
                    trials=tuple(trials),
                    bare=tuple(peaks),
                    problems=tuple(judge(t, case.expect, limits) for t in trials),
                )
            )
            note(findings[-1])
    return FaultReport(bundle, spec, limits, tuple(rigs), tuple(left_out), tuple(findings))


@contextmanager
def _quiet_loop() -> Iterator[None]:
    """A driver that is broken on purpose needs no traceback per tick."""
    log = logging.getLogger("robot_rl.runtime.loop")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
