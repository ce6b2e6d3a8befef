"""What is suspicious about a robot and its model, whoever wrote them."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl.robots import RobotSpec
from robot_rl.runtime.braking import LOWEST_DAMPING_RATIO, damping_ratios
from robot_rl_sim.coupling import find_followers, is_single
from robot_rl_sim.importing.findings import Findings
from robot_rl_sim.importing.loads import Loads, find_loads
from robot_rl_sim.models import load_model

"""Below it a joint overshoots its target by more than 5 %, and clipping targets does not keep it inside its limits."""
_MASS_KG = (1e-4, 500.0)
"""Of one moving body: outside, somebody confused units."""
_HOLD_S = 1.0
_HOLD_ERROR = 0.05
"""Share of its range by which a joint may drift from the home pose within that time."""
TIMESTEPS_S = (0.005, 0.0025, 0.002, 0.001, 0.0005, 0.00025)
"""Physics steps of which a whole number makes a control period of 50, 20 or 10 ms."""
_RADIANS_PER_STEP = 0.6
"""Of the fastest oscillation in one physics step: ten steps a period."""
_CONTROLLER_S = 0.001
"""Period at which common motor controllers, and the simulated robot of `deploy`, close the loop."""


@dataclass(frozen=True)
class JointRow:
    """One line of the table: a joint as it will behave."""

    name: str
    inertia: float
    """kg m², the largest that the joint turns (kg of a slide)."""
    frequency_hz: float
    damping_ratio: float


def joint_rows(model: mujoco.MjModel, robot: RobotSpec, loads: Loads) -> list[JointRow]:
    kp = np.array([j.kp_nm_rad for j in robot.joints])
    zeta = damping_ratios(kp, _total_damping(model, robot), loads.inertia)
    frequency = np.sqrt(kp / loads.inertia) / (2 * np.pi)
    return [
        JointRow(*row)
        for row in zip(robot.joint_names, *map(np.ndarray.tolist, (loads.inertia, frequency, zeta)), strict=True)
    ]


def check_joints(model: mujoco.MjModel, robot: RobotSpec, loads: Loads, findings: Findings) -> None:
    """Damping, rotor inertia and torque of the joints that are driven; the others by kind."""
    rows = joint_rows(model, robot, loads)
    for row, armature in zip(rows, robot.armature_kg_m2, strict=True):
        if row.damping_ratio == 0:
            findings.add("NO DAMPING, neither of the joint nor of its servo; see --damping-ratio", row.name)
        elif row.damping_ratio < LOWEST_DAMPING_RATIO:
            findings.add(
                f"damping ratio below {LOWEST_DAMPING_RATIO}: overshoots; see --damping-ratio",
                f"{row.name} ({row.damping_ratio:.2f})",
            )
        if armature == 0:
            findings.add(
                "no armature: the inertia of its motor's rotor is unknown, and may be most of what it moves", row.name
            )
    driven = {model.joint(name).id for name in robot.joint_names}
    for eq in np.flatnonzero(model.eq_type == int(mujoco.mjtEq.mjEQ_JOINT)):
        pair = {int(model.eq_obj1id[eq]), int(model.eq_obj2id[eq])}
        if pair <= driven and len(pair) == 2:
            findings.add(
                "coupled to each other, and both driven: their servos fight", *(model.joint(j).name for j in pair)
            )
    followers = find_followers(model, driven)
    for joint in range(model.njnt):
        if joint in driven or int(model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_FREE):
            continue
        if joint in followers:
            findings.add("follows another joint, so it is no joint of the RobotSpec", model.joint(joint).name)
        else:
            kind = "passive joint" if is_single(model, joint) else "passive ball joint"
            findings.add(f"{kind}: nothing drives it, and it is no joint of the RobotSpec", model.joint(joint).name)


def check_model(model: mujoco.MjModel, findings: Findings) -> None:
    """Masses, and constraints between parts."""
    light, heavy = _MASS_KG
    for body in range(1, model.nbody):
        if model.body_weldid[body] == body and not light <= model.body_mass[body] <= heavy:
            whole = _welded_mass(model, body)
            if not light <= whole <= heavy:
                findings.add(
                    f"implausible mass, outside {light:g} to {heavy:g} kg", f"{model.body(body).name} ({whole:.3g} kg)"
                )
    kinds = [int(k) for eq, k in enumerate(model.eq_type) if model.eq_active0[eq]]
    others = sum(k != int(mujoco.mjtEq.mjEQ_JOINT) for k in kinds)
    if others:
        findings.add(
            f"{others} equality constraints that couple bodies or tendons: they stay, and servos may fight them"
        )
    if model.ntendon:
        findings.add(f"{model.ntendon} tendons stay in the model as springs, limits and couplings")
    moving = model.body_weldid[model.geom_bodyid] != 0
    if not np.any(((model.geom_contype != 0) | (model.geom_conaffinity != 0)) & moving):
        findings.add("nothing of it collides: it passes through the ground and itself")


def fitting_timestep(robot: RobotSpec, loads: Loads, findings: Findings) -> float:
    """The longest of TIMESTEPS_S that the fastest servo allows, its damping being integrated implicitly."""
    kp = np.array([j.kp_nm_rad for j in robot.joints])
    kd = np.array([j.kd_nms_rad for j in robot.joints])

    def radians(step: float) -> NDArray[np.float64]:
        return step * np.sqrt(kp / (loads.lightest + step * kd))

    step = next((t for t in TIMESTEPS_S if radians(t).max() <= _RADIANS_PER_STEP), TIMESTEPS_S[-1])
    if step < TIMESTEPS_S[0]:
        stiff = np.flatnonzero(radians(TIMESTEPS_S[0]) > _RADIANS_PER_STEP)
        findings.add(
            f"stiff for the little it moves: physics steps of {1e3 * step:g} ms instead of {1e3 * TIMESTEPS_S[0]:g}, "
            f"{TIMESTEPS_S[0] / step:g} times as many",
            *(robot.joint_names[i] for i in stiff),
        )
    for i in np.flatnonzero(kd * _CONTROLLER_S > loads.lightest):
        findings.add(
            "damps more than a controller at 1 kHz can without shaking: lower its kd, or give its motor's --armature",
            robot.joint_names[i],
        )
    return step


def check_hold(model: mujoco.MjModel, robot: RobotSpec, qpos: NDArray[np.float64], findings: Findings) -> None:
    """Whether the servos hold the home pose `qpos` (nq,) of `model`, whose base is fixed, for a second."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    data.ctrl[:] = home = np.array([j.default_pos_rad for j in robot.joints])
    mujoco.mj_step(model, data, round(_HOLD_S / model.opt.timestep))
    where = np.array([data.joint(name).qpos[0] for name in robot.joint_names])
    if any(data.warning[int(w)].number for w in _UNSTABLE) or not np.isfinite(where).all():
        findings.add("UNSTABLE: physics diverges when the servos hold the home pose; lower the gains")
        return
    for joint, drift in zip(robot.joints, np.abs(where - home), strict=True):
        if drift > _HOLD_ERROR * (joint.upper_rad - joint.lower_rad):
            findings.add(
                "does not hold the home pose: gravity, contact or a constraint moves it", f"{joint.name} ({drift:.2f})"
            )


_UNSTABLE = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


def _total_damping(model: mujoco.MjModel, robot: RobotSpec) -> NDArray[np.float64]:
    """Of servo and joint together, (n_joints,)."""
    dofs = [int(model.joint(name).dofadr[0]) for name in robot.joint_names]
    return np.array([j.kd_nms_rad for j in robot.joints]) + model.dof_damping[dofs]


def _welded_mass(model: mujoco.MjModel, body: int) -> float:
    """Of a body and everything fixed to it."""
    return float(model.body_mass[model.body_weldid == body].sum())


def inspect_robot(robot: RobotSpec) -> tuple[list[JointRow], tuple[str, ...]]:
    """Table and remarks of any robot, as its model is loaded."""
    model, findings = load_model(robot.name), Findings()
    lower, upper, home = (np.array([getattr(j, f) for j in robot.joints]) for f in _POSE_FIELDS)
    loads = find_loads(model, list(robot.joint_names), lower, upper, home)
    check_joints(model, robot, loads, findings)
    check_model(model, findings)
    return joint_rows(model, robot, loads), findings.lines()


_POSE_FIELDS = ("lower_rad", "upper_rad", "default_pos_rad")
