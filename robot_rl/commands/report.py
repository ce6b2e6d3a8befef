"""`robot-rl report`: a page about one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.replay import open_log
from robot_rl.commands.result import Result, Row


@dataclass(frozen=True)
class ReportArgs:
    """Make a page about one run from its log: modes, margins of each check, tracking, timing, what was changed."""

    log: Annotated[Path, tyro.conf.Positional]
    """MCAP file of `deploy` or of the ROS node, also a black box or a log that was cut."""
    out: Path | None = None
    """HTML file, complete in itself. Default: beside the log."""
    start: float | None = None
    """Leave out what is earlier, s since the first tick."""
    end: float | None = None
    """Leave out what is later."""


def run(args: ReportArgs) -> Result:
    import numpy as np

    from robot_rl.report.flight import write_flight_page

    log = open_log(args.log, args.start, args.end)
    path = args.out or args.log.with_suffix(".html")
    data = write_flight_page(log, path, args.log.name)
    rows = [
        Row("page", str(path)),
        Row("ticks", len(data.modes)),
        Row("ticks/missing", data.dropped),
        Row("duration", float(data.time_s[-1]), "s"),
        Row("trips", sum(change.trip for change in data.changes)),
        Row("tick/p99", float(1e3 * np.nanpercentile(data.timing["tick_s"], 99)), "ms"),
        *(Row(f"margin/{name}", float(np.nanmin(values))) for name, values in data.margins.items()),
        *(Row(f"modified/{reason}", count, "ticks") for reason, count in data.modified_ticks.items()),
    ]
    return Result(ok=True, rows=tuple(rows), details={"damage": log.damage, "complete": log.complete})


VERB = Verb(ReportArgs, run)
