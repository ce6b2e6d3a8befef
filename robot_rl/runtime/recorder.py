"""Recording a run: every tick to a log that Foxglove opens, and a black box after each trip.

In the loop a tick becomes bytes in shared memory, and nothing else: another process (log_writer.py) does the rest. It
outlives this one, so that a log is whole also after SIGKILL. log_messages.py says what is in a log, log_reader.py reads
it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import count
from pathlib import Path

from robot_rl.contract import JointCommand, NumpyState
from robot_rl.errors import ConfigError
from robot_rl.runtime.checks import Cause
from robot_rl.runtime.controller import Controller, Tick
from robot_rl.runtime.log_messages import TOPICS, Encoder, descriptors, type_name
from robot_rl.runtime.log_ring import CAPACITY, LogRing
from robot_rl.runtime.log_writer import CHUNK_S, FORMAT, LogPlan
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.scheduling import on_any_core

_ASKED_FOR = (Cause.NONE, Cause.STOPPED)
"""DAMP for one of these is no trip."""
_CLOSE_S = 30.0
"""How long the writer may take to finish."""

_log = logging.getLogger(__name__)


class Recorder:
    """Records the ticks of one controller. `record` never blocks and never raises: what cannot be recorded is counted.

    A full disk does not stop a robot: the reason is in `error`, and further ticks count as dropped. A file that exists
    is never overwritten: `path` is the first free of `<name>`, `<name>_2`, ... `full=False` writes black boxes only;
    `about` is added to what the log says about itself.

    Raises ConfigError at construction if the file cannot be made.
    """

    def __init__(
        self,
        path: Path | str,
        controller: Controller,
        *,
        full: bool = True,
        about: Mapping[str, str] | None = None,
        ring_bytes: int = CAPACITY,
    ) -> None:
        self.path, file = _create(Path(path)) if full else (Path(path), None)
        self._encoder = Encoder()
        self._offered = 0
        """Ticks so far."""
        self._refused = 0
        """Of them, those that never came into the ring."""
        self._mode = controller.mode
        # Log times are wall-clock, so that logs of several machines line up; the loop's own clock is in every message.
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._ring = LogRing(capacity=ring_bytes)
        self._closed: tuple[int, str] | None = None
        """Ticks written and error, once closed."""
        plan = LogPlan(
            path=str(self.path),
            metadata={**describe(controller), **(about or {})},
            topics={topic: (type_name(topic), base64.b64encode(descriptors(topic)).decode()) for topic in TOPICS},
            chunk_bytes=_chunk_bytes(controller),
        )
        self._writer = _start(self._ring, file, plan)

    def record(self, tick: Tick, state: NumpyState | None, sent: JointCommand) -> None:
        """Take one tick. To be called from one thread only."""
        stamp_ns = max(0, self._offset_ns + int(tick.now_s * 1e9)) if math.isfinite(tick.now_s) else time.time_ns()
        tripped = tick.mode in (Mode.DAMP, Mode.FAULT) and self._mode not in (Mode.DAMP, Mode.FAULT)
        trip = tick.cause.value if tripped and tick.cause not in _ASKED_FOR else ""
        self._mode = tick.mode
        try:
            written = self._ring.put(self._encoder.encode(self._offered, stamp_ns, tick, state, sent, trip))
        except Exception as error:
            # A state may hold anything, also what is no number; the loop must not end for its log.
            written = False
            if not self._refused:
                _log.warning("tick %d cannot be recorded: %s: %s", self._offered, type(error).__name__, error)
        self._offered += 1
        self._refused += not written

    @property
    def dropped(self) -> int:
        """Ticks that are not in the log. While it is open, those that are known to be lost."""
        return self._refused if self._closed is None else self._offered - self._closed[0]

    @property
    def error(self) -> str:
        """Why nothing is written any more; empty if all is well."""
        if self._closed is not None:
            return self._closed[1]
        if (status := self._writer.poll()) not in (None, 0):
            return self._ring.error or f"the process that writes it ended with {status}"
        return self._ring.error

    def close(self) -> None:
        """Wait until everything is written and the file is finished. May be called more than once."""
        if self._closed is not None:
            return
        assert self._writer.stdin is not None
        # Its end is what the writer waits for.
        self._writer.stdin.close()
        try:
            self._writer.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._ring.error = f"not finished {_CLOSE_S:g} s after the end"
            self._writer.kill()
            self._writer.wait()
        error = self.error
        self._closed = (self._ring.written, error)
        self._ring.close()
        if error:
            _log.error("recording to %s stopped: %s", self.path, error)
        if self.dropped:
            _log.warning("%d of %d ticks are missing from %s", self.dropped, self._offered, self.path)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def describe(controller: Controller) -> dict[str, str]:
    """What a log says about itself: enough to find the bundle again, and to run robot and filter as they were."""
    bundle, limits = controller.bundle, controller.limits
    about = {
        "format": FORMAT,
        "started_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "contract": bundle.contract.to_json(),
        "contract_digest": bundle.contract.digest(),
        "bundle": bundle.path.name,
        "bundle_digest": bundle.manifest.digest(),
        "task": bundle.manifest.task,
        "algorithm": bundle.manifest.algorithm,
        "robot": controller.robot.name,
        "loop_period_s": repr(controller.loop_period_s),
        "safety_profile": json.dumps(dataclasses.asdict(limits.profile)),
        "host": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    return about | {name.replace("-", "_"): version(name) for name in ("robot-rl", "numpy", "onnxruntime")}


def _create(path: Path) -> tuple[Path, int]:
    """The first free name and the file open for writing."""
    numbered = (path if k == 1 else path.with_stem(f"{path.stem}_{k}") for k in count(1))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for candidate in numbered:
            try:
                return candidate, os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                continue
    except OSError as error:
        raise ConfigError(f"log {path} cannot be written: {error}") from error
    raise AssertionError("there is always a free name")


def _start(ring: LogRing, file: int | None, plan: LogPlan) -> subprocess.Popen[bytes]:
    """The writer, with ring and file; the end of its standard input tells it to finish."""
    files = (ring.fd,) if file is None else (ring.fd, file)
    # Not on the core that the loop keeps to.
    with on_any_core():
        writer = subprocess.Popen(
            [sys.executable, "-m", "robot_rl.runtime.log_writer", *map(str, files)],
            stdin=subprocess.PIPE,
            pass_fds=files,
            start_new_session=True,
        )
    if file is not None:
        os.close(file)
    assert writer.stdin is not None
    writer.stdin.write(plan.to_json().encode() + b"\n")
    writer.stdin.flush()
    return writer


def _chunk_bytes(controller: Controller) -> int:
    """About what CHUNK_S of ticks take: an open chunk is what is lost if the writer is killed too."""
    contract = controller.bundle.contract
    n = len(contract.joints)
    tick = 8 * n * 10 + 300
    evaluation = 4 * contract.observation_dim + 16 * n
    return max(4096, round(CHUNK_S * (tick / controller.loop_period_s + evaluation / contract.control_period_s)))
