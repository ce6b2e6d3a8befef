"""`robot-rl replay`: run a log again through its bundle, and say where anything comes out otherwise."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError, LogError

if TYPE_CHECKING:
    from robot_rl.runtime.log_reader import Log
    from robot_rl.runtime.replay import Difference, Replay


@dataclass(frozen=True)
class ReplayArgs:
    """Run a log again through its bundle: exit code 1 and the first and largest difference, if there is one.

    The policy is evaluated on the recorded states, commands and memory of each tick; modes and safety filter run over
    the recorded states, requests and answers of the policy, where the log begins with the run and lacks no tick.
    """

    log: Annotated[Path, tyro.conf.Positional]
    """MCAP file of `deploy` or of the ROS node, also a black box."""
    bundle: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder or zip. Default: the one with the log's digest, looked for beside the log, here and in policies/."""
    robot: str | None = None
    """Robot that it ran on. Default: the one that the log names."""
    tolerance: float = 1e-4
    """Of numbers: difference / max(1, recorded). Another CPU sums in another order; what is wrong is off by 1e-3."""
    start: float | None = None
    """Leave out what is earlier, s since the first tick. The safety filter is then not replayed."""
    end: float | None = None
    """Leave out what is later."""


def run(args: ReplayArgs) -> Result:
    from robot_rl.bundle.load import load_bundle
    from robot_rl.robots import get_robot
    from robot_rl.runtime.replay import replay_policy, replay_safety

    if not args.tolerance >= 0:
        raise ConfigError(f"tolerance must not be negative, got {args.tolerance}")
    log = open_log(args.log, args.start, args.end)
    bundle = load_bundle(args.bundle or find_bundle(log, args.log))
    name = args.robot or log.metadata["robot"]
    digest = bundle.manifest.digest()
    rows = [
        Row("bundle", f"{bundle.path} ({'as recorded' if digest == log.metadata['bundle_digest'] else 'another one'})")
    ]
    policy = replay_policy(log, bundle, args.tolerance)
    rows += _rows("policy", policy)
    details = {"policy": _details(policy), "bundle_digest": digest, "log": str(args.log), "damage": log.damage}
    parts = {"policy": policy}
    try:
        parts["safety"] = replay_safety(log, bundle, get_robot(name), args.tolerance)
        rows += _rows("safety", parts["safety"])
        details["safety"] = _details(parts["safety"])
    except LogError as error:
        rows.append(Row("safety", f"not replayed: {error}"))
    if not any(part.compared for part in parts.values()):
        raise LogError(f"{args.log} holds nothing to compare: {'; '.join(policy.skipped) or 'the policy never ran'}")
    differing = [f"{name}/{term}" for name, part in parts.items() for term, r in part.terms.items() if r.differing]
    reason = f"comes out otherwise: {', '.join(differing)}" if differing else ""
    return Result(ok=not differing, rows=tuple(rows), reason=reason, details=details)


def open_log(path: Path, start_s: float | None, end_s: float | None) -> Log:
    """Read a log. Raises ConfigError if it cannot be opened, LogError if it is none."""
    from robot_rl.runtime.log_reader import read_log

    try:
        log = read_log(path, start_s=start_s, end_s=end_s)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    missing = sorted({"robot", "bundle_digest", "loop_period_s", "contract"} - set(log.metadata))
    if missing:
        raise LogError(f"{path} does not say its {', '.join(missing)}")
    return log


def find_bundle(log: Log, log_path: Path) -> Path:
    """The bundle with the log's digest. Raises ConfigError naming where it was looked for."""
    digest = log.metadata["bundle_digest"]
    places = list(dict.fromkeys(p.resolve() for p in (log_path.parent, Path.cwd(), Path.cwd() / "policies")))
    for candidate, text in _manifests(places):
        if digest in text:
            return candidate
    raise ConfigError(
        f"no bundle with digest {digest[:12]}... ({log.metadata.get('bundle', '')}) in {', '.join(map(str, places))}; "
        "give its path"
    )


def _manifests(places: list[Path]) -> Iterator[tuple[Path, str]]:
    """(bundle, text of its manifest) of every bundle in these folders and, of policies/, below them."""
    for place in places:
        pattern = "**/" if place.name == "policies" else ""
        for path in sorted([*place.glob(f"{pattern}manifest.json"), *place.glob(f"{pattern}*/manifest.json")]):
            yield path.parent, path.read_text(errors="replace")
        for path in sorted(place.glob(f"{pattern}*.zip")):
            try:
                with zipfile.ZipFile(path) as archive, archive.open("manifest.json") as file:
                    yield path, file.read(16 * 1024 * 1024).decode("utf-8", "replace")
            except (zipfile.BadZipFile, KeyError, OSError, NotImplementedError, RuntimeError):
                continue


def _rows(part: str, replay: Replay) -> list[Row]:
    """What was compared, and of each term that differs how often, where first, and where most."""
    rows = [Row(f"{part}/ticks", replay.compared)]
    for term, report in replay.terms.items():
        if report.differing:
            rows.append(Row(f"{part}/{term}/differing", report.differing, f"of {report.compared} ticks"))
            for which, found in (("first", report.first), ("most", report.largest)):
                rows += [Row(f"{part}/{term}/{which}", _text(found))] if found else []
    rows += [Row(f"{part}/skipped", count, f"ticks: {why}") for why, count in replay.skipped.items()]
    return rows


def _text(found: Difference) -> str:
    recorded, replayed = (v if isinstance(v, str) else f"{v:.6g}" for v in (found.recorded, found.replayed))
    where = f" {found.part}" if found.part else ""
    return f"tick {found.tick}{where}: {recorded} recorded, {replayed} replayed"


def _details(replay: Replay) -> dict[str, object]:
    def value(found: Difference | None) -> dict[str, object] | None:
        return None if found is None else {**found.__dict__, "size": found.size}

    return {
        term: {"compared": r.compared, "differing": r.differing, "first": value(r.first), "most": value(r.largest)}
        for term, r in replay.terms.items()
    }


VERB = Verb(ReplayArgs, run)
