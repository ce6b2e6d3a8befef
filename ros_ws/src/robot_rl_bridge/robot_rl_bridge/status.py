"""Status messages: diagnostic_msgs/DiagnosticArray on /diagnostics, for the usual tools."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from robot_rl_bridge.converters import time_message

TOPIC = "/diagnostics"

Level = Literal["ok", "warn", "error"]

_LEVELS: dict[Level, bytes] = {
    "ok": DiagnosticStatus.OK,
    "warn": DiagnosticStatus.WARN,
    "error": DiagnosticStatus.ERROR,
}


def status_message(
    node: str, part: str, robot: str, level: Level, summary: str, values: Mapping[str, Any]
) -> DiagnosticArray:
    """One status named `<node>: <part>`; numbers keep full precision as text."""
    message = DiagnosticArray(
        status=[
            DiagnosticStatus(
                level=_LEVELS[level],
                name=f"{node}: {part}",
                message=summary,
                hardware_id=robot,
                values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
            )
        ]
    )
    message.header.stamp = time_message(time.time())
    return message


def parse_status(message: DiagnosticArray, node: str, part: str = "policy") -> dict[str, str] | None:
    """The values of this part of `node`'s status, or None if the message holds none of it."""
    for status in message.status:
        if status.name == f"{node}: {part}":
            return {item.key: item.value for item in status.values}
    return None
