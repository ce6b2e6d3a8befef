"""The flight log: what was seen, decided and sent, as MCAP with JSON messages. Needs the extra `record`.

Topics, one message each per tick (but /action, which comes with each evaluation of the policy):
/state what was measured, /command what was sent, /action what the policy said, /mode mode, cause and what the filter
changed, /timing where the time went. Every message carries `t_s`, the loop's monotonic clock.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from robot_rl.contract import STATE_FIELDS, Contract, JointCommand, NumpyState
from robot_rl.errors import MissingDependencyError, RobotRLError
from robot_rl.runtime.controller import Tick
from robot_rl.runtime.safety import MODIFICATIONS

CHUNK_BYTES = 64 * 1024
"""What a kill -9 costs at most: the chunk that is open."""
_MAGIC = b"\x89MCAP0\r\n"
_NUMBERS = {"type": "array", "items": {"type": ["number", "null"]}}
_NUMBER = {"type": ["number", "null"]}
_TEXT = {"type": "string"}

# Topic -> fields of its messages, as JSON schema. null stands for a number that is not finite.
TOPICS: dict[str, dict[str, Any]] = {
    "/state": {"t_s": _NUMBER, "stamp_s": _NUMBER, "age_s": _NUMBER, **dict.fromkeys(STATE_FIELDS, _NUMBERS)},
    "/command": {
        **dict.fromkeys(("t_s", "expires_s"), _NUMBER),
        **dict.fromkeys(("position", "velocity", "effort", "kp", "kd"), _NUMBERS),
    },
    "/action": {"t_s": _NUMBER, **dict.fromkeys(("action", "target", "applied", "obs"), _NUMBERS)},
    "/mode": {
        **dict.fromkeys(("t_s", "margin"), _NUMBER),
        **dict.fromkeys(("mode", "cause", "severity", "note"), _TEXT),
        "modified": {"type": "object", "description": "reason -> indices of the joints whose target was changed"},
    },
    "/timing": dict.fromkeys(("t_s", "age_s", "policy_s", "filter_s", "tick_s"), _NUMBER),
}

_log = logging.getLogger(__name__)


class Recorder:
    """Writes ticks to a file from a thread of its own. `record` never blocks: if the thread falls behind, ticks drop.

    A full disk does not stop a robot: the error is kept in `error`, and further ticks count as dropped.
    """

    def __init__(self, path: Path | str, contract: Contract, *, queue_ticks: int = 4096) -> None:
        try:
            from mcap.writer import Writer
        except ImportError as error:
            raise MissingDependencyError("recording needs 'mcap'; pip install 'robot-rl[record]'") from error
        self.path = Path(path)
        self.dropped = 0
        """Ticks that are not in the file."""
        self.error: OSError | None = None
        self._queue: queue.Queue[tuple[Tick, NumpyState | None, JointCommand] | None] = queue.Queue(queue_ticks)
        # Log times are wall-clock, so that logs of several machines line up; the loop's own clock is in every message.
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("wb")
        self._writer = Writer(self._file, chunk_size=CHUNK_BYTES)
        self._writer.start(profile="", library="robot-rl")
        self._writer.add_metadata("robot_rl", {"contract": contract.to_json()})
        self._channels = {topic: self._register(topic, fields) for topic, fields in TOPICS.items()}
        self._thread = threading.Thread(target=self._drain, name="recorder", daemon=True)
        self._thread.start()

    def record(self, tick: Tick, state: NumpyState | None, sent: JointCommand) -> None:
        try:
            self._queue.put_nowait((tick, state, sent))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what is queued and finish the file. May be called more than once."""
        if not self._thread.is_alive():
            return
        self._queue.put(None)
        self._thread.join()
        try:
            if self.error is None:
                self._writer.finish()
            self._file.close()
        except OSError as error:
            self._fail(error)
        if self.dropped:
            _log.warning("%d ticks are missing from %s", self.dropped, self.path)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _register(self, topic: str, fields: dict[str, Any]) -> int:
        schema = {"title": topic.strip("/"), "type": "object", "properties": fields}
        schema_id = self._writer.register_schema(f"robot_rl{topic}", "jsonschema", json.dumps(schema).encode())
        return self._writer.register_channel(topic, "json", schema_id)

    def _drain(self) -> None:
        while (item := self._queue.get()) is not None:
            if self.error is not None:
                self.dropped += 1
                continue
            tick, state, sent = item
            stamp_ns = self._offset_ns + int(tick.now_s * 1e9) if math.isfinite(tick.now_s) else time.time_ns()
            try:
                for topic, message in _messages(tick, state, sent):
                    data = json.dumps(message, allow_nan=False).encode()
                    self._writer.add_message(self._channels[topic], max(stamp_ns, 0), data, max(stamp_ns, 0))
                self._file.flush()
            except OSError as error:
                self.dropped += 1
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.error = error
        _log.error("recording to %s stopped: %s", self.path, error)


