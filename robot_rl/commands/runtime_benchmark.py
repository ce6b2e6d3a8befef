"""How long one control tick takes: state in, encoder + policy + decoder in ONNX, safety filter, command out.

Four ways: `tick`, the real loop in real time, whose rehearsal warms the caches before each deadline; `tick_recorded`,
the same while everything is recorded, its ticks in turn with those that are not; `tick_cold`, without rehearsal;
`tick_hot`, ticks back to back. `record` is the time that recording takes after a tick, in the loop. The policies have
random weights and the size of real ones; the time does not depend on the values.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robot_rl.commands.result import Result, Row

if TYPE_CHECKING:
    from robot_rl.bundle.load import Bundle
    from robot_rl.contract import Command, JointCommand, NumpyState
    from robot_rl.robots import RobotSpec
    from robot_rl.runtime.controller import Controller, Tick
    from robot_rl.runtime.recorder import Recorder

TARGET_P50_MS, TARGET_P99_MS = 0.5, 2.0
PACED_TICKS = 500
COLD_TICKS = 200
HOT_TICKS = 2000


@dataclass(frozen=True)
class Case:
    """A policy of a real one's size."""

    robot: str
    hidden: tuple[int, ...]
    control_period_s: float


CASES = (
    Case("unitree_g1", (512, 256, 128), 0.02),
    Case("leap_hand", (256, 256), 0.05),
)


