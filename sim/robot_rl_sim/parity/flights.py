"""Flights of simulated robots whose dynamics differ from the model as training's did, for parity to judge."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import mujoco
import numpy as np

from robot_rl.bundle.load import Bundle
from robot_rl.contract import Command
from robot_rl.parity.flight import Flight, FlightRecorder
from robot_rl.robots import RobotSpec, get_robot
from robot_rl.runtime.controller import Controller, Request
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.wiggle import LOG_RATE_HZ, WiggleAborted, WiggleConfig, wiggle
from robot_rl.testing.fakes import FakeClock
from robot_rl_sim.models import load_spec
from robot_rl_sim.parity.mismatches import Mismatch, MismatchedRobot
from robot_rl_sim.sim_robot import SimRobot
from robot_rl_sim.sim_robot_config import SimRobotConfig

NOISE = {
    "joint_pos": 0.01,
    "joint_vel": 0.5,
    "joint_effort": 0.03,
    "imu_quat_wxyz": 0.02,
    "imu_ang_vel_b": 0.2,
    "imu_lin_acc_b": 0.5,
}
"""Half-widths of uniform errors, those of training (SensorsConfig); of the effort, as a share of its limit. Training's
orientation is worse (0.05), but at this loop rate the safety filter would take that for jumps."""

LIMP_S, ROCKED_S, RUN_S = 2.5, 2.0, 5.0
_GOAL_S = 1.0
_ROCKING_RAD, _ROCKING_HZ, _FADE_S = 0.25, np.array([0.5, 0.6, 0.4]), 0.5
"""About each axis of the trunk, and how quickly it ends."""
_BY_HAND_RAD, _BY_HAND_HZ, _BY_HAND_SHARE = 0.3, 0.8, 0.5
"""The last: of each joint's effort limit."""


def fly(bundle: Bundle, mismatches: Sequence[Mismatch], seed: int, loop_period_s: float) -> Flight:
    """Stand, then run for RUN_S, on a robot drawn from `seed`.

    For LIMP_S it is limp, and somebody moves every joint by hand. A floating base hangs until RUN, and is rocked for
    ROCKED_S. What does not move cannot be judged.
    """
    clock = FakeClock()
    robot, rng = _robot(bundle, mismatches, seed, clock)
    spec, sim = robot.spec, robot.robot
    controller = Controller(bundle, spec, loop_period_s)
    recorder = FlightRecorder()
    command = bundle.contract.command
    goals = None if command is None else bundle.golden[f"in/{command.name}"]
    start_s, run_s = clock.now(), math.inf
    phases = rng.uniform(0, 2 * math.pi, max(3, len(spec.joints)))
    longest_s = LIMP_S + spec.safety.stand_duration_s + 2.0 + RUN_S
    while clock.now() - start_s < longest_s and clock.now() - run_s < RUN_S:
        now_s = clock.now()
        state = robot.read()
        goal = None if goals is None else Command(goals[(seed + int((now_s - start_s) / _GOAL_S)) % len(goals)], now_s)
        if spec.safety.deadman:
            controller.feed_deadman(now_s)
        tick = controller.step(state, goal, now_s)
        recorder.record(tick, state, robot.write(tick.command))
        if tick.mode == Mode.IDLE and now_s - start_s > LIMP_S and math.isinf(run_s):
            controller.request(Request.STAND)
        elif tick.mode == Mode.STAND:
            controller.request(Request.RUN)
        elif tick.mode == Mode.RUN and math.isinf(run_s):
            run_s, sim.suspended = now_s, False
        _by_hand(sim, now_s - start_s, LIMP_S, phases)
        if sim.suspended:
            fading = np.clip((ROCKED_S - (now_s - start_s)) / _FADE_S, 0.0, 1.0)
            sim.tilt_gantry(fading * _ROCKING_RAD * np.sin(2 * math.pi * _ROCKING_HZ * now_s + phases[:3]))
        clock.advance(loop_period_s)
    return recorder.flight(bundle.contract)


