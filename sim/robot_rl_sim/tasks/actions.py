"""Action limits and scales that follow from a RobotSpec."""

from __future__ import annotations

from robot_rl.robots import RobotSpec


def soft_limits(robot: RobotSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lowest and highest target (n_joints,) rad that the safety filter lets through, so that it never has to clip."""
    margins = [robot.safety.soft_margin * (j.upper_rad - j.lower_rad) for j in robot.joints]
    low = tuple(j.lower_rad + m for j, m in zip(robot.joints, margins, strict=True))
    high = tuple(j.upper_rad - m for j, m in zip(robot.joints, margins, strict=True))
    return low, high


def quarter_effort_scale(robot: RobotSpec) -> tuple[float, ...]:
    """Offset (n_joints,) rad at which a servo at rest pushes with a quarter of its torque limit: 0.25 effort / kp.

    An action of ±1 then means the same share of strength at every joint, and leaves three quarters of it to damping,
    gravity and pushes.
    """
    return tuple(0.25 * j.effort_limit_nm / j.kp_nm_rad for j in robot.joints)
