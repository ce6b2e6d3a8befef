"""Warp and MuJoCo Warp, set up, and the kernels that MuJoCo Warp does not have."""

# The bodies of kernels are Warp's language, of which pyright knows only that it looks like Python.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportOperatorIssue=false, reportArgumentType=false

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from robot_rl.errors import MissingDependencyError
from robot_rl.training.progress import Progress

try:
    import warp as wp

    # Warp reports every kernel it loads, on stdout, where a verb's result belongs.
    wp.config.log_level = wp.LOG_ERROR
    wp.init()
    import mujoco_warp as mjw
except ImportError as error:
    raise MissingDependencyError(f"backend 'warp' is not installed ({error}); pip install 'robot-rl[warp]'") from error

SILENT_S = 3.0
"""Kernels that are in Warp's cache load in less, on an idle machine."""


@wp.kernel(enable_backward=False)
def _note_failures(
    max_speed: float,
    world_overflow: int,
    shared_overflow: int,
    qpos0: wp.array2d[float],
    overflow: wp.array[int],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    warmstart: wp.array2d[float],
    act: wp.array2d[float],
    failed: wp.array[bool],
    overflows: wp.array[int],
):
    world = wp.tid()
    sound = wp.bool(True)
    # Compared such that NaN is not sound.
    for i in range(qvel.shape[1]):
        if not (wp.abs(qvel[world, i]) < max_speed):
            sound = False
    for i in range(qpos.shape[1]):
        if not (wp.abs(qpos[world, i]) < 1.0e10):
            sound = False
    if not sound:
        # Or its geoms would fill the buffers that the other worlds need.
        for i in range(qpos.shape[1]):
            qpos[world, i] = qpos0[0, i]
        for i in range(qvel.shape[1]):
            qvel[world, i] = 0.0
            warmstart[world, i] = 0.0
        for i in range(act.shape[1]):
            act[world, i] = 0.0
    if not sound or (overflow[world] & world_overflow) != 0:
        failed[world] = True
    serious = overflow[world] & (world_overflow | shared_overflow)
    if serious != 0:
        wp.atomic_or(overflows, 0, serious)


def note_failures(
    m: mjw.Model,
    d: mjw.Data,
    failed: torch.Tensor,
    overflows: torch.Tensor,
    *,
    max_speed: float,
    world_overflow: int,
    shared_overflow: int,
) -> None:
    """Mark worlds of which speed or position is not a number or beyond reason, and put them where they do no harm.

    `failed` (nworld,) bool also where one of `world_overflow` (OverflowType bits) happened; `overflows` (1,) int32
    collects these and `shared_overflow` of all worlds.
    """
    limits = [max_speed, world_overflow, shared_overflow]
    outputs = [d.qpos, d.qvel, d.qacc_warmstart, d.act, wp.from_torch(failed), wp.from_torch(overflows)]
    wp.launch(_note_failures, d.nworld, [*limits, m.qpos0, d.overflow], outputs)


@contextmanager
def while_compiling(device: str) -> Iterator[None]:
    """Say on stderr that kernels are being built or loaded, and how long it has taken, if it takes long."""
    done = threading.Event()
    start = time.monotonic()
    progress = Progress()

    def report() -> None:
        while not done.wait(1.0):
            if (elapsed := time.monotonic() - start) > SILENT_S:
                progress.update(f"preparing physics kernels for {device} (slow only the first time): {elapsed:.0f} s")

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if (took := time.monotonic() - start) > SILENT_S:
        progress.note(f"physics kernels for {device} are ready ({took:.0f} s)")