def benchmark() -> Result:
    """Rows `<way>/<robot>/p50` and `/p99` in ms, `tick` against the target, and the parts of a tick."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        # Built in another process: torch in this one would not be what a robot runs.
        subprocess.run([sys.executable, "-m", __name__, folder], check=True)
        for case in CASES:
            rows += _measure(case, Path(folder) / case.robot)
    slow = [r.name for r in rows if r.ratio is not None and r.ratio > 1]
    return Result(ok=not slow, rows=tuple(rows), reason=f"slower than the target: {', '.join(slow)}" if slow else "")


def _measure(case: Case, path: Path) -> list[Row]:
    import numpy as np

    from robot_rl.bundle.load import load_bundle
    from robot_rl.robots import get_robot

    robot = get_robot(case.robot)
    bundle = load_bundle(path)
    with _one_core():
        plain, recorded, record_s = _side_by_side(bundle, robot, PACED_TICKS, path.parent)
        ticks = {
            "tick": plain,
            "tick_recorded": recorded,
            "tick_cold": _paced(bundle, robot, COLD_TICKS, rehearse=False),
            "tick_hot": _hot(bundle, robot, HOT_TICKS),
        }
    rows = []
    for name, measured in ticks.items():
        p50, p99 = np.percentile([t.tick_s * 1e3 for t in measured], [50, 99])
        # The target is for the loop as it runs; the other two say what the caches make of it.
        for label, value, target in (("p50", p50, TARGET_P50_MS), ("p99", p99, TARGET_P99_MS)):
            against = ("target", float(value / target)) if name == "tick" else (None, None)
            rows.append(Row(f"{name}/{case.robot}/{label}", float(value), "ms", *against))
    for label, share in (("p50", 50), ("p99", 99)):
        rows.append(Row(f"record/{case.robot}/{label}", float(np.percentile(np.array(record_s) * 1e3, share)), "ms"))
    for part in ("policy_s", "filter_s"):
        median = float(np.median([getattr(t, part) * 1e3 for t in ticks["tick"]]))
        rows.append(Row(f"tick/{case.robot}/{part.removesuffix('_s')}/p50", median, "ms"))
    return rows


class _EverySecondStretch:
    """Records for a second, then not, and so on: what else the machine does then strikes both alike."""

    def __init__(self, recorder: Recorder, loop_period_s: float) -> None:
        self._recorder = recorder
        self._stretch = max(1, round(1.0 / loop_period_s))
        self._count = 0
        self.seconds: list[float] = []
        """Each time that a tick was recorded took."""

    @property
    def recording(self) -> bool:
        return self._count // self._stretch % 2 == 1

    def record(self, tick: Tick, state: NumpyState | None, sent: JointCommand) -> None:
        if self.recording:
            before = time.perf_counter()
            self._recorder.record(tick, state, sent)
            self.seconds.append(time.perf_counter() - before)
        self._count += 1


def _side_by_side(
    bundle: Bundle, robot: RobotSpec, count: int, folder: Path
) -> tuple[list[Tick], list[Tick], list[float]]:
    """`count` ticks in RUN without and with recording, in one run, and the time of each recording.

    Raises RobotRLError if the log lacks a tick: what was not written costs nothing.
    """
    from robot_rl.errors import RobotRLError
    from robot_rl.runtime.controller import Controller
    from robot_rl.runtime.interface import MonotonicClock
    from robot_rl.runtime.loop import run
    from robot_rl.runtime.recorder import Recorder
    from robot_rl.testing.fakes import FakeRobot

    clock, controller = MonotonicClock(), Controller(bundle, robot)
    ticks: dict[bool, list[Tick]] = {False: [], True: []}
    with Recorder(folder / f"{robot.name}.mcap", controller) as recorder:
        stretches = _EverySecondStretch(recorder, controller.loop_period_s)
        run(
            controller,
            FakeRobot(robot, clock),
            clock,
            until=lambda _: min(map(len, ticks.values())) >= count,
            get_command=_command(bundle),
            # The first tick after a change is the first that feels it.
            on_tick=lambda tick: _operate(controller, tick, ticks[stretches.recording]),
            recorder=stretches,
        )
    if recorder.dropped:
        raise RobotRLError(f"{recorder.dropped} ticks were not recorded: {recorder.error or 'the disk is too slow'}")
    return ticks[False], ticks[True], stretches.seconds


def _paced(bundle: Bundle, robot: RobotSpec, count: int, *, rehearse: bool = True) -> list[Tick]:
    """Ticks in RUN of the real loop in real time."""
    from robot_rl.runtime.controller import Controller
    from robot_rl.runtime.interface import MonotonicClock
    from robot_rl.runtime.loop import run
    from robot_rl.testing.fakes import FakeRobot

    clock = MonotonicClock()
    controller = Controller(bundle, robot)
    ticks: list[Tick] = []
    run(
        controller,
        FakeRobot(robot, clock),
        clock,
        until=lambda _: len(ticks) >= count,
        get_command=_command(bundle),
        on_tick=lambda tick: _operate(controller, tick, ticks),
        rehearse=rehearse,
    )
    return ticks


def _hot(bundle: Bundle, robot: RobotSpec, count: int) -> list[Tick]:
    """Ticks in RUN back to back, on a simulated clock."""
    from robot_rl.runtime.controller import Controller
    from robot_rl.runtime.signals import no_garbage_collection
    from robot_rl.testing.fakes import FakeClock, FakeRobot

    clock = FakeClock()
    fake = FakeRobot(robot, clock)
    controller = Controller(bundle, robot)
    command = _command(bundle)
    ticks: list[Tick] = []
    with no_garbage_collection():
        while len(ticks) < count:
            clock.advance(controller.loop_period_s)
            tick = controller.step(fake.read(), command(clock.now()), clock.now())
            fake.write(tick.command)
            _operate(controller, tick, ticks)
    return ticks


def _operate(controller: Controller, tick: Tick, ticks: list[Tick]) -> None:
    """Lead the robot into RUN, and keep its ticks."""
    from robot_rl.runtime.controller import Request
    from robot_rl.runtime.modes import Mode

    controller.feed_deadman(tick.now_s)
    # On a machine that is too busy the robot is damped, and led back.
    wanted = {Mode.STAND: Request.RUN, Mode.FAULT: Request.RESET}
    if tick.mode not in (Mode.INIT, Mode.RUN):
        controller.request(wanted.get(tick.mode, Request.STAND))
    elif tick.policy is not None:
        ticks.append(tick)


def _command(bundle: Bundle) -> Callable[[float], Command]:
    from robot_rl.contract import Command

    spec = bundle.contract.command
    assert spec is not None
    values = bundle.golden[f"in/{spec.name}"][0]
    return lambda now_s: Command(values, now_s)


class _one_core:
    """Keep this process on one core while the block runs, where the system allows it."""

    def __enter__(self) -> None:
        self._before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
        if self._before:
            os.sched_setaffinity(0, {max(self._before)})

    def __exit__(self, *_error: object) -> None:
        if self._before:
            os.sched_setaffinity(0, self._before)


def build(folder: Path, cases: tuple[Case, ...] = CASES) -> None:
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
    for case in cases:
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
