"""How long one control tick takes: state in, encoder + policy + decoder in ONNX, safety filter, command out.

Measured hot (ticks back to back) and paced (one tick per control period, caches gone cold in between, as in a real
loop). The policies have random weights and the size of real ones; time does not depend on the values.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robot_rl.commands.result import Result, Row

if TYPE_CHECKING:
    from robot_rl.bundle.load import Bundle
    from robot_rl.robots import RobotSpec

TARGET_P50_MS, TARGET_P99_MS = 0.5, 2.0
PACED_TICKS = 500
HOT_TICKS = 2000


@dataclass(frozen=True)
class _Case:
    robot: str
    hidden: tuple[int, ...]
    control_period_s: float


CASES = (
    _Case("unitree_g1", (512, 256, 128), 0.02),
    _Case("leap_hand", (256, 256), 0.05),
)


def benchmark() -> Result:
    """Rows `tick/<robot>/p50` and `/p99` (paced, ms, against the target), `tick_hot/...`, and the parts of a tick."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        # Built in another process: torch in this one would not be what a robot runs.
        subprocess.run([sys.executable, "-m", __name__, folder], check=True)
        for case in CASES:
            rows += _measure(case, Path(folder) / case.robot)
    slow = [r.name for r in rows if r.ratio is not None and r.ratio > 1]
    return Result(ok=not slow, rows=tuple(rows), reason=f"slower than the target: {', '.join(slow)}" if slow else "")


def _measure(case: _Case, path: Path) -> list[Row]:
    import numpy as np

    from robot_rl.bundle.load import load_bundle
    from robot_rl.robots import get_robot
    from robot_rl.runtime.signals import no_garbage_collection

    robot = get_robot(case.robot)
    bundle = load_bundle(path)
    with _one_core(), no_garbage_collection():
        paced = _ticks(bundle, robot, PACED_TICKS, case.control_period_s)
        hot = _ticks(bundle, robot, HOT_TICKS, 0.0)
    rows = []
    for name, ticks in (("tick", paced), ("tick_hot", hot)):
        p50, p99 = np.percentile(ticks["tick"], [50, 99])
        for label, value, target in (("p50", p50, TARGET_P50_MS), ("p99", p99, TARGET_P99_MS)):
            rows.append(Row(f"{name}/{case.robot}/{label}", float(value), "ms", "target", float(value / target)))
    rows += [Row(f"tick/{case.robot}/{part}/p50", float(np.median(paced[part])), "ms") for part in ("policy", "filter")]
    return rows


def _ticks(bundle: Bundle, robot: RobotSpec, count: int, period_s: float) -> dict[str, list[float]]:
    """Times in ms of `count` ticks in RUN; `period_s` 0 runs them back to back, on a simulated clock."""
    import numpy as np

    from robot_rl.contract import Command
    from robot_rl.runtime.controller import Controller, Request
    from robot_rl.runtime.modes import Mode
    from robot_rl.testing.fakes import FakeClock, FakeRobot

    clock = FakeClock()
    fake = FakeRobot(robot, clock)
    controller = Controller(bundle, robot)
    spec = bundle.contract.command
    values = np.zeros(spec.shape, np.float32) if spec is not None else np.zeros(0, np.float32)
    times: dict[str, list[float]] = {"tick": [], "policy": [], "filter": []}
    deadline_s = time.monotonic()
    while len(times["tick"]) < count:
        clock.advance(controller.loop_period_s)
        now_s = clock.now()
        controller.feed_deadman(now_s)
        running = controller.mode == Mode.RUN
        if controller.mode in (Mode.IDLE, Mode.STAND):
            controller.request(Request.STAND if controller.mode == Mode.IDLE else Request.RUN)
        if running and period_s:
            deadline_s = max(deadline_s + period_s, time.monotonic())
            time.sleep(max(0.0, deadline_s - time.monotonic()))
        state, command = fake.state(), Command(values, now_s)
        before = time.perf_counter()
        tick = controller.step(state, command, now_s)
        elapsed_s = time.perf_counter() - before
        fake.write(tick.command)
        if running and tick.mode == Mode.RUN:
            times["tick"].append(elapsed_s * 1e3)
            times["policy"].append(tick.policy_s * 1e3)
            times["filter"].append(tick.filter_s * 1e3)
    return times


class _one_core:
    """Keep this process on one core while the block runs, where the system allows it."""

    def __enter__(self) -> None:
        self._before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
        if self._before:
            os.sched_setaffinity(0, {max(self._before)})

    def __exit__(self, *_error: object) -> None:
        if self._before:
            os.sched_setaffinity(0, self._before)


def build(folder: Path) -> None:
    """Write one bundle per case: a real encoder and decoder around an MLP of the case's size with random weights."""
    import torch
    from torch import nn

    from robot_rl.bundle.export import to_onnx
    from robot_rl.bundle.write import write_bundle
    from robot_rl.contract import ActionSpec, TensorSpec
    from robot_rl.networks.policy_io import ObservationTerm, PolicyGraph, PolicyIO
    from robot_rl.robots import get_robot

    torch.manual_seed(0)
    torch.set_num_threads(1)
    for case in CASES:
        robot = get_robot(case.robot)
        n = len(robot.joints)
        action = ActionSpec(
            "position_relative",
            scale_rad=(0.1,) * n,
            offset_rad=tuple(j.default_pos_rad for j in robot.joints),
            low_rad=tuple(j.lower_rad for j in robot.joints),
            high_rad=tuple(j.upper_rad for j in robot.joints),
        )
        terms = [ObservationTerm("joint_pos"), ObservationTerm("joint_vel", 0.1), ObservationTerm("last_action")]
        if robot.floating_base:
            terms += [ObservationTerm("projected_gravity"), ObservationTerm("base_ang_vel"), ObservationTerm("command")]
            command = TensorSpec("velocity", (3,), "m/s", "command")
        else:
            terms.append(ObservationTerm("tip_error"))
            command = TensorSpec("fingertip_goal", (3 * len(robot.chains),), "m", "command")
        io = PolicyIO(robot, tuple(terms), action, case.control_period_s, command)
        layers: list[nn.Module] = []
        width = io.obs_dim
        for hidden in case.hidden:
            layers += [nn.Linear(width, hidden), nn.ELU()]
            width = hidden
        graph = PolicyGraph(io, nn.Identity(), nn.Sequential(*layers, nn.Linear(width, n), nn.Tanh())).eval()
        inputs = {t.name: torch.randn(4, *t.shape) for t in io.contract.inputs}
        if "imu_quat_wxyz" in inputs:
            inputs["imu_quat_wxyz"] /= inputs["imu_quat_wxyz"].norm(dim=-1, keepdim=True)
        with torch.no_grad():
            outputs = dict(zip(io.contract.output_names, graph(*inputs.values()), strict=True))
        golden = {f"in/{k}": v.numpy() for k, v in inputs.items()} | {f"out/{k}": v.numpy() for k, v in outputs.items()}
        write_bundle(
            folder / case.robot,
            onnx_bytes=to_onnx(graph),
            golden=golden,
            card="# Benchmark\n\nRandom weights.\n",
            contract=io.contract,
            task="benchmark",
            algorithm="none",
            git_revision="",
            config={},
            seeds={"weights": 0},
            evaluation={},
            obs_mean=[0.0] * io.obs_dim,
            obs_std=[1.0] * io.obs_dim,
        )


if __name__ == "__main__":
    build(Path(sys.argv[1]))