def wiggle_log(bundle: Bundle, mismatches: Sequence[Mismatch], seed: int, joints: Sequence[str]) -> Flight:
    """What `robot-rl wiggle --log --joints` records of the same robot: `joints` moved one by one, the base hanging."""
    clock = FakeClock()
    robot, _ = _robot(bundle, mismatches, seed, clock)
    recorder = FlightRecorder()
    with contextlib.suppress(WiggleAborted):
        wiggle(robot, clock, WiggleConfig(rate_hz=LOG_RATE_HZ), joints, on_step=recorder.take)
    return recorder.flight(bundle.contract)


def _robot(
    bundle: Bundle, mismatches: Sequence[Mismatch], seed: int, clock: FakeClock
) -> tuple[MismatchedRobot, np.random.Generator]:
    """The robot drawn from `seed`, connected; and what the seed has left to draw from."""
    spec = get_robot(bundle.contract.robot)
    rng = np.random.default_rng(seed)
    sim = SimRobot(
        spec, _drawn(rng, bundle.contract.control_period_s), seed=seed, clock=clock, model=_turned(spec, rng)
    )
    sim.suspended = spec.floating_base
    noise = {f: w for f, w in NOISE.items() if f in spec.state_fields}
    robot = MismatchedRobot(sim, mismatches, noise, rng.uniform(0.9, 1.1, len(spec.joints)), seed)
    robot.connect()
    return robot, rng


def _drawn(rng: np.random.Generator, control_period_s: float) -> SimRobotConfig:
    """A robot within the ranges of training's randomisation (RandomizationConfig)."""
    return SimRobotConfig(
        timestep_s=0.002,
        state_period_s=0.002,
        state_latency_s=0.002 * float(rng.integers(1, 5)),
        joint_bias_rad=0.0115,
        command_latency_s=float(rng.uniform(0, 0.25)) * control_period_s,
        torque_noise_share=0.01,
        strength_scale=float(rng.uniform(0.9, 1.1)),
        mass_scale=float(rng.uniform(0.9, 1.1)),
        friction_scale=float(rng.uniform(0.6, 1.4)),
        damping_scale=float(rng.uniform(0.7, 1.3)),
        armature_scale=float(rng.uniform(0.9, 1.1)),
        joint_friction_scale=float(rng.uniform(0.0, 0.02)),
    )


def _turned(spec: RobotSpec, rng: np.random.Generator) -> mujoco.MjModel:
    """The robot's model; a floating base looks into some direction other than the world's x."""
    model = load_spec(spec.name)
    if spec.floating_base:
        yaw = float(rng.choice([-1, 1]) * rng.uniform(0.5, math.pi - 0.2))
        model.body(spec.root_body).quat = (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))
    return model.compile()


def _by_hand(sim: SimRobot, time_s: float, until_s: float, phases: np.ndarray) -> None:
    """Torque about each joint, as of somebody who moves it to and fro, and has it in its default pose `until_s`."""
    model, data = sim.model, sim.data
    data.xfrc_applied[:, 3:] = 0.0
    if time_s > until_s:
        return
    fading = min(1.0, (until_s - time_s) / _FADE_S)
    for i, joint in enumerate(sim.spec.joints):
        room = min(joint.default_pos_rad - joint.lower_rad, joint.upper_rad - joint.default_pos_rad)
        swing = fading * min(_BY_HAND_RAD, 0.4 * room) * math.sin(2 * math.pi * _BY_HAND_HZ * time_s + phases[i])
        error = joint.default_pos_rad + swing - sim.joint_pos[i]
        torque = joint.kp_nm_rad * error - joint.kd_nms_rad * sim.joint_vel[i]
        limit = _BY_HAND_SHARE * joint.effort_limit_nm
        body = int(model.joint(joint.name).bodyid[0])
        axis = data.xaxis[model.joint(joint.name).id] * float(np.clip(torque, -limit, limit))
        data.xfrc_applied[body, 3:] += axis
        data.xfrc_applied[model.body_parentid[body], 3:] -= axis
