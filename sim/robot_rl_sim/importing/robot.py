"""RobotSpec of an imported robot: what its file says, what the person adds, and the rest derived or assumed."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from robot_rl.contract import JointSpec
from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec, SafetyProfile
from robot_rl.robots.spec import BACKUPS
from robot_rl_sim.importing.drives import Drive
from robot_rl_sim.importing.findings import Findings
from robot_rl_sim.importing.loads import Loads, find_loads
from robot_rl_sim.importing.mirror import find_mirror
from robot_rl_sim.importing.scene import Base

NATURAL_FREQUENCY_HZ = 5.0
"""Of a joint with derived gains under its largest load: it follows a policy at 20 Hz without asking for big motors."""
DAMPING_RATIO = 1.0
SAG = 0.02
"""Share of its range by which gravity may bend a joint with derived gains; stiffness is raised until it does not."""
HOME_MARGIN = 0.0501
"""Share of the range, just above SafetyProfile.soft_margin."""
RAMP_S = 0.1
"""An assumed effort limit brings the load to the speed limit in this time."""
_UNKNOWN = {
    "hinge": (math.pi, 10.0),
    "slide": (0.5, 1.0),
}
"""Half the range (rad, m) and the speed (rad/s, m/s) where the file gives none."""
_PLACEHOLDER = 1e5
"""Torques and speeds from here on are no limits but what tools write where they know none."""


@dataclass(frozen=True)
class Choices:
    """What the person says; it wins over the file. Each entry is VALUE, or PATTERN=VALUE for the joints so named."""

    kp: tuple[str, ...] = ()
    kd: tuple[str, ...] = ()
    armature: tuple[str, ...] = ()
    effort_limit: tuple[str, ...] = ()
    velocity_limit: tuple[str, ...] = ()
    natural_frequency_hz: float | None = None
    damping_ratio: float | None = None

    def __post_init__(self) -> None:
        for name in ("natural_frequency_hz", "damping_ratio"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be positive, got {value}")


@dataclass(frozen=True)
class Given:
    """What the file says about the joints that are driven, in their order."""

    joints: tuple[str, ...]
    drives: tuple[Drive, ...]
    home: Mapping[str, float]
    """Of the home keyframe."""
    velocity: Mapping[str, float]
    """Speed limits, of the joints that have one."""


@dataclass
class _Limits:
    lower: list[float]
    upper: list[float]
    velocity: list[float]


def build_robot(
    name: str, source: str, model: mujoco.MjModel, base: Base, given: Given, choices: Choices, findings: Findings
) -> tuple[RobotSpec, Loads]:
    """`model` is the scene without motors; its armature is set to what was chosen."""
    joints = given.joints
    armature = choose(choices.armature, joints, "--armature")
    for joint, value in armature.items():
        model.dof_armature[model.joint(joint).dofadr[0]] = value
    limits = _limits(model, given, choices, findings)
    home = [
        _home(j, lo, hi, given.home.get(j), findings)
        for j, lo, hi in zip(joints, limits.lower, limits.upper, strict=True)
    ]
    loads = find_loads(model, list(joints), np.array(limits.lower), np.array(limits.upper), np.array(home))
    kp, kd = _gains(model, given, limits, loads, choices, findings)
    effort = _efforts(model, given, limits, loads, choices, findings)
    dofs = [int(model.jnt_dofadr[model.joint(j).id]) for j in joints]
    damping = [float(k or 2 * DAMPING_RATIO * math.sqrt(p * i)) for k, p, i in zip(kd, kp, loads.inertia, strict=True)]
    robot = RobotSpec(
        name=name,
        variant="imported",
        joints=tuple(
            JointSpec(*row)
            for row in zip(joints, limits.lower, limits.upper, limits.velocity, effort, home, kp, kd, strict=True)
        ),
        armature_kg_m2=tuple(float(model.dof_armature[d]) for d in dofs),
        root_body=base.body,
        floating_base=base.floating,
        safety=SafetyProfile(
            damping_kd_nms_rad=tuple(damping),
            target_rate_limit_rad_s=tuple(limits.velocity),
            joint_vel_trip_rad_s=tuple(1.5 * v for v in limits.velocity),
            joint_inertia_kg_m2=tuple(loads.inertia.tolist()),
            tilt_trip_rad=1.0 if base.floating else None,
            base_ang_vel_trip_rad_s=6.0 if base.floating else None,
            backup=("damp",) if base.floating else BACKUPS["fixed_base"],
            deadman=base.floating,
        ),
        state_fields=("joint_pos", "joint_vel", "joint_effort")
        + (("imu_quat_wxyz", "imu_ang_vel_b", "imu_lin_acc_b") if base.floating else ()),
        mirror=find_mirror(model, base.body, joints) if base.floating else (),
        source=source,
    )
    return robot, loads


def _limits(model: mujoco.MjModel, given: Given, choices: Choices, findings: Findings) -> _Limits:
    limits = _Limits([], [], [])
    chosen = choose(choices.velocity_limit, given.joints, "--velocity-limit")
    for name, drive in zip(given.joints, given.drives, strict=True):
        joint = model.joint(name).id
        slide = int(model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_SLIDE)
        if slide:
            findings.add("slides: read m, m/s and N where this project says rad, rad/s and N m", name)
        reach, speed = _UNKNOWN["slide" if slide else "hinge"]
        lower, upper = (float(v) for v in model.jnt_range[joint])
        if not model.jnt_limited[joint] or not lower < upper:
            if drive.lower is not None and drive.upper is not None:
                lower, upper = drive.lower, drive.upper
                findings.add("no limits in the file: its actuator's range of targets is taken", name)
            else:
                lower, upper = -reach, reach
                findings.add(f"NO LIMITS in the file: ±{reach:.3g} assumed", name)
        known = chosen.get(name, given.velocity.get(name, _PLACEHOLDER))
        if known >= _PLACEHOLDER:
            known = speed
            findings.add(f"no speed limit in the file: {speed:g} assumed; see --velocity-limit", name)
        limits.lower.append(lower)
        limits.upper.append(upper)
        limits.velocity.append(known)
    return limits


def _home(name: str, lower: float, upper: float, key: float | None, findings: Findings) -> float:
    """The keyframe's position; without one, zero where it lies within the limits, else the middle. Always inside the
    margin that the safety filter keeps to both limits: it lets no robot stand outside."""
    margin = HOME_MARGIN * (upper - lower)
    low, high = lower + margin, upper - margin
    if key is None:
        return 0.0 if low <= 0.0 <= high else (lower + upper) / 2
    if not low <= key <= high:
        findings.add("home pose outside the soft limits, moved to the nearest", name)
    return min(max(key, low), high)


def _gains(
    model: mujoco.MjModel, given: Given, limits: _Limits, loads: Loads, choices: Choices, findings: Findings
) -> tuple[list[float], list[float]]:
    """kp = I w² and kd = 2 ζ I w of what the joint turns (I: its largest load), where file and person say nothing."""
    chosen_kp, chosen_kd = choose(choices.kp, given.joints, "--kp"), choose(choices.kd, given.joints, "--kd")
    frequency = choices.natural_frequency_hz or NATURAL_FREQUENCY_HZ
    kps, kds = [], []
    for i, (name, drive) in enumerate(zip(given.joints, given.drives, strict=True)):
        inertia = float(loads.inertia[i])
        kp, kd = chosen_kp.get(name), chosen_kd.get(name)
        if kp is None and choices.natural_frequency_hz is None and drive.kp is not None:
            kp = drive.kp
            kd = drive.kd if kd is None and choices.damping_ratio is None else kd
        elif kp is None:
            kp = inertia * (2 * math.pi * frequency) ** 2
            held = float(loads.gravity[i]) / (SAG * (limits.upper[i] - limits.lower[i]))
            if held > kp and choices.natural_frequency_hz is None:
                kp = held
                findings.add(f"gains derived for {SAG:.0%} of its range of sag under gravity", name)
            else:
                findings.add(f"gains derived: kp = I w², kd = 2 ζ I w, at {frequency:g} Hz", name)
            if drive.kd and kd is None and choices.damping_ratio is None:
                kd = drive.kd
                findings.add("damping taken from its velocity actuator", name)
        if kd is None:
            ratio = choices.damping_ratio or DAMPING_RATIO
            # The joint damps too, by itself.
            kd = max(0.0, 2 * ratio * math.sqrt(kp * inertia) - float(model.dof_damping[model.joint(name).dofadr[0]]))
        kps.append(kp)
        kds.append(kd)
    return kps, kds


def _efforts(
    model: mujoco.MjModel, given: Given, limits: _Limits, loads: Loads, choices: Choices, findings: Findings
) -> list[float]:
    chosen = choose(choices.effort_limit, given.joints, "--effort-limit")
    efforts = []
    for i, (name, drive) in enumerate(zip(given.joints, given.drives, strict=True)):
        joint = model.joint(name).id
        written = [] if not drive.effort else [drive.effort]
        if model.jnt_actfrclimited[joint]:
            written.append(float(np.abs(model.jnt_actfrcrange[joint]).max()))
        if name in chosen:
            effort = chosen[name]
        elif written and min(written) < _PLACEHOLDER:
            effort = min(written)
        else:
            effort = float(2 * loads.gravity[i] + loads.inertia[i] * limits.velocity[i] / RAMP_S)
            findings.add(
                "NO EFFORT LIMIT in the file: twice its weight and a fast start assumed; see --effort-limit", name
            )
        if effort < loads.gravity[i]:
            findings.add("its effort limit cannot hold it against gravity in every pose", name)
        efforts.append(effort)
    return efforts


def choose(entries: tuple[str, ...], joints: Sequence[str], flag: str) -> dict[str, float]:
    """Joint -> value from VALUE and PATTERN=VALUE entries, later ones winning. Raises ConfigError for one that says
    nothing."""
    values: dict[str, float] = {}
    for entry in entries:
        pattern, _, text = entry.rpartition("=")
        matching = fnmatch.filter(joints, pattern or "*")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{flag} {entry!r}: expected VALUE or PATTERN=VALUE with a number of at least 0")
        if not matching:
            raise ConfigError(f"{flag} {entry!r}: no joint is named so; valid: {', '.join(joints)}")
        values |= dict.fromkeys(matching, value)
    return values
