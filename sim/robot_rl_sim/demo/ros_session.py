"""One session over ROS 2: emulator and policy node as processes, goals, a fault; and what the records say of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from robot_rl.bundle.load import load_bundle
from robot_rl.errors import RobotRLError
from robot_rl.networks.kinematics import TipKinematics
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.log_reader import read_log
from robot_rl_sim.demo.processes import Processes, private_domain, require_ros
from robot_rl_sim.tasks.reach.goals import TOLERANCE_M, sample_goals
from robot_rl_sim.tasks.reach.hands import LEAP

GOAL_PERIOD_S = 2.0
"""As long as an episode of training."""
HOLD_S = 0.25
"""A goal is reached if every fingertip was within the tolerance during the last quarter second, as in training."""
LOOP_RATE_HZ = 100.0
START_UP_S = 60.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RosSession:
    """What happened. Times are s since the robot was asked to stand."""

    success: tuple[bool, ...]
    """Goal by goal."""
    interruptions: tuple[str, ...]
    """Why a check ended the run, each time that the session had to bring the robot back and repeat a goal."""
    truth_time_s: Array
    """(n,)."""
    truth_joint_pos: Array
    """(n, 16) rad, where the emulated joints truly were."""
    worst_tip_error_m: Array
    """(n,) of the fingertip furthest from its goal; NaN before the first goal."""
    goal_at: NDArray[np.int64]
    """(n,) index of the goal in force, -1 before the first one."""
    goals: Array
    """(n_goals, 12) m, palm frame."""
    tick_time_s: Array
    modes: tuple[str, ...]
    """Mode of each tick."""
    age_s: Array
    """(ticks,) age of the state that the tick used."""
    tick_s: Array
    """(ticks,) time from state to command inside the controller."""
    fault_s: float
    """When the state stream was cut."""
    damped_s: float
    """Tick of the first damping command after it."""
    damp_latency_s: float
    """From the measurement of the last state that arrived to the first damping command."""
    damp_deadline_s: float
    """The profile's limit on the age of a state, plus one control period."""
    robot_damped: bool
    """Whether the robot's own report says that it was damped."""


def run_session(bundle: Path, out: Path, seconds: float, seed: int) -> RosSession:
    """Play `seconds` of goals, then cut the state stream. `out` receives logs, the MCAP file and session.json.

    Raises MissingDependencyError without ROS 2, RobotRLError with the processes' last words if anything fails.
    """
    require_ros()
    _, goals = sample_goals(LEAP, max(1, round(seconds / GOAL_PERIOD_S)), seed)
    out.mkdir(parents=True, exist_ok=True)
    commands, record, log = out / "goals.json", out / "session.json", out / "session.mcap"
    commands.write_text(json.dumps(goals.tolist()))
    with Processes(out / "logs", private_domain()) as processes:
        ros = ("--ros-args", "-p", f"robot:={LEAP_HAND.name}")
        processes.start("emulator", "robot_rl_bridge.emulator_node", *ros, "-p", f"seed:={seed}")
        processes.start("watchdog", "robot_rl_bridge.watchdog_node", *ros, "-p", f"loop_rate_hz:={LOOP_RATE_HZ}")
        processes.start(
            "policy",
            "robot_rl_bridge.policy_node",
            *(*ros, "-p", f"bundle:={bundle}", "-p", f"log:={log}", "-p", f"loop_rate_hz:={LOOP_RATE_HZ}"),
        )
        script = ("--commands", str(commands), "--period", str(GOAL_PERIOD_S), "--fault", "drop_state")
        processes.start("operator", "robot_rl_bridge.session", *script, "--out", str(record))
        processes.wait("operator", START_UP_S + seconds)
    period_s = load_bundle(bundle).contract.control_period_s
    return analyse(record, log, goals.double().numpy(), LEAP_HAND.safety.state_damp_s + period_s)


def analyse(record_path: Path, log_path: Path, goals: Array, deadline_s: float) -> RosSession:
    """Success from the robot's true joint positions, times from the policy node's own flight log.

    Raises RobotRLError if the records do not show the session through to damping.
    """
    record = json.loads(record_path.read_text())
    log = read_log(log_path)
    events = {event["name"]: event for event in record["events"] if event["name"] != "command"}
    missing = sorted({"stand", "run", "fault", "damped"} - set(events))
    if missing or not log.messages["/mode"]:
        raise RobotRLError(f"{record_path}: the session never came to {', '.join(missing) or 'a tick'}")
    start_s = events["stand"]["time_s"]
    truth_time = np.array(record["truth"]["time_s"]) - start_s
    truth = np.array(record["truth"]["joint_pos"])
    commands = [event for event in record["events"] if event["name"] == "command"]
    command_time = np.array([c["time_s"] for c in commands]) - start_s
    # A command that was interrupted is there twice.
    index = np.array([-1, *(c["index"] for c in commands)])
    goal_at = index[np.searchsorted(command_time, truth_time, side="right")]
    error = worst_tip_error(truth, goals, goal_at)
    firsts = {int(c["index"]): c["time_s"] - start_s for c in reversed(commands)}
    ends = [*(firsts[k] for k in range(1, len(goals))), float(events["fault"]["time_s"]) - start_s]
    success = []
    for end in ends:
        window = error[(truth_time > end - HOLD_S) & (truth_time <= end)]
        success.append(bool(len(window) and (window < TOLERANCE_M).all()))

    ticks = log.messages["/timing"]
    tick_time = np.array([t["t_s"] for t in ticks]) - start_s
    fault_s = float(events["fault"]["time_s"]) - start_s
    damped_s = next(
        (m["t_s"] - start_s for m in log.messages["/mode"] if m["t_s"] - start_s > fault_s and m["mode"] == "damp"),
        float("nan"),
    )
    last_stamp_s = max(s["stamp_s"] for s in log.messages["/state"] if s["t_s"] - start_s <= damped_s) - start_s
    return RosSession(
        success=tuple(success),
        interruptions=tuple(str(event["cause"]) for event in record["events"] if event["name"] == "interrupted"),
        truth_time_s=truth_time,
        truth_joint_pos=truth,
        worst_tip_error_m=error,
        goal_at=goal_at,
        goals=goals,
        tick_time_s=tick_time,
        modes=tuple(m["mode"].upper() for m in log.messages["/mode"]),
        age_s=np.array([t["age_s"] for t in ticks]),
        tick_s=np.array([t["tick_s"] for t in ticks]),
        fault_s=fault_s,
        damped_s=damped_s,
        damp_latency_s=damped_s - last_stamp_s,
        damp_deadline_s=deadline_s,
        robot_damped=bool(record.get("emulator", {}).get("damping", False)),
    )


def worst_tip_error(joint_pos: Array, goals: Array, goal_at: NDArray[np.int64]) -> Array:
    """Distance (n,) m of the fingertip furthest from its goal; NaN where goal_at (n,) is -1."""
    kinematics = TipKinematics(LEAP_HAND, LEAP_HAND.chains)
    tips = kinematics(torch.from_numpy(joint_pos).float()).double().numpy()
    goal = goals[np.maximum(goal_at, 0)].reshape(tips.shape)
    error = np.linalg.norm(tips - goal, axis=-1).max(-1)
    return np.where(goal_at >= 0, error, np.nan)
