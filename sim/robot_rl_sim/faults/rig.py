"""A simulated robot with its controller on virtual time, stood up once and copied for each trial; and its links."""

from __future__ import annotations

import copy
import functools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.load import Bundle
from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.commands.deploy import balances
from robot_rl.contract import Command, JointCommand, NumpyState
from robot_rl.errors import RobotRLError
from robot_rl.robots import RobotSpec
from robot_rl.runtime.controller import Controller, Request, Tick
from robot_rl.runtime.goals import GoalSequence
from robot_rl.runtime.interface import Health
from robot_rl.runtime.loop import run
from robot_rl.runtime.modes import Mode
from robot_rl.testing.fakes import FakeClock
from robot_rl_sim.faults.fault import Fault, Outputs, ProcessDied, sound_health
from robot_rl_sim.object_scene import ObjectScene
from robot_rl_sim.sim_robot import SimRobot
from robot_rl_sim.sim_robot_config import SimRobotConfig

GOAL_S = 0.7
"""How long each of the golden rows' commands lasts: the policy always moves."""
SETTLE_S = 1.0
"""In RUN before anything breaks; and up to one goal more, so that faults meet every phase of a motion."""
PUT_BACK_S = 1.0
"""An object that was put back has this long to lie still."""
STALL_STEP_S = 0.01
"""Physics does not catch up with more than a quarter second at once."""


class SwitchPolicy:
    """An OnnxPolicy whose answers a fault may spoil."""

    def __init__(self, policy: OnnxPolicy) -> None:
        self.graph = policy
        self.metadata = policy.metadata
        self.fault: Callable[[Callable[[], Outputs]], Outputs] | None = None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        def evaluate() -> Outputs:
            return self.graph.run(inputs)

        return evaluate() if self.fault is None else self.fault(evaluate)


@dataclass
class Rig:
    """Everything that a trial changes. `copy` shares only what cannot change."""

    clock: FakeClock
    """The robot's time, which is the true one."""
    robot: SimRobot
    controller: Controller
    policy: SwitchPolicy
    bundle: Bundle
    command_offset_s: float
    goals: GoalSequence | None = None
    """Of a policy that turns an object from goal to goal."""

    @property
    def spec(self) -> RobotSpec:
        return self.robot.spec

    def copy(self) -> Rig:
        shared = (self.policy.graph, self.bundle.golden, self.spec, self.controller.limits, self.robot.scene, np)
        return copy.deepcopy(self, {id(thing): thing for thing in shared})

    def command(self, now_s: float) -> Command | None:
        """The operator's: a goal that is not reached yet, or the golden rows' commands, one after the other."""
        spec, seen = self.bundle.contract.command, self.controller.object_pose
        if spec is None:
            return None
        if self.goals is not None:
            if seen is not None and seen.quat_wxyz is not None:
                self.goals.update(seen.quat_wxyz, self.controller.mode == Mode.RUN)
            return None if self.goals.goal is None else Command(self.goals.goal.astype(np.float32), now_s)
        golden = self.bundle.golden[f"in/{spec.name}"]
        return Command(golden[int((now_s + self.command_offset_s) / GOAL_S) % len(golden)], now_s)

    def stall(self, seconds: float) -> None:
        """Time goes by, and the robot with it, without any word from the process."""
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s - 1e-12:
            self.clock.now_s = min(self.clock.now_s + STALL_STEP_S, end_s)
            self.robot.advance()


def stand_up(bundle: Bundle, spec: RobotSpec, loop_period_s: float, config: SimRobotConfig, seed: int) -> Rig:
    """A robot whose policy has been running for a while. Raises RobotRLError if it never came to that."""
    rng = np.random.default_rng(seed)
    clock = FakeClock()
    policy = SwitchPolicy(bundle.policy)
    bundle = replace(bundle, policy=policy)  # type: ignore[arg-type]
    controller = Controller(bundle, spec, loop_period_s)
    scene = _scene(bundle.manifest.task) if bundle.contract.reads_object else None
    robot = SimRobot(spec, config, seed=seed, clock=clock, scene=scene)
    episode = bundle.manifest.episode
    goals = None if episode is None or episode.goals is None else GoalSequence(episode.goals, seed)
    rig = Rig(clock, robot, controller, policy, bundle, float(rng.uniform(0, 100)), goals)
    if balances(bundle):
        robot.suspended = spec.floating_base
    else:
        robot.hoist()
    robot.connect()
    robot.suspended = spec.floating_base
    settle_s = SETTLE_S + float(rng.uniform(0, GOAL_S))
    ready: list[Rig] = []
    since: dict[str, float] = {}

    def on_tick(tick: Tick) -> None:
        operate(rig, tick)
        if tick.mode == Mode.RUN:
            robot.suspended = robot.suspended and not balances(bundle)
            if tick.now_s - since.setdefault("run", tick.now_s) >= settle_s:
                ready.append(rig.copy())

    profile = controller.limits.profile
    run(
        controller,
        robot,
        clock,
        duration_s=profile.stand_duration_s + settle_s + 3.0,
        until=lambda _: bool(ready),
        get_command=rig.command,
        on_tick=on_tick,
        rehearse=False,
    )
    if not ready:
        raise RobotRLError(f"seed {seed}: {spec.name} without a fault is in mode {controller.mode.value}, not run")
    return ready[0]


