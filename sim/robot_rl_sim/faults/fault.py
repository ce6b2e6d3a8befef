"""A fault: what is broken at which boundary of the runtime, and the ways in which those boundaries break."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import Command, JointCommand
from robot_rl.runtime.controller import Request
from robot_rl.runtime.interface import Health
from robot_rl_sim.faults.state import StateFault
from robot_rl_sim.sim_robot import SimRobot

Outputs = dict[str, NDArray[np.float32]]
Stall = Callable[[float], None]
"""Lets s pass while the process does nothing and the robot goes on."""

PolicyFault = Callable[[Callable[[], Outputs], Stall], Outputs]
"""(evaluate the graph, stall) -> what the runtime gets for its answer."""
CommandFault = Callable[[JointCommand, float], Sequence[tuple[float, JointCommand]]]
"""(command, s on the robot's clock) -> (time of arrival, command) of what arrives."""
ProcessFault = Callable[[Stall], None]
"""Called when the process next reads the robot."""
BodyFault = Callable[[SimRobot, np.random.Generator], None]


class ProcessDied(BaseException):
    """SIGKILL, or a hang without end: nothing in the process runs any more, no handler either."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Made anew for each trial, since some remember. What is not given is sound."""

    state: StateFault | None = None
    policy: PolicyFault | None = None
    command: CommandFault | None = None
    process: ProcessFault | None = None
    body: BodyFault | None = None
    clock_jump_s: float = 0.0
    """By which the process's clock is wrong from now on."""
    health: dict[str, Any] = field(default_factory=dict)
    """Fields of Health: what a sound robot says of itself otherwise."""
    request: Request | None = None
    """What the operator asks for."""
    said: Callable[[Command], Command] | None = None
    """What becomes of the operator's command to the policy."""
    deadman_released: bool = False


def spoil(name: str, change: Callable[[NDArray[np.float32]], Any]) -> PolicyFault:
    """The policy answers in time, but with another value (1, ...) of one of its outputs."""

    def apply(evaluate: Callable[[], Outputs], stall: Stall) -> Outputs:
        outputs = evaluate()
        return outputs | {name: np.asarray(change(outputs[name]), np.float32)}

    return apply


def bang_bang(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> PolicyFault:
    """From one end of every joint's range to the other, and as far again beyond it."""
    ends = itertools.cycle((upper + (upper - lower), lower - (upper - lower)))
    return spoil("joint_target", lambda target: next(ends)[None])


def once(fault: PolicyFault) -> PolicyFault:
    """In the first evaluation."""
    count = itertools.count()
    return lambda evaluate, stall: fault(evaluate, stall) if next(count) == 0 else evaluate()


def fail(evaluate: Callable[[], Outputs], stall: Stall) -> Outputs:
    raise ArithmeticError("the policy fails")


def slow(by_s: float) -> PolicyFault:
    def apply(evaluate: Callable[[], Outputs], stall: Stall) -> Outputs:
        stall(by_s)
        return evaluate()

    return apply


def hang(evaluate: Callable[[], Outputs], stall: Stall) -> Outputs:
    raise ProcessDied


def stop_process(for_s: float) -> ProcessFault:
    """SIGSTOP, and SIGCONT later."""
    return lambda stall: stall(for_s)


def kill_process(stall: Stall) -> None:
    raise ProcessDied


def raise_in_loop(stall: Stall) -> None:
    raise OSError("the driver fails")


def lose(count: int | None = None, for_s: float = np.inf) -> CommandFault:
    """The first `count` commands, or those of the first `for_s`."""
    number, start = itertools.count(), []

    def apply(command: JointCommand, now_s: float) -> Sequence[tuple[float, JointCommand]]:
        start.append(now_s)
        lost = now_s - start[0] < for_s if count is None else next(number) < count
        return () if lost else ((now_s, command),)

    return apply


def late(by_s: float) -> CommandFault:
    """Every command, by a constant time."""
    return lambda command, now_s: ((now_s + by_s, command),)


def break_wire(command: JointCommand, now_s: float) -> Sequence[tuple[float, JointCommand]]:
    raise OSError("the bus does not answer")


def push(speed_m_s: float) -> BodyFault:
    """A sudden horizontal velocity of a floating base, whichever way."""

    def apply(robot: SimRobot, rng: np.random.Generator) -> None:
        angle = rng.uniform(0, 2 * np.pi)
        robot.data.qvel[:2] += speed_m_s * np.cos(angle), speed_m_s * np.sin(angle)

    return apply


def tilt_push(rate_rad_s: float) -> BodyFault:
    """A sudden rotation of a floating base about a horizontal axis, whichever way."""

    def apply(robot: SimRobot, rng: np.random.Generator) -> None:
        angle = rng.uniform(0, 2 * np.pi)
        robot.data.qvel[3:5] += rate_rad_s * np.cos(angle), rate_rad_s * np.sin(angle)

    return apply


def shove_joint(speed_rad_s: float) -> BodyFault:
    """A sudden velocity of the first joint, either way."""

    def apply(robot: SimRobot, rng: np.random.Generator) -> None:
        robot.data.joint(robot.spec.joint_names[0]).qvel += speed_rad_s * rng.choice((-1.0, 1.0))

    return apply


def throw_object(speed_m_s: float) -> BodyFault:
    """A sudden velocity of the object away from the hand: half up, half to whichever side."""

    def apply(robot: SimRobot, rng: np.random.Generator) -> None:
        assert robot.scene is not None
        _, dofs = robot.scene.columns
        angle, half = rng.uniform(0, 2 * np.pi), speed_m_s * np.sqrt(0.5)
        robot.data.qvel[dofs][:3] += half * np.cos(angle), half * np.sin(angle), half

    return apply


def say(values: float) -> Callable[[Command], Command]:
    """The operator's numbers are all this."""
    return lambda command: replace(command, values=np.full_like(command.values, values))


def sound_health(n_joints: int, stamp_s: float) -> Health:
    """A robot at its ease."""
    return Health(
        stamp_s=stamp_s,
        motor_temperature_c=np.full(n_joints, 40.0),
        winding_temperature_c=np.full(n_joints, 50.0),
        battery_share=0.9,
        motor_errors=np.zeros(n_joints, np.int64),
    )
