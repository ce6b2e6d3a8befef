"""What the simulator expects of a flight: the nominal robot, told what the real one was told.

It starts anew from what was measured every WINDOW_S, so that errors do not add up: in closed loop, two robots that
differ in nothing but a grain of sand part within seconds. A floating base is free in mode run, on flat ground with its
lowest foot standing still when a window starts; in other modes somebody holds it, and it turns as it was measured to.
While its joints are limp nothing is expected: somebody may be moving them.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl.parity.flight import Flight
from robot_rl.robots import get_robot
from robot_rl_sim.models import bottom_m, reach_m
from robot_rl_sim.motors import Motors
from robot_rl_sim.sim_robot_config import NOMINAL, make_model

WINDOW_S = 0.2
_FREE = "run"

Array = NDArray[np.float64]


def expect(flight: Flight, window_s: float = WINDOW_S) -> dict[str, Array]:
    """Signal -> (T, size) as the simulator expects it at each measurement; NaN at the start of each window."""
    spec = get_robot(flight.contract.robot)
    model = make_model(spec, NOMINAL)
    data = mujoco.MjData(model)
    joints = [model.joint(name) for name in spec.joint_names]
    qpos, dof = np.array([j.qposadr[0] for j in joints]), np.array([j.dofadr[0] for j in joints])
    motors = Motors.of(spec, NOMINAL.motors)
    floats = spec.floating_base and "imu_quat_wxyz" in flight.state and "imu_ang_vel_b" in flight.state
    measured = ("joint_pos", "joint_vel", *(("imu_quat_wxyz", "imu_ang_vel_b") if floats else ()))
    expected = {f: np.full_like(flight.state[f], np.nan) for f in measured}
    modes = flight.mode[np.maximum(np.searchsorted(flight.command_s, flight.stamp_s, side="right") - 1, 0)]
    feet = [
        g
        for g in range(model.ngeom)
        if (model.geom_contype[g] or model.geom_conaffinity[g]) and model.body_weldid[model.geom_bodyid[g]]
    ]
    hung_m = reach_m(model, spec)
    start_s = -np.inf
    free = False
    held = np.nan_to_num(flight.in_force("kp")).max(1) > 0
    for k, now_s in enumerate(flight.stamp_s):
        if not held[k]:
            start_s = -np.inf
            continue
        if now_s - start_s >= window_s or (free != (modes[k] == _FREE)):
            start_s, free = now_s, modes[k] == _FREE
            mujoco.mj_resetData(model, data)
            data.qpos[qpos], data.qvel[dof] = flight.state["joint_pos"][k], flight.state["joint_vel"][k]
            if floats:
                data.qpos[3:7], data.qvel[3:6] = (flight.state[f][k] for f in measured[2:])
                data.qpos[2] = 0.0 if free else hung_m
                if free:
                    _stand(model, data, feet)
            mujoco.mj_forward(model, data)
            data.time = now_s
            continue
        while data.time + 0.5 * model.opt.timestep < now_s:
            row = int(np.searchsorted(flight.command_s, data.time, side="right")) - 1
            kp, kd, target = (flight.command[f][max(row, 0)] for f in ("kp", "kd", "position"))
            torque = kp * (target - data.qpos[qpos]) - kd * data.qvel[dof]
            data.qfrc_applied[dof] = motors.torque(torque, data.qvel[dof])
            mujoco.mj_step(model, data)
            if floats and not free:
                data.qpos[:7] = (0.0, 0.0, hung_m, *flight.state["imu_quat_wxyz"][k])
                data.qvel[:6] = (0.0, 0.0, 0.0, *flight.state["imu_ang_vel_b"][k])
        expected["joint_pos"][k], expected["joint_vel"][k] = data.qpos[qpos], data.qvel[dof]
        if floats and free:
            expected["imu_quat_wxyz"][k], expected["imu_ang_vel_b"][k] = data.qpos[3:7], data.qvel[3:6]
    return expected


def _stand(model: mujoco.MjModel, data: mujoco.MjData, feet: list[int]) -> None:
    """Put the lowest part of the robot on the ground, and let it stand still there."""
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    lowest = min(feet, key=lambda g: bottom_m(model, data, g))
    data.qpos[2] -= bottom_m(model, data, lowest)
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jacGeom(model, data, jacobian, None, lowest)
    data.qvel[:3] = -jacobian[:, 3:] @ data.qvel[3:]


def errors(flight: Flight, expected: dict[str, Array]) -> dict[str, Array]:
    """Signal -> (size,) rms of measured less expected; "projected_gravity" for the orientation."""
    found = {}
    for name, values in expected.items():
        rows = np.isfinite(values).all(1)
        if not rows.any():
            continue
        if name == "imu_quat_wxyz":
            found["projected_gravity"] = _rms(_gravity(flight.state[name][rows]) - _gravity(values[rows]))
        else:
            found[name] = _rms(flight.state[name][rows] - values[rows])
    return found


def _rms(values: Array) -> Array:
    return np.sqrt((values**2).mean(0))


def _gravity(quat: Array) -> Array:
    """(T, 3) unit direction of gravity in the body."""
    w, x, y, z = quat.T
    return np.stack((-2 * (x * z - w * y), -2 * (y * z + w * x), -(1 - 2 * (x * x + y * y))), 1)
