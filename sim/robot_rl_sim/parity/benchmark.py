"""`robot-rl bench parity`: how often parity names what is wrong, and how often it finds fault with a good robot.

Each flight is that of a simulated robot drawn anew, with training's noise, and with no mistake, one, or two. A mistake
may end a run before another one shows: a wrong orientation keeps a humanoid from standing up, and then nothing is known
of its servos. So it is used as it would be on a robot: what was named is mended, and the robot flies once more; where
nothing was, of a robot that did not run or of joints that are said to be wrong somehow, they are wiggled, and both logs
are judged together. A case counts as named when all its mistakes were named exactly, and nothing else ever was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from robot_rl.bundle.load import Bundle, load_bundle
from robot_rl.commands.result import Result, Row
from robot_rl.parity.causes import VAGUE, Cause
from robot_rl.parity.diagnose import AT_REST, EITHER, diagnose
from robot_rl.parity.flight import Flight
from robot_rl.robots import get_robot
from robot_rl.runtime.modes import Mode
from robot_rl_sim.parity.flights import fly, wiggle_log
from robot_rl_sim.parity.mismatches import IMU_FIELDS, Mismatch, draw

POLICIES = {"leap_hand": "leap_hand/leap-reach/v1", "unitree_g1": "unitree_g1/g1-balance/v2"}
LOOP_PERIOD_S = 0.01
TARGET = 0.95

# What a driver gets wrong on one side or the other of a servo looks the same from outside it.
_SERVO = ("target", "joints", "state")
_MOST_FLIGHTS = 3


@dataclass(frozen=True)
class Case:
    """One robot, its mistakes, and what was said of it."""

    robot: str
    seed: int
    mismatches: tuple[Mismatch, ...]
    said: tuple[tuple[Cause, ...], ...]
    """Of each flight, and the log of wiggled joints if there was one."""
    wiggled: bool
    """Whether that took a log of wiggled joints."""
    missing: tuple[Mismatch, ...]
    wrong: tuple[Cause, ...]
    """Named, and not there."""

    @property
    def ok(self) -> bool:
        return not self.missing and not self.wrong

    @property
    def either(self) -> bool:
        return any(cause.signal == EITHER for causes in self.said for cause in causes)


def benchmark(robots: int = 200, matched: int = 60, seed: int = 20_000) -> Result:
    """Rows `parity/<group>`, `parity/named`, `parity/false_alarms`; each case, as it is judged, on stderr.

    Args:
        robots: Robots with one mistake or two.
        matched: Robots without any, of which nothing may be said.
        seed: Of the first robot; each next one has the next.
    """
    torch.set_num_threads(1)
    cases = []
    for case in measure(robots, matched, seed):
        cases.append(case)
        print(f"{len(cases)} {'ok' if case.ok else 'NOT'} {case.robot} {case.seed} {case.mismatches}", file=sys.stderr)
        if not case.ok:
            print(f"    missing {case.missing}\n    said {case.said}", file=sys.stderr)
    return summary(cases)


def measure(mismatched: int, matched: int, seed: int) -> Iterator[Case]:
    """Robots in turn; every second mismatched one has two mistakes. The same for the same seed."""
    bundles = {robot: load_bundle(policy_path(robot)) for robot in POLICIES}
    robots = list(POLICIES)
    for i in range(mismatched + matched):
        count = 0 if i >= mismatched else 1 + (i // len(robots)) % 2
        yield judge(bundles[robots[i % len(robots)]], count, seed + i)


def policy_path(robot: str) -> Path:
    return Path(__file__).resolve().parents[3] / "policies" / POLICIES[robot]


def judge(bundle: Bundle, count: int, seed: int) -> Case:
    """Fly with `count` mistakes, wiggle what is unclear, mend what is named, and fly again if that leaves any."""
    contract = bundle.contract
    spec = get_robot(contract.robot)
    mismatches = draw(np.random.default_rng(seed), spec, contract.control_period_s, count)
    left: list[Mismatch] = list(mismatches)
    said: list[tuple[Cause, ...]] = []
    wrong: list[Cause] = []
    wiggled = False
    while len(said) < _MOST_FLIGHTS:
        flight = fly(bundle, left, seed, LOOP_PERIOD_S)
        causes = diagnose(flight).causes
        joints = to_wiggle(flight, causes)
        if joints:
            wiggled = True
            wrong += [c for c in causes if not any(is_about(c, m) for m in left)]
            causes = diagnose(flight, wiggle_log(bundle, left, seed, joints)).causes
        said.append(causes)
        wrong += [c for c in causes if not any(is_it(c, m) or (c.kind in VAGUE and is_about(c, m)) for m in left)]
        missing = [m for m in left if not any(is_it(c, m) for c in causes)]
        named_one = len(missing) < len(left)
        left = missing
        if not left or not named_one:
            break
    return Case(spec.name, seed, mismatches, tuple(said), wiggled, tuple(left), tuple(wrong))


def to_wiggle(flight: Flight, causes: Sequence[Cause]) -> list[str]:
    """Joints to wiggle, by what was said of a flight: those that are wrong somehow, or all if it came to nothing."""
    if any(cause.kind not in VAGUE for cause in causes):
        return []
    names = flight.joint_names
    if causes:
        return [names[i] for i in sorted({i for cause in causes for i in cause.channels})]
    return [] if flight.mode[-1] == Mode.RUN else list(names)


def is_about(cause: Cause, mismatch: Mismatch) -> bool:
    """Whether `cause` blames joints that `mismatch` strikes."""
    return mismatch.signal not in IMU_FIELDS and (
        not mismatch.channels or bool(set(cause.channels) & set(mismatch.channels))
    )


def is_it(cause: Cause, mismatch: Mismatch) -> bool:
    """Whether `cause` is the right name for `mismatch`: its kind, its signal, and exactly its channels."""
    if cause.kind != mismatch.kind or set(cause.channels) != set(mismatch.channels):
        return False
    if cause.signal == AT_REST:
        return mismatch.signal in ("joints", "joint_pos")
    if mismatch.signal in _SERVO:
        return cause.signal in _SERVO
    return cause.signal == mismatch.signal or (cause.signal == EITHER and mismatch.signal in EITHER.split(" or "))


def summary(cases: Sequence[Case]) -> Result:
    with_mistakes, without = [c for c in cases if c.mismatches], [c for c in cases if not c.mismatches]
    named, alarms = sum(c.ok for c in with_mistakes), sum(not c.ok for c in without)
    share = named / max(len(with_mistakes), 1)
    rows = [
        *(Row(f"parity/{name}", ok / n, "", reference=f"of {n}") for name, ok, n in groups(cases)),
        Row("parity/named", share, "", reference="target", ratio=share / TARGET),
        Row("parity/false_alarms", alarms / max(len(without), 1), "", reference=f"of {len(without)}"),
    ]
    failed = [
        {"robot": c.robot, "seed": c.seed, "missing": str(c.missing), "said": str(c.said)} for c in cases if not c.ok
    ]
    ok = share >= TARGET and not alarms
    reason = "" if ok else f"named {named} of {len(with_mistakes)}, {alarms} false alarms of {len(without)}"
    return Result(ok=ok, rows=tuple(rows), reason=reason, details={"failed": failed, "table": table(cases)})


def groups(cases: Sequence[Case]) -> list[tuple[str, int, int]]:
    """(name, cases named, cases): by robot and number of mistakes, then by kind and by signal of each mistake."""
    found: dict[str, list[bool]] = {}
    for case in cases:
        number = ("matched", "single", "paired")[len(case.mismatches)]
        found.setdefault(f"{number}/{case.robot}", []).append(case.ok)
    for case in cases:
        for m in case.mismatches:
            found.setdefault(f"kind/{m.kind}", []).append(m not in case.missing)
    for case in cases:
        for m in case.mismatches:
            found.setdefault(f"signal/{m.signal}", []).append(m not in case.missing)
    return [(name, sum(oks), len(oks)) for name, oks in found.items()]


def table(cases: Sequence[Case]) -> str:
    """Markdown."""
    lines = ["| group | named | of | share |", "|---|---|---|---|"]
    lines += [f"| {name} | {ok} | {n} | {ok / n:.0%} |" for name, ok, n in groups(cases)]
    with_mistakes = [c for c in cases if c.mismatches]
    n = max(len(with_mistakes), 1)
    ok = [c for c in with_mistakes if c.ok]
    for name, cases_of in (
        ("**all cases**", ok),
        ("by the first flight alone", [c for c in ok if len(c.said) == 1 and not c.wiggled]),
        ("by the first flight and its wiggled joints", [c for c in ok if len(c.said) == 1 and c.wiggled]),
        ("once what was named had been mended", [c for c in ok if len(c.said) > 1]),
        ("of all, up to whether joint_vel or joint_pos is wrong", [c for c in ok if c.either]),
    ):
        lines.append(f"| {name} | {len(cases_of)} | {n} | {len(cases_of) / n:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tyro.cli(benchmark).details["table"])
