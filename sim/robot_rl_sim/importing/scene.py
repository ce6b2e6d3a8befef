"""The scene of an imported robot: the robot alone, without motors, on a floor, with light, camera and IMU."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from robot_rl.errors import ConfigError
from robot_rl_sim.coupling import find_followers
from robot_rl_sim.importing.findings import Findings

_FREE = int(mujoco.mjtJoint.mjJNT_FREE)
_GROUND = (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD))
_REACH_POSES = 512
IMU_SENSORS = ("imu_quat", "imu_gyro", "imu_acc")


@dataclass(frozen=True)
class Base:
    """What the robot's joints hang from."""

    body: str
    """The floating body; of a fixed robot its root, "world" if that moves or there are several."""
    floating: bool
    mass_kg: float


def keep_robot(spec: mujoco.MjSpec, model: mujoco.MjModel, joints: tuple[str, ...], findings: Findings) -> Base:
    """Delete every moving thing that `joints` and their followers have no part in; returns the base of what stays.

    Raises ConfigError for two robots of which one floats.
    """
    driven = {model.joint(name).id for name in joints}
    parts = [*driven, *find_followers(model, driven)]
    roots = {int(model.body_rootid[model.jnt_bodyid[j]]) for j in parts}
    floating = [r for r in roots if any(int(model.jnt_type[j]) == _FREE for j in _joints_of(model, r))]
    names = sorted(model.body(r).name for r in roots)
    if floating and len(roots) > 1:
        raise ConfigError(
            f"{len(roots)} robots in one file, of which one floats: {', '.join(names)}; give each its own file"
        )
    for body in list(spec.worldbody.bodies):
        index = model.body(body.name).id
        if index not in roots and _joints_of(model, index):
            findings.add("left out: it moves, and is no part of the robot", body.name)
            spec.delete(body)
    mass = float(model.body_subtreemass[list(roots)].sum())
    if floating:
        return Base(model.body(floating[0]).name, True, mass)
    (root, *others) = roots
    moves = int(model.body_weldid[root]) != 0
    return Base("world" if others or moves else model.body(root).name, False, mass)


def strip(spec: mujoco.MjSpec) -> None:
    """Without actuators, sensors and keyframes: the RobotSpec has their content."""
    for element in (*spec.actuators, *spec.sensors, *spec.keys):
        spec.delete(element)


def dress(spec: mujoco.MjSpec, model: mujoco.MjModel, base: Base, lowest_m: float, findings: Findings) -> None:
    """Add what a scene needs and this one lacks. `lowest_m`: height below which the robot never reaches."""
    center, extent = model.stat.center, float(model.stat.extent)
    if not any(int(g.type) in _GROUND for g in spec.worldbody.geoms):
        height = 0.0 if base.floating or lowest_m >= 0 else lowest_m - 0.1 * extent
        spec.worldbody.add_geom(
            name=_free("floor", [g.name for g in spec.geoms]), type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 0.05),
            pos=(0, 0, height), rgba=(0.6, 0.63, 0.67, 1),
        )  # fmt: skip
        findings.add(f"no floor in the file: one was added at height {height:.3g} m")
    if not spec.lights:
        spec.worldbody.add_light(pos=(*center[:2], center[2] + 3 * extent), dir=(-0.25, 0.25, -1), type=_DIRECTIONAL)
    if spec.camera("main") is None:
        target = base.body if base.body != "world" else spec.joints[0].parent.name
        spec.worldbody.add_camera(
            name="main", mode=mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODYCOM, targetbody=target,
            pos=center + extent * np.array((1.4, -1.1, 0.7)),
        )  # fmt: skip
    if base.floating:
        _add_imu(spec, base, findings)
    # Servo damping, often the stiffest force in the model, is integrated implicitly; Euler would need finer steps.
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST


_DIRECTIONAL = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL


def _add_imu(spec: mujoco.MjSpec, base: Base, findings: Findings) -> None:
    """Sensors of the base's orientation, rotation and acceleration, in the base's own frame."""
    root = spec.body(base.body)
    given = [s for s in root.sites if "imu" in s.name.lower()]
    elsewhere = [s.name for s in spec.sites if "imu" in s.name.lower() and s not in given]
    if not given:
        findings.add(
            "no IMU in the base of the file: one is assumed in its origin, with its axes"
            + (f" (its IMU {', '.join(elsewhere)} sits elsewhere)" if elsewhere else "")
        )
    site = _free("imu", [s.name for s in spec.sites])
    root.add_site(name=site, pos=given[0].pos if given else (0, 0, 0), group=4)
    kinds = (mujoco.mjtSensor.mjSENS_FRAMEQUAT, mujoco.mjtSensor.mjSENS_GYRO, mujoco.mjtSensor.mjSENS_ACCELEROMETER)
    for name, kind in zip(IMU_SENSORS, kinds, strict=True):
        spec.add_sensor(name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=site)


def exclude_overlaps(
    spec: mujoco.MjSpec, model: mujoco.MjModel, qpos: np.ndarray, depth_m: float, findings: Findings
) -> None:
    """Let bodies that overlap in the pose `qpos` (nq,) by more than `depth_m` pass through each other."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_fwdPosition(model, data)
    overlaps: dict[tuple[str, str], float] = {}
    for contact in data.contact[: data.ncon]:
        bodies = [int(model.geom_bodyid[g]) for g in contact.geom]
        # The ground, and what stands on it, may be touched.
        if contact.dist < -depth_m and all(model.body_weldid[b] for b in bodies):
            first, second = sorted(model.body(b).name for b in bodies)
            overlaps[first, second] = min(overlaps.get((first, second), 0.0), float(contact.dist))
    for (a, b), depth in overlaps.items():
        spec.add_exclude(bodyname1=a, bodyname2=b)
        findings.add("overlap in the home pose, so their contact is ignored", f"{a} and {b} ({-1e3 * depth:.1f} mm)")


def lowest_reach(model: mujoco.MjModel) -> float:
    """Height (m) of the lowest bounding sphere of a moving geom over random poses within the limits; at most 0."""
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    moving = np.flatnonzero(model.body_weldid[model.geom_bodyid] != 0)
    limited = [j for j in range(model.njnt) if model.jnt_limited[j]]
    lowest = 0.0
    for pose in range(_REACH_POSES):
        if pose:
            data.qpos[model.jnt_qposadr[limited]] = rng.uniform(*model.jnt_range[limited].T)
        mujoco.mj_kinematics(model, data)
        lowest = min(lowest, float((data.geom_xpos[moving, 2] - model.geom_rbound[moving]).min(initial=0.0)))
    return lowest


def _joints_of(model: mujoco.MjModel, root: int) -> list[int]:
    return [j for j in range(model.njnt) if int(model.body_rootid[model.jnt_bodyid[j]]) == root]


def _free(name: str, taken: list[str]) -> str:
    return name if name not in taken else _free(f"{name}_", taken)