@functools.cache
def _scene(task: str) -> ObjectScene:
    return ObjectScene.of(task)


def operate(rig: Rig, tick: Tick) -> None:
    """An operator who wants the policy to run, holds the button, and puts the object back where that is all that is
    missing."""
    controller, robot = rig.controller, rig.robot
    controller.feed_deadman(tick.now_s)
    placed_s = robot.object_placed_s
    waited = placed_s is None or robot.time_s - placed_s > PUT_BACK_S
    if robot.scene is not None and waited and "object" in tick.note and "standing still" not in tick.note:
        robot.place_object()
    wanted = {Mode.IDLE: Request.STAND, Mode.DAMP: Request.STAND, Mode.HOLD: Request.STAND}
    wanted |= {Mode.STAND: Request.RUN, Mode.FAULT: Request.RESET}
    if tick.mode in wanted:
        controller.request(wanted[tick.mode])


class ProcessClock:
    """The clock that the process reads: wrong by `jump_s` once it has slept."""

    def __init__(self, true: FakeClock, jump_s: float) -> None:
        self._true = true
        self._jump_s = jump_s
        self.offset_s = 0.0

    def now(self) -> float:
        return self._true.now_s + self.offset_s

    def sleep_until(self, deadline_s: float) -> None:
        self._true.sleep_until(deadline_s - self.offset_s)
        self.offset_s = self._jump_s


class FaultyRobot:
    """A RobotInterface: what the process sees of the robot, and what the robot hears of it, through a fault."""

    def __init__(self, rig: Rig, clock: ProcessClock, fault: Fault) -> None:
        self.spec = rig.spec
        self.fault = fault
        self.sent: list[JointCommand] = []
        self.arrived: NumpyState | None = rig.robot.read()
        """The newest state that the process has got."""
        self.closed = False
        """What the process seems to do from here on does not happen."""
        self._rig, self._clock = rig, clock
        self._stalled = False
        self._measured: NumpyState | None = None
        self._under_way: deque[tuple[float, JointCommand]] = deque()

    def connect(self) -> None:
        pass

    def read(self) -> NumpyState | None:
        process = self.fault.process
        if process is not None and not self._stalled:
            self._stalled = True
            self.mortal(lambda: process(self._rig.stall))
        self._deliver()
        state = self._rig.robot.read()
        if state is not None and state is not self._measured:
            self._measured = state
            true_s = self._rig.clock.now_s
            for arriving in (state,) if self.fault.state is None else self.fault.state(state, true_s):
                self.arrived = replace(arriving, stamp_s=arriving.stamp_s + self._clock.offset_s)
        return self.arrived

    def write(self, command: JointCommand) -> JointCommand:
        if self.closed:
            return command
        self._deliver()
        true_s, offset_s = self._rig.clock.now_s, self._clock.offset_s
        heard = replace(command, stamp_s=command.stamp_s - offset_s, expires_s=command.expires_s - offset_s)
        arriving = ((true_s, heard),) if self.fault.command is None else self.fault.command(heard, true_s)
        self.sent.append(command)
        self._under_way.extend(arriving)
        self._deliver()
        return command

    def health(self) -> Health:
        return replace(sound_health(len(self.spec.joints), self._clock.now()), **self.fault.health)

    def stop(self) -> None:
        pass

    def mortal(self, act: Callable[[], Any]) -> Any:
        """Do something that the process may not survive."""
        try:
            return act()
        except ProcessDied:
            self.closed = True
            raise

    def _deliver(self) -> None:
        self._rig.robot.advance()
        while self._under_way and self._under_way[0][0] <= self._rig.clock.now_s + 1e-9:
            self._rig.robot.write(self._under_way.popleft()[1])