def _messages(tick: Tick, state: NumpyState | None, sent: JointCommand) -> Iterator[tuple[str, dict[str, Any]]]:
    t_s = _number(tick.now_s)
    if state is not None:
        fields = {name: getattr(state, name) for name in STATE_FIELDS}
        yield (
            "/state",
            {
                "t_s": t_s,
                "stamp_s": _numbers(state.stamp_s)[0],
                "age_s": _number(tick.age_s),
                **{name: _numbers(value) for name, value in fields.items() if value is not None},
            },
        )
    yield (
        "/command",
        {
            "t_s": t_s,
            "expires_s": _number(sent.expires_s),
            **{name: _numbers(getattr(sent, name)) for name in ("position", "velocity", "effort", "kp", "kd")},
        },
    )
    if tick.policy is not None:
        yield (
            "/action",
            {
                "t_s": t_s,
                "action": _numbers(tick.policy.action),
                "target": _numbers(tick.policy.target),
                "applied": [] if tick.applied is None else _numbers(tick.applied),
                "obs": _numbers(tick.policy.obs),
            },
        )
    modified = {r: np.flatnonzero(m).tolist() for r, m in zip(MODIFICATIONS, tick.modified, strict=True) if m.any()}
    yield (
        "/mode",
        {
            "t_s": t_s,
            "mode": tick.mode.value,
            "cause": tick.cause.value,
            "severity": tick.severity.name.lower(),
            "margin": _number(tick.margin),
            "note": tick.note,
            "modified": modified,
        },
    )
    timing = {name: _number(getattr(tick, name)) for name in ("age_s", "policy_s", "filter_s", "tick_s")}
    yield "/timing", {"t_s": t_s, **timing}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(values: Any) -> list[float | None]:
    array = np.asarray(values, np.float64).reshape(-1)
    listed: list[float | None] = array.tolist()
    return listed if np.isfinite(array).all() else [_number(v) for v in array.tolist()]


class _WholeReads:
    """A file that ends where it holds less than what is asked for: the reader expects that a read is never short."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, length: int) -> bytes:
        data = self._file.read(length)
        return data if len(data) == length else b""


@dataclass(frozen=True)
class Log:
    """What `read_log` found."""

    contract: Contract | None
    messages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Topic -> messages in the order written."""
    complete: bool = False
    """False: the writer was killed, and what it had not yet written is missing."""


def read_log(path: Path | str) -> Log:
    """Read a log, also one without an end. Raises RobotRLError if it is no MCAP file at all."""
    try:
        from mcap.exceptions import McapError
        from mcap.records import Channel, Footer, Message, Metadata
        from mcap.stream_reader import StreamReader
    except ImportError as error:
        raise MissingDependencyError("reading logs needs 'mcap'; pip install 'robot-rl[record]'") from error
    contract, complete = None, False
    topics: dict[int, str] = {}
    messages: dict[str, list[dict[str, Any]]] = {topic: [] for topic in TOPICS}
    with Path(path).open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise RobotRLError(f"{path} is no MCAP file")
        file.seek(0)
        try:
            # Record by record from the start: an index only exists in a file that was finished.
            for record in StreamReader(cast(IO[bytes], _WholeReads(file))).records:
                if isinstance(record, Channel):
                    topics[record.id] = record.topic
                elif isinstance(record, Message):
                    messages.setdefault(topics[record.channel_id], []).append(json.loads(record.data))
                elif isinstance(record, Metadata) and record.name == "robot_rl":
                    contract = Contract.from_json(record.metadata["contract"])
                elif isinstance(record, Footer):
                    complete = True
        except McapError:
            # It ends in the middle of a record, or of what follows the last one.
            complete = False
    return Log(contract, messages, complete)
