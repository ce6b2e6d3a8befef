"""Run the gate: the reference, then every variant from the same starts, each compared with the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch

from robot_rl.bundle.load import Bundle
from robot_rl.errors import ConfigError, MissingDependencyError
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.gate.compare import FAMILY_ERROR, Measure, Tolerance, compare, paired_p
from robot_rl_sim.gate.rollout import Rollout, replay, roll_out
from robot_rl_sim.gate.variants import Variant
from robot_rl_sim.tasks.assemble import assemble

MIN_EPISODES = 30
"""Fewer, and the normal approximation of the tests is not to be trusted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One variant's outcome."""

    variant: Variant
    skipped: str = ""
    """Why it was not run."""
    success_rate: float = 0.0
    return_mean: float = 0.0
    measures: list[Measure] = field(default_factory=list)

    @property
    def worst(self) -> Measure | None:
        """What fails first: a wrong measurement explains whatever follows from it; else what is furthest beyond its
        tolerance. None where nothing fails."""
        failing = [m for m in self.measures if m.excess > 1]
        replayed = [m for m in failing if m.quantity == "replay"]
        return max(replayed or failing, key=lambda m: m.excess, default=None)

    @property
    def most_different(self) -> Measure | None:
        """The observation that differs most, judged or not, in units of the default tolerances."""
        default = Tolerance()
        measures = [m for m in self.measures if m.term and m.quantity != "replay"]
        return max(measures, key=lambda m: m.value / getattr(default, m.quantity), default=None)


@dataclass(frozen=True, slots=True)
class GateReport:
    """Reference and findings of all variants."""

    task: str
    episodes: int
    seed: int
    reference: Rollout
    zero: Rollout
    findings: list[Finding] = field(default_factory=list)
    problem: str = ""
    """Why variants were not run at all."""

    @property
    def gain(self) -> float:
        """What the policy returns more than the action zero does."""
        return (self.reference.returns - self.zero.returns).mean().item()

    @property
    def failed(self) -> list[Finding]:
        """Worst first."""
        failed = [(f.worst.excess, i) for i, f in enumerate(self.findings) if f.worst is not None]
        return [self.findings[i] for _, i in sorted(failed, key=lambda pair: -pair[0])]


def run_gate(
    bundle: Bundle,
    env: SimVecEnv,
    variants: Sequence[Variant],
    seed: int,
    build: Callable[[Variant], SimVecEnv],
    note: Callable[[Finding], None] = lambda finding: None,
) -> GateReport:
    """Compare all `variants`, whose environments `build` makes, with `env`, the reference; one episode per world.

    `note` hears of each as it is done.
    """
    if env.num_envs < MIN_EPISODES:
        raise ConfigError(f"a gate needs at least {MIN_EPISODES} episodes, got {env.num_envs}")
    reference = roll_out(env, bundle.policy, seed)
    zero = roll_out(env, bundle.policy, seed, zero=True)
    report = GateReport(bundle.manifest.task, env.num_envs, seed, reference, zero)
    if not (report.gain > 0 and float(paired_p(reference.returns - zero.returns)) < FAMILY_ERROR):
        means = f"{reference.returns.mean():.4g} and {zero.returns.mean():.4g}"
        return replace(report, problem=f"the policy returns no more than the action zero does: {means}")
    for variant in variants:
        finding = _run_variant(bundle, report, variant, build, len(variants))
        report.findings.append(finding)
        note(finding)
    return report


def _run_variant(
    bundle: Bundle,
    report: GateReport,
    variant: Variant,
    build: Callable[[Variant], SimVecEnv],
    variants: int,
) -> Finding:
    try:
        env = build(variant)
    except (MissingDependencyError, ModuleNotFoundError, ConfigError) as error:
        return Finding(variant, skipped=str(error))
    rollout = roll_out(env, bundle.policy, report.seed)
    if variant.may_diverge and rollout.diverged:
        env.close()
        return Finding(variant, skipped=f"unstable physics: {rollout.diverged} of {env.num_envs} worlds diverged")
    replayed = replay(env, report.reference.first_actions, report.seed)
    env.close()
    measures = compare(bundle.contract, report.reference, rollout, replayed, report.gain, variant.tolerance, variants)
    return Finding(variant, "", rollout.success.double().mean().item(), rollout.returns.mean().item(), measures)


def variant_env(env: SimVecEnv, variant: Variant, num_threads: int = 0) -> SimVecEnv:
    """Of the same task as `env`, sharing its MDP, with the variant's backend, physics and randomisation."""
    # What the task has learned of its worlds since, such as their level, must not pass on to the variant.
    for name, value in env.first_mdp_state.items():
        env.mdp.state[name].copy_(value)
    return assemble(
        env.mdp, env.num_envs, 0, variant.randomization, "cpu", num_threads, variant.backend, variant.physics
    )


def select(variants: Sequence[Variant], patterns: Sequence[str]) -> list[Variant]:
    """Those whose name matches one of the shell-style `patterns`; all if there is none. Raises ConfigError for a
    pattern that matches nothing."""
    unmatched = [p for p in patterns if not any(fnmatch(v.name, p) for v in variants)]
    if unmatched:
        raise ConfigError(f"no variant matches {unmatched}; valid: {', '.join(v.name for v in variants)}")
    return [v for v in variants if not patterns or any(fnmatch(v.name, p) for p in patterns)]
