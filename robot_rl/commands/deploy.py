"""`robot-rl deploy`: run a bundle on a robot, simulated or real."""

from __future__ import annotations

import itertools
import math
import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from robot_rl.commands import drivers
from robot_rl.commands.drivers import SIMULATED
from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.commands.terminal import Narrator
from robot_rl.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from robot_rl.bundle.load import Bundle
    from robot_rl.commands.object_goals import ObjectGoals
    from robot_rl.contract import Command
    from robot_rl.robots import RobotSpec
    from robot_rl.runtime.controller import Controller, Tick
    from robot_rl.runtime.interface import RobotInterface

_GOAL_S = 3.0
"""How long each golden command lasts in an unattended run."""
STILL_S = 0.6
"""How long an unattended robot stands still before it is asked to run."""


@dataclass(frozen=True)
class DeployArgs:
    """Run a bundle on a robot: `mock` needs nothing, `sim` the simulator, `ros` a robot behind ROS 2 topics.

    Other drivers, such as `leap_hand`, need `--unit`, the file of the one robot that they reach.

    Nothing moves until an operator says so: type stand, run, stop, estop or reset, then Enter. Ctrl-C damps and ends.
    """

    bundle: Annotated[Path, tyro.conf.Positional]
    """Folder or zip."""
    interface: str | None = None
    """Driver to connect with. Default: the unit's, without a unit `mock`."""
    unit: Path | None = None
    """Unit file of the robot (hardware/units/<serial>.yaml): its driver, wiring and safety thresholds."""
    robot: str | None = None
    """Robot to run on. Default: the one the contract names."""
    duration: float | None = None
    """Seconds after which to damp and end. Default: until Ctrl-C."""
    loop_rate_hz: float | None = None
    """Rate of the control loop: the policy's rate times a whole number. Default: the policy's rate."""
    auto_run: bool = False
    """Stand and run without an operator. Simulated robots only."""
    command: tuple[float, ...] = ()
    """The policy's command, in the contract's order and units. Default in an unattended run: the golden rows' own."""
    record: Path | None = None
    """Log of the run (MCAP). Default: logs/<robot>-<time>.mcap; simulated robots are recorded only if this is given."""
    trips_only: bool = False
    """Record no more than black boxes: the 30 s before each trip."""
    video: Path | None = None
    """MP4 of the run, where the robot is simulated (`sim`)."""
    recovery: Path | None = None
    """Bundle of a policy that takes over after a soft trip, on robots whose safety profile has that backup."""
    realtime_priority: int = 0
    """SCHED_FIFO priority to ask the kernel for, with cores that stay awake; 0: leave the scheduling as it is. What is
    not granted is said, and `robot-rl doctor` says how to grant it."""
    cpu_affinity: tuple[int, ...] = (-1,)
    """Cores to keep to; -1: any."""

    def __post_init__(self) -> None:
        for name in ("duration", "loop_rate_hz"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"--{name.replace('_', '-')} must be positive and finite, got {value}")


