"""Roll every backup of a robot from every kind of failing state, and count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from robot_rl.bundle.load import Bundle
from robot_rl.robots import BackupTier
from robot_rl.runtime.backups import TIERS
from robot_rl.runtime.limits import SafetyLimits
from robot_rl_sim.backups.collect import LEADS_S, Trips, collect
from robot_rl_sim.backups.criterion import Criterion, criterion_of, words
from robot_rl_sim.backups.interval import clopper_pearson
from robot_rl_sim.backups.roll import roll
from robot_rl_sim.backups.sources import Source
from robot_rl_sim.env import SimVecEnv

EnvOf = Callable[[Source], SimVecEnv]


@dataclass(frozen=True, slots=True)
class Rate:
    """How many robots one tier saved."""

    tier: BackupTier
    recovered: int
    states: int

    @property
    def share(self) -> float:
        return self.recovered / self.states if self.states else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, of Clopper and Pearson."""
        return clopper_pearson(self.recovered, self.states)


@dataclass(frozen=True, slots=True)
class Finding:
    """All tiers, from the states of one source, some time before the trip."""

    source: Source
    lead_s: float
    rates: tuple[Rate, ...]

    @property
    def states(self) -> int:
        return self.rates[0].states


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What was measured, and from what."""

    task: str
    robot: str
    episodes: int
    """Of each source."""
    seed: int
    criterion: str
    preference: tuple[BackupTier, ...]
    """The robot's own profile."""
    recovery: str
    """Whose recovery policy, by task and contract; empty without one."""
    causes: dict[str, dict[str, int]]
    """Source -> what ended its episodes -> how often."""
    findings: tuple[Finding, ...]


def tiers(recovery: Bundle | None) -> tuple[BackupTier, ...]:
    """From the one that needs least to the one that needs most."""
    return tuple(t.name for t in reversed(TIERS) if recovery is not None or t.name != "recovery")


def run_report(
    bundle: Bundle,
    make_env: EnvOf,
    sources: Sequence[Source],
    seed: int,
    recovery: Bundle | None = None,
    note: Callable[[Finding], None] = lambda finding: None,
) -> BackupReport:
    """`make_env` makes the environment of a source; `note` hears of each finding as it is made."""
    causes: dict[str, dict[str, int]] = {}
    findings: list[Finding] = []
    criterion, episodes, robot = "", 0, None
    for k, source in enumerate(sources):
        env = make_env(source)
        robot, episodes = env.mdp.robot, env.num_envs
        period_s, episode = bundle.contract.control_period_s, bundle.manifest.episode
        limits = SafetyLimits.make(robot, bundle.contract, period_s, episode=episode)
        judge = criterion_of(robot, env.sim)
        criterion = words(judge)
        trips = collect(env, bundle.policy, source, limits, seed + k)
        causes[source.name] = trips.causes
        for lead_s in (0.0,) if source.stops else LEADS_S:
            lead = round(lead_s / bundle.contract.control_period_s)
            rates = tuple(_rate(env, trips, lead, tier, limits, judge, recovery) for tier in tiers(recovery))
            if rates[0].states:
                findings.append(Finding(source, lead_s, rates))
                note(findings[-1])
        env.close()
    assert robot is not None
    whose = "" if recovery is None else f"{recovery.manifest.task}, contract sha256 {recovery.contract.digest()}"
    return BackupReport(
        task=bundle.manifest.task,
        robot=robot.name,
        episodes=episodes,
        seed=seed,
        criterion=criterion,
        preference=robot.safety.backup,
        recovery=whose,
        causes=causes,
        findings=tuple(findings),
    )


def _rate(
    env: SimVecEnv,
    trips: Trips,
    lead: int,
    tier: BackupTier,
    limits: SafetyLimits,
    judge: Criterion,
    recovery: Bundle | None,
) -> Rate:
    there, recovered = roll(env, trips, lead, tier, limits, judge, recovery)
    return Rate(tier, int((recovered & there).sum()), int(there.sum()))
