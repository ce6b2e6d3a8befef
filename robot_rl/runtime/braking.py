"""What the braking bound of TargetLimiter counts on, and which joints it leaves alone; measured in braking.md."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import Contract
from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec, SafetyProfile

Array = NDArray[np.float64]

LOWEST_DAMPING_RATIO = 0.7
"""A joint damped less overshoots where it is sent, also beyond a limit."""


def counted_on(robot: RobotSpec, profile: SafetyProfile, effort: Array) -> tuple[Array | None, Array | None]:
    """(n_joints,) inertia and acceleration that the braking bound computes with; None where it cannot."""
    share = profile.brake_effort_share
    if not profile.joint_inertia_kg_m2 or share is None:
        return None, None
    inertia = np.asarray(profile.joint_inertia_kg_m2, np.float64)
    load = np.asarray(profile.joint_load_nm or (0.0,) * len(inertia), np.float64)
    left = share * effort - load
    weak = [j.name for j, torque in zip(robot.joints, left, strict=True) if not torque > 0]
    if weak:
        raise ConfigError(
            f"brake_effort_share {share} of the effort limit, less joint_load_nm, leaves nothing to brake "
            f"{', '.join(weak)}"
        )
    return inertia, left / inertia


def carries(robot: RobotSpec, contract: Contract, inertia: Array | None) -> NDArray[np.bool_]:
    """(n_joints,) whether the braking bound would do harm: joints of a robot that stands on its limbs, damped so well,
    ζ >= 1, that they do not overshoot a target that is clipped to the limits (braking.md, "soft").

    They are a humanoid's ankles, above all. On the ground an ankle moves the whole robot instead of a foot, and a bound
    made for the foot would leave it a tenth of the torque that balance takes.
    """
    if inertia is None or not robot.floating_base:
        return np.zeros(len(robot.joints), np.bool_)
    kp, kd = (np.array([getattr(j, gain) for j in contract.joints]) for gain in ("kp_nm_rad", "kd_nms_rad"))
    return damping_ratios(kp, kd, inertia) >= 1.0


def damping_ratios(kp: Array, kd: Array, inertia: Array) -> Array:
    """ζ = kd / (2 sqrt(kp I)) of each joint as a mass-spring-damper on its own."""
    return kd / (2.0 * np.sqrt(kp * inertia))


def under_damped(names: tuple[str, ...], kp: Array, kd: Array, inertia: Array | None) -> str:
    """A warning that names the joints below LOWEST_DAMPING_RATIO, worst first; empty if there are none, or if nobody
    knows the inertia."""
    if inertia is None:
        return ""
    ratios = sorted(zip(damping_ratios(kp, kd, inertia).tolist(), names, strict=True))
    joints = ", ".join(f"{name} {ratio:.2f}" for ratio, name in ratios if ratio < LOWEST_DAMPING_RATIO)
    return joints and f"damping ratio below {LOWEST_DAMPING_RATIO}, held back by the braking bound alone: {joints}"