def run(args: DeployArgs) -> Result:
    from robot_rl.bundle.load import load_bundle
    from robot_rl.commands.object_goals import SETTLE_S, object_goals
    from robot_rl.runtime.braking import under_damped
    from robot_rl.runtime.controller import Controller
    from robot_rl.runtime.interface import MonotonicClock
    from robot_rl.runtime.loop import run as run_loop
    from robot_rl.runtime.scheduling import MOST_PRIORITY, check_cores, schedule

    unit = drivers.read_unit(args.unit)
    interface = drivers.interface_of(args.interface, unit, others=("ros",))
    if args.trips_only and interface == "ros":
        raise ConfigError("--trips-only is not for ROS 2, whose node records everything")
    if not 0 <= args.realtime_priority <= MOST_PRIORITY:
        raise ConfigError(f"--realtime-priority must lie in [0, {MOST_PRIORITY}], got {args.realtime_priority}")
    check_cores(args.cpu_affinity)
    if args.video is not None:
        if interface != "sim":
            raise ConfigError(f"--video films the interface 'sim', not {interface!r}")
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported
    if args.auto_run and interface not in SIMULATED:
        raise ConfigError(
            f"--auto-run is for simulated robots ({', '.join(sorted(SIMULATED))}); {interface!r} needs an operator"
        )
    bundle = load_bundle(args.bundle)
    spec, overrides = drivers.spec_of(args.robot or bundle.contract.robot, unit)
    print("\n".join(overrides), end="\n" if overrides else "", flush=True)
    loop_period_s = None if args.loop_rate_hz is None else 1.0 / args.loop_rate_hz
    # Built before anything is connected: a bundle that must not run here never meets a robot.
    recovery = None if args.recovery is None else load_bundle(args.recovery)
    controller = Controller(bundle, spec, loop_period_s, recovery=recovery)
    limits = controller.limits
    if warning := under_damped(spec.joint_names, limits.kp, limits.kd, limits.inertia):
        print(f"warning: {warning}", flush=True)
    if args.record is None and interface not in SIMULATED:
        args = replace(args, record=Path("logs") / f"{spec.name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.mcap")
    if interface == "ros":
        _exec_policy_node(args, spec, controller)
    with ExitStack() as stack:
        recorder = None
        if args.record is not None:
            from robot_rl.runtime.recorder import Recorder

            about = {"interface": interface, "unit": "" if unit is None else unit.serial}
            recorder = Recorder(args.record, controller, full=not args.trips_only, about=about)
            stack.enter_context(recorder)
        robot = drivers.connect(interface, spec, unit, bundle.manifest if bundle.contract.reads_object else None)
        if not balances(bundle) and hasattr(robot, "hoist"):
            robot.hoist()  # type: ignore[attr-defined]
        film = None if args.video is None else robot.film()  # type: ignore[attr-defined]
        tell = stack.enter_context(Narrator()).tell
        goals = None if args.command else object_goals(controller, robot, again=args.auto_run, tell=tell)
        operator = _operator(args.auto_run, SETTLE_S if goals else STILL_S, tell)
        session = _Session(controller, robot, operator, tell, goals, film)
        print(schedule(args.realtime_priority, args.cpu_affinity), flush=True)  # for the driver's threads too
        report = run_loop(
            controller,
            robot,
            MonotonicClock(),
            duration_s=args.duration,
            get_command=goals.command if goals else _commands(controller, args.command, args.auto_run),
            on_tick=session.on_tick,
            recorder=recorder,
        )
    if film is not None:
        film.write(args.video)
    rows = (
        Row("ticks", report.ticks),
        Row("overruns", report.overruns),
        Row("late/worst", report.worst_late_s * 1e3, "ms"),
        *session.timing_rows(),
        *(() if goals is None else (Row("goals/reached", goals.total), Row("goals/in a row", goals.most))),
        Row("modified targets", int(controller.modifications.sum())),
        *(() if recorder is None else (Row("log", str(recorder.path)), Row("dropped log ticks", recorder.dropped))),
        Row("modes", " > ".join(mode for mode, _ in itertools.groupby(mode for mode, _ in session.modes))),
    )
    reason = session.failure() if args.auto_run else ""
    details = {"ended_by": report.reason, "modes": session.modes, "bundle": str(args.bundle), "robot": spec.name}
    return Result(ok=not reason, rows=rows, reason=reason, details=details)


def balances(bundle: Bundle) -> bool:
    """Whether the policy may stand on its own feet: without an IMU it does not know how its base moves."""
    return any(t.source == "state" and t.name.startswith("imu_") for t in bundle.contract.inputs)


class _Session:
    """What happens besides control: the operator's requests, words on the terminal, and figures for the result."""

    def __init__(
        self,
        controller: Controller,
        robot: RobotInterface,
        operator: Callable[[Controller, Tick], None],
        tell: Callable[[str], None],
        goals: ObjectGoals | None = None,
        film: Any = None,
    ) -> None:
        self._tell, self._goals, self._film = tell, goals, film
        self._controller = controller
        self._robot = robot
        self._balances = balances(controller.bundle)
        self._operator = operator
        self._note = ""
        self._tick_s: list[float] = []
        self.modes: list[tuple[str, str]] = []
        """(mode, cause) each time either changed."""

    def on_tick(self, tick: Tick) -> None:
        self._tick_s.append(tick.tick_s)
        now = (tick.mode.value, tick.cause.value)
        if not self.modes or self.modes[-1] != now:
            self.modes.append(now)
            self._tell(f"{tick.mode.value:<6} {'' if tick.cause.value == 'none' else tick.cause.value}")
        if tick.note and tick.note != self._note:
            self._tell(tick.note)
        self._note = tick.note
        if tick.mode.value == "run" and self._balances and getattr(self._robot, "suspended", False):
            # A simulated humanoid hangs from its gantry until its policy balances it.
            self._robot.suspended = False  # type: ignore[attr-defined]
        if self._goals is not None:
            self._goals.on_tick(tick)
        if self._film is not None:
            self._film.on_tick(tick)
        self._operator(self._controller, tick)

    def timing_rows(self) -> tuple[Row, ...]:
        import numpy as np

        p50, p99 = np.percentile(np.array(self._tick_s) * 1e3, [50, 99])
        return Row("tick/p50", float(p50), "ms"), Row("tick/p99", float(p99), "ms")

    def failure(self) -> str:
        """Why an unattended run was no success; empty if it was."""
        last, cause = self.modes[-1]
        if not any(mode == "run" for mode, _ in self.modes):
            return f"the policy never ran: ended in mode {last}. {self._note}".strip()
        return "" if last == "run" else f"ended in mode {last}, cause {cause}"


