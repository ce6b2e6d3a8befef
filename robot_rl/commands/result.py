"""What every verb returns: rows that a person reads as a table and a script reads as JSON."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measured value. `reference` names what `ratio` (value / reference value) is taken against."""

    name: str
    value: float | str | bool | None
    unit: str = ""
    reference: str | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Result:
    """Outcome of one verb. `ok` decides the exit code; `details` holds whatever else a script may want."""

    ok: bool
    rows: tuple[Row, ...] = ()
    reason: str = ""
    """Why it is not ok, in one sentence."""
    details: dict[str, Any] = field(default_factory=dict)
    quiet: bool = False
    """The verb has shown its own table: do not print the rows."""

    def to_json(self) -> str:
        """Strict JSON: numbers that are not finite become null."""
        values = asdict(self)
        del values["quiet"]
        return json.dumps(_finite(values), indent=1)

    def write(self, path: Path) -> None:
        """Write atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(self.to_json() + "\n")
        os.replace(temporary, path)

    def table(self) -> str:
        """Aligned text table of the rows."""
        if not self.rows:
            return ""
        cells = [(r.name, _text(r.value), r.unit, _text(r.ratio), r.reference or "") for r in self.rows]
        widths = [max(len(c[i]) for c in cells) for i in range(5)]
        lines = []
        for row, (name, value, unit, ratio, reference) in zip(self.rows, cells, strict=True):
            aligned = value.ljust(widths[1]) if isinstance(row.value, str) else value.rjust(widths[1])
            line = f"{name:<{widths[0]}}  {aligned} {unit:<{widths[2]}}"
            if ratio:
                line += f"  {ratio:>{widths[3]}} x {reference}"
            lines.append(line.rstrip())
        return "\n".join(lines)


def _text(value: float | str | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
