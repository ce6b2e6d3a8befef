"""What drives each joint: the file's actuators, turned into gains and torque limits at the joints."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl.errors import ConfigError
from robot_rl_sim.coupling import find_followers, is_single, reduction
from robot_rl_sim.importing.findings import Findings

_JOINT_TRANSMISSIONS = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_FIXED_GAIN, _AFFINE_BIAS = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtBias.mjBIAS_AFFINE)
_POSES = 8
"""Poses over which an actuator's lever arms are looked at, besides the model's own."""


@dataclass
class Drive:
    """All actuators of one joint together. None: they do not say."""

    joint: int
    kinds: list[str]
    kp: float | None = None
    """N m/rad (N/m of a slide), as are the others of the joint and not of the actuator."""
    kd: float | None = None
    effort: float | None = None
    lower: float | None = None
    upper: float | None = None
    """Range of a position actuator's targets."""


def find_drives(model: mujoco.MjModel, findings: Findings) -> list[Drive]:
    """Drives in the order of the actuators; without actuators, all joints that follow none, in the tree's order."""
    if model.nu == 0:
        followers = find_followers(model, set())
        joints = [j for j in range(model.njnt) if is_single(model, j) and j not in followers]
        if joints:
            findings.add("no actuators in the file: every joint gets a servo, in the order of the tree")
        return [Drive(j, []) for j in joints]
    drives: dict[int, Drive] = {}
    arms = _lever_arms(model)
    for actuator in range(model.nu):
        name, transmission = model.actuator(actuator).name, int(model.actuator_trntype[actuator])
        joints = _moved_joints(model, arms[actuator])
        if transmission in _JOINT_TRANSMISSIONS and not joints:
            raise ConfigError(
                f"actuator {name!r} drives a ball or free joint, or has zero gear; robots here have hinges and slides"
            )
        if not joints:
            findings.add("actuator left out: it moves no joint of the robot", name)
            continue
        if transmission not in _JOINT_TRANSMISSIONS:
            findings.add(
                "moves its joints through a tendon or the like: each joint gets a servo of its own instead, which the "
                "real robot may not have",
                name,
            )
        for joint, arm in joints.items():
            drive = drives.setdefault(joint, Drive(joint, []))
            _take(drive, model, actuator, arm, exact=transmission in _JOINT_TRANSMISSIONS)
    for drive in drives.values():
        if len(drive.kinds) > 1:
            findings.add(f"{len(drive.kinds)} actuators, taken together", model.joint(drive.joint).name)
    return list(drives.values())


def _take(drive: Drive, model: mujoco.MjModel, actuator: int, arm: float, exact: bool) -> None:
    """Add one actuator to a joint's drive: torque = arm * force, length = arm * angle + constant."""
    gain, bias = model.actuator_gainprm[actuator], model.actuator_biasprm[actuator]
    servo = int(model.actuator_gaintype[actuator]) == _FIXED_GAIN
    feedback = servo and int(model.actuator_biastype[actuator]) == _AFFINE_BIAS
    kp, kd = (-bias[1] * arm**2, -bias[2] * arm**2) if feedback else (0.0, 0.0)
    if kp > 0:
        drive.kinds.append("position")
        drive.kp = (drive.kp or 0.0) + float(kp)
        if exact and model.actuator_ctrllimited[actuator] and np.isclose(gain[0], -bias[1]):
            drive.lower, drive.upper = sorted(float(c) for c in model.actuator_ctrlrange[actuator] / arm)
    else:
        drive.kinds.append("velocity" if kd > 0 else "motor" if servo else "other")
    if feedback:
        drive.kd = (drive.kd or 0.0) + float(kd)
    forces = []
    if model.actuator_forcelimited[actuator]:
        forces.append(np.abs(model.actuator_forcerange[actuator]).max())
    if drive.kinds[-1] == "motor" and model.actuator_ctrllimited[actuator]:
        forces.append(abs(gain[0]) * np.abs(model.actuator_ctrlrange[actuator]).max())
    if forces:
        drive.effort = (drive.effort or 0.0) + float(min(forces) * abs(arm))


def _lever_arms(model: mujoco.MjModel) -> NDArray[np.float64]:
    """(nu, nv) change of each actuator's length with each dof, followers moving along: of the largest size over the
    model's own pose and some random ones, as tendons have arms that change."""
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    direct = {int(model.actuator_trnid[a, 0]) for a in range(model.nu)
              if int(model.actuator_trntype[a]) in _JOINT_TRANSMISSIONS}  # fmt: skip
    along = reduction(model, find_followers(model, direct))
    arms = np.zeros((model.nu, model.nv))
    for pose in range(1 + _POSES):
        mujoco.mj_resetData(model, data)
        for j in range(model.njnt):
            if pose and is_single(model, j) and model.jnt_limited[j]:
                data.qpos[model.jnt_qposadr[j]] = rng.uniform(*model.jnt_range[j])
        mujoco.mj_fwdPosition(model, data)
        moment = np.zeros((model.nu, model.nv))
        mujoco.mju_sparse2dense(
            moment, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind
        )
        moment = moment @ along
        arms = np.where(np.abs(moment) > np.abs(arms), moment, arms)
    # What a follower adds is now in its leader's column.
    arms[:, np.abs(along - np.eye(model.nv)).sum(axis=1) > 0] = 0.0
    return arms


def _moved_joints(model: mujoco.MjModel, arms: NDArray[np.float64]) -> dict[int, float]:
    """Joint -> lever arm, of the joints that an actuator with these arms (nv,) moves to a noticeable degree."""
    singles = [j for j in range(model.njnt) if is_single(model, j)]
    moved = {j: float(arms[model.jnt_dofadr[j]]) for j in singles}
    largest = max((abs(a) for a in moved.values()), default=0.0)
    return {j: arm for j, arm in moved.items() if abs(arm) > 0.05 * largest > 0}