def _operator(auto_run: bool, settle_s: float, tell: Callable[[str], None]) -> Callable[[Controller, Tick], None]:
    """Makes requests after each tick: automatically, `settle_s` after the robot has reached the pose to stand in, or
    from lines typed on the terminal."""
    from robot_rl.runtime.controller import Request
    from robot_rl.runtime.modes import Mode

    wanted = {Mode.IDLE: Request.STAND, Mode.STAND: Request.RUN}
    # RUN is refused until the robot has stood still; asking at each tick would only fill the terminal.
    settled_ticks = {"count": 0}

    def automatic(controller: Controller, tick: Tick) -> None:
        controller.feed_deadman(tick.now_s)
        settled_ticks["count"] = settled_ticks["count"] + 1 if tick.mode in wanted else 0
        waited_s = settled_ticks["count"] * controller.loop_period_s
        profile = controller.limits.profile
        if tick.mode == Mode.IDLE or (tick.mode == Mode.STAND and waited_s > profile.stand_duration_s + settle_s):
            controller.request(wanted[tick.mode])

    if auto_run:
        return automatic
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_lines, args=(lines,), name="operator", daemon=True).start()
    print(f"type one of {', '.join(r.value for r in Request)} and press Enter", flush=True)

    def typed(controller: Controller, _tick: Tick) -> None:
        while not lines.empty():
            word = lines.get().strip().lower()
            if word in set(Request):
                controller.request(Request(word))
            elif word:
                tell(f"unknown request {word!r}; valid: {', '.join(r.value for r in Request)}")

    return typed


def _read_lines(lines: queue.Queue[str]) -> None:
    try:
        for line in sys.stdin:
            lines.put(line)
    except (OSError, ValueError):
        # No terminal, or one that was closed: nobody types, and nothing is requested.
        return


def _commands(
    controller: Controller, values: tuple[float, ...], auto_run: bool
) -> Callable[[float], Command | None] | None:
    """What the policy is commanded at a time in s: `values`, or else the golden rows' commands one after the other;
    nothing until it runs, where zero means rest."""
    import numpy as np

    from robot_rl.contract import Command
    from robot_rl.runtime.modes import Mode

    bundle = controller.bundle
    spec = bundle.contract.command
    if spec is None:
        if values:
            raise ConfigError("the policy takes no command")
        return None
    if values and (len(values),) != spec.shape:
        raise ConfigError(f"command {spec.name!r} has {spec.shape[0]} numbers ({spec.unit}), got {len(values)}")
    if not values and not auto_run:
        return None
    commands = np.array([values], np.float32) if values else bundle.golden[f"in/{spec.name}"]
    rest = np.zeros(spec.shape, np.float32)

    def command(now_s: float) -> Command:
        resting = spec.max_age_s is not None and controller.mode != Mode.RUN
        return Command(rest if resting else commands[int(now_s / _GOAL_S) % len(commands)], now_s)

    return command


def _exec_policy_node(args: DeployArgs, spec: RobotSpec, controller: Controller) -> None:
    """Become the ROS 2 policy node, which has its own lifecycle and operator services."""
    beside = Path(sys.executable).with_name("policy_node")
    node = str(beside) if beside.exists() else shutil.which("policy_node")
    if node is None:
        raise MissingDependencyError(
            "the ROS 2 policy node is not installed; pip install 'robot-rl[ros]' and ros_ws/src/robot_rl_bridge"
        )
    if args.duration is not None or args.command:
        raise ConfigError("--duration and --command are the operator's under ROS 2; see `operator --help`")
    parameters = {
        "bundle": args.bundle.resolve(),
        "robot": spec.name,
        "loop_rate_hz": float(round(1.0 / controller.loop_period_s, 6)),
        "realtime_priority": args.realtime_priority,
        "cpu_affinity": list(args.cpu_affinity),
    }
    if args.record is not None:
        parameters["log"] = args.record.resolve()
    if args.unit is not None:
        parameters["unit"] = args.unit.resolve()
    if args.recovery is not None:
        parameters["recovery"] = args.recovery.resolve()
    flags = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    sys.stdout.flush()
    os.execv(node, [node, "--ros-args", *flags])


VERB = Verb(DeployArgs, run)
