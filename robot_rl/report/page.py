"""A self-contained HTML page: text, tables, plots and videos in one file that can be mailed or attached to a ticket."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robot_rl.commands.result import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { --ink: #1b1f24; --soft: #5b6570; --line: #d9dee4; --paper: #ffffff; --card: #f6f8fa; }
:root { --good: #1a7f37; --bad: #c4314b; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--card); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 40px 28px 72px; background: var(--paper); }
h1 { font-size: 30px; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 44px 0 8px; padding-top: 18px; border-top: 1px solid var(--line); }
p, li { max-width: 75ch; }
p.lead { color: var(--soft); margin: 0 0 24px; }
table { border-collapse: collapse; font-size: 14px; margin: 12px 0; }
th, td { text-align: left; padding: 5px 18px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
figure { margin: 14px 0; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 14px; max-width: 75ch; }
video { width: 100%; max-width: 640px; border-radius: 6px; display: block; background: #000; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 25px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.good { color: var(--good); } .bad { color: var(--bad); }
code { font: 13px ui-monospace, monospace; background: var(--card); padding: 1px 4px; word-break: break-all; }
"""


@dataclass(frozen=True)
class Tile:
    """One figure for the top of the page. `ok` colours it: met, missed, or (None) neither."""

    value: str
    label: str
    ok: bool | None = None


@dataclass(frozen=True)
class Section:
    title: str
    body: str
    """HTML."""


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def figure(plot: Figure, caption: str) -> str:
    """A matplotlib figure as inline SVG, so that it stays sharp and its text can be searched."""
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    plot.savefig(buffer, format="svg", bbox_inches="tight")
    plt.close(plot)
    svg = buffer.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}<figcaption>{html.escape(caption)}</figcaption></figure>"


def video(path: Path, caption: str) -> str:
    """An H.264 file, embedded."""
    data = base64.b64encode(path.read_bytes()).decode()
    source = f'<video controls autoplay loop muted playsinline src="data:video/mp4;base64,{data}"></video>'
    return f"<figure>{source}<figcaption>{html.escape(caption)}</figcaption></figure>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells that read as numbers are aligned to the right."""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in header)
    body = "".join("<tr>" + "".join(_cell(c) for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def result_table(rows: Sequence[Row]) -> str:
    """The rows of a Result."""

    def text(value: object) -> str:
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = [(r.name, text(r.value), r.unit, f"{text(r.ratio)} x {r.reference}" if r.ratio else "") for r in rows]
    return table(("name", "value", "unit", "beside"), lines)


def write_report(path: Path, title: str, lead: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> None:
    """Write the page atomically."""
    boxes = "".join(_tile(t) for t in tiles)
    body = "".join(f"<h2>{html.escape(s.title)}</h2>{s.body}" for s in sections)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f'<body><main><h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p>'
        f'<div class="tiles">{boxes}</div>{body}</main></body></html>\n'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)


def _tile(tile: Tile) -> str:
    colour = {True: "good", False: "bad", None: ""}[tile.ok]
    value, label = html.escape(tile.value), html.escape(tile.label)
    return f'<div class="tile"><b class="{colour}">{value}</b><span>{label}</span></div>'


def _cell(text: str) -> str:
    try:
        float(text.rstrip("%").replace(",", ""))
    except ValueError:
        return f"<td>{html.escape(text)}</td>"
    return f'<td class="number">{html.escape(text)}</td>'
