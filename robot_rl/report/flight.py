"""The page about one run: modes, margins, tracking, timing, what the safety filter changed, and what the log is of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robot_rl.report import flight_plots, plots
from robot_rl.report.flight_data import FlightData, flight_data
from robot_rl.report.page import Section, Tile, figure, paragraph, table, write_report
from robot_rl.runtime.log_reader import Log

_PANELS = 10
"""Margins that are drawn, the tightest; the table has all."""
_UNEVENTFUL = 0.995
"""Margins that never fall below are not drawn."""
_CHANGES, _MARKERS = 200, 40
_TIMES = (
    ("tick_s", "controller: state in, command out"),
    ("policy_s", "of it the policy"),
    ("age_s", "age of the state"),
)


def write_flight_page(log: Log, path: Path, name: str) -> FlightData:
    """Write the page of `log` atomically, and return what it shows. Raises LogError if there is nothing to show."""
    data = flight_data(log)
    about = log.metadata
    sections = [_events(data), _margins(data), _tracking(data), _timing(data), _modifications(data, log), _about(log)]
    write_report(
        path,
        title=f"{about.get('robot', '')}: {about.get('task', '')} ({name})",
        lead=_lead(log),
        tiles=_tiles(data),
        sections=[_timeline(data), *(section for section in sections if section is not None)],
    )
    return data


def _lead(log: Log) -> str:
    about = log.metadata
    lead = (
        f"Recorded on {about.get('started_utc', '')} with the bundle {about.get('bundle', '')} "
        f"({about.get('bundle_digest', '')[:12]}), loop period {about.get('loop_period_s', '')} s."
    )
    if about.get("trip"):
        lead += f" Black box of a trip: {about['trip']}."
    if not log.complete:
        lead += " The log has no end: whoever wrote it was killed, or the file was cut."
    return lead


def _tiles(data: FlightData) -> list[Tile]:
    trips = sum(change.trip for change in data.changes)
    tick_ms = 1e3 * np.nanpercentile(data.timing["tick_s"], 99)
    return [
        Tile(f"{data.time_s[-1]:.1f} s", f"{len(data.modes)} ticks"),
        Tile(f"{data.share('run'):.0%}", "of it in RUN"),
        Tile(str(trips), "trips to damping", trips == 0),
        Tile(str(data.dropped), "ticks missing in the log", data.dropped == 0),
        Tile(f"{tick_ms:.2f} ms", "99 % of ticks take less"),
        Tile(
            _margin(np.nanmin(data.margin)), "least margin: 1 far, 0 at a threshold", bool(np.nanmin(data.margin) >= 0)
        ),
    ]


def _margin(value: float) -> str:
    return f"{value:.3f}" if value > -10 else "beyond"


def _markers(data: FlightData) -> list[plots.Marker]:
    return [plots.Marker(change.time_s, change.cause) for change in data.changes if change.trip][:_MARKERS]


def _timeline(data: FlightData) -> Section:
    curves = [
        ("margin: 1 far from every threshold, 0 at one", data.time_s, np.clip(data.margin, -0.3, 1.05)),
        ("age of the state (ms)", data.time_s, 1e3 * data.timing["age_s"]),
        ("controller's time per tick (ms)", data.time_s, 1e3 * data.timing["tick_s"]),
    ]
    thinned = [(label, *flight_plots.thinned(t, values)) for label, t, values in curves]
    shown = np.linspace(0, len(data.modes) - 1, min(len(data.modes), 2 * flight_plots.POINTS)).astype(int)
    modes = [data.modes[i].upper() for i in shown]
    plot = plots.timeline(data.time_s[shown], modes, thinned, _markers(data))
    return Section("What the robot did", figure(plot, "Modes of the controller; dashed lines are trips to damping."))


def _events(data: FlightData) -> Section:
    rows = [(f"{c.time_s:.3f}", c.what, "" if c.cause == "none" else c.cause, c.note) for c in data.changes[:_CHANGES]]
    body = table(("time (s)", "change", "cause", "note"), rows)
    left_out = len(data.changes) - len(rows)
    return Section("Changes", body + (paragraph(f"{left_out} later changes are left out.") if left_out else ""))


def _margins(data: FlightData) -> Section | None:
    if not data.margins:
        return None
    tightest = {name: v for name, v in data.margins.items() if np.nanmin(v) < _UNEVENTFUL}
    tightest = dict(list((tightest or data.margins).items())[:_PANELS])
    plot = flight_plots.margins(data.time_s, tightest, _markers(data))
    caption = "What comes nearest to its threshold: 1 far away, 0 at it, red beyond. Dashed lines are trips."
    rows = []
    for name, values in data.margins.items():
        at = int(np.nanargmin(values))
        beyond = int((values < 0).sum())
        rows.append((name, _margin(values[at]), f"{data.time_s[at]:.3f}", str(beyond)))
    return Section(
        "Margins of the checks",
        figure(plot, caption) + table(("measured", "least margin", "at (s)", "ticks beyond"), rows),
    )


def _tracking(data: FlightData) -> Section | None:
    tracking = data.tracking
    if tracking is None:
        return None
    caption = (
        "Position sent less position measured in the same tick, while a position was commanded: what the motors lag "
        "behind, and what load bends."
    )
    body = figure(flight_plots.tracking_errors(tracking), caption)
    return Section("Tracking", body + figure(flight_plots.worst_joints(tracking), "The joints that follow worst."))


def _timing(data: FlightData) -> Section:
    series = []
    for name, label in _TIMES:
        values = data.timing[name]
        # Where the policy was not asked, it took no time.
        values = values[np.isfinite(values) & ((values > 0) if name == "policy_s" else True)]
        if len(values):
            series.append((label, values))
    if len(data.interval_s):
        series.append(("between two ticks", data.interval_s))
    rows = "".join(figure(plots.histogram_ms(series[i : i + 2]), "") for i in range(0, len(series), 2))
    return Section("Timing", rows + paragraph("Every tick of the run, but for the slowest half percent."))


def _modifications(data: FlightData, log: Log) -> Section:
    assert log.contract is not None
    joints = log.contract.joint_names
    changed = {
        reason: counts for reason, counts in data.modified.items() if counts.size == len(joints) and counts.any()
    }
    if not changed:
        return Section("What the safety filter changed", paragraph("No target was changed."))
    rows = []
    for reason, counts in changed.items():
        ticks = data.modified_ticks[reason]
        most = ", ".join(f"{joints[j]} {counts[j]}" for j in np.argsort(-counts)[:3] if counts[j])
        rows.append((reason.replace("_", " "), str(ticks), f"{100 * ticks / len(data.modes):.1f}%", most))
    plot = flight_plots.modifications(changed, joints, len(data.modes))
    return Section(
        "What the safety filter changed",
        table(("reason", "ticks", "of all", "most often"), rows)
        + figure(plot, "Share of the ticks in which a reason changed the target of a joint."),
    )


def _about(log: Log) -> Section:
    hidden = ("contract", "safety_profile")
    rows = [(name, value) for name, value in log.metadata.items() if name not in hidden]
    body = table(("", ""), rows)
    if log.damage:
        body += paragraph("What could not be read: " + "; ".join(log.damage[:20]))
    return Section("About the log", body)
