"""When a robot counts as recovered. Judged on what is true in the simulation, not on what its sensors say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.networks.rotation import gravity_in_body
from robot_rl.robots import RobotSpec
from robot_rl.runtime.ramp import STILL_RAD_S
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.models import default_qpos

HORIZON_S = 4.0
"""From the trip until it is judged: a second more than the slowest ramp to a default pose."""
LASTING_S = 0.5
"""The condition must hold at every control step of this long before the end."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """What must hold. A threshold that is None does not apply."""

    max_joint_speed_rad_s: float
    """Of every joint."""
    beyond_limit_rad: float
    """No joint is further than this beyond its limits: what the safety filter would damp for."""
    lower: Tensor
    """(n_joints,) rad."""
    upper: Tensor
    max_tilt_rad: float | None = None
    min_height_m: float | None = None
    """Of the root body above the ground."""

    def met(self, sim: BatchSim) -> Tensor:
        """(n,) bool, of the present states."""
        root = sim.qpos[:, :7] if self.max_tilt_rad is not None else None
        return self.judge(sim.joint_pos, sim.joint_vel, root)

    def judge(self, joint_pos: Tensor, joint_vel: Tensor, root: Tensor | None = None) -> Tensor:
        """(n,) bool, of joints (n, n_joints) and the root's pose (n, 7): m, scalar-first quaternion."""
        excess = torch.maximum(self.lower - joint_pos, joint_pos - self.upper).amax(-1)
        met = (joint_vel.abs().amax(-1) <= self.max_joint_speed_rad_s) & (excess <= self.beyond_limit_rad)
        if root is not None and self.max_tilt_rad is not None and self.min_height_m is not None:
            up = -gravity_in_body(root[:, 3:7])[:, 2].clamp(-1.0, 1.0)
            met = met & (torch.acos(up) <= self.max_tilt_rad) & (root[:, 2] >= self.min_height_m)
        return met

    def words(self) -> str:
        """For a card."""
        parts = []
        if self.max_tilt_rad is not None:
            parts.append(f"upright (tilt at most {self.max_tilt_rad:g} rad)")
            parts.append(f"its root at least {self.min_height_m:.2f} m high")
        parts.append(f"every joint slower than {self.max_joint_speed_rad_s:g} rad/s")
        parts.append(f"none more than {self.beyond_limit_rad:g} rad beyond its limits")
        return f"{HORIZON_S:g} s later, and for all of the last {LASTING_S:g} s: {', '.join(parts)}"


def criterion_of(robot: RobotSpec, sim: BatchSim) -> Criterion:
    """A floating base must stand: upright, and at 0.8 of the height at which it stands in its default pose; while it
    balances its joints may move. A fixed base must have come to rest. What it held may have been let go."""
    lower, upper = (
        torch.tensor([getattr(j, f) for j in robot.joints], device=sim.device, dtype=torch.float64)
        for f in ("lower_rad", "upper_rad")
    )
    hard = robot.safety.hard_margin_rad
    if not robot.floating_base:
        return Criterion(STILL_RAD_S, hard, lower, upper)
    height = float(default_qpos(sim.model, robot)[2])
    return Criterion(5.0, hard, lower, upper, max_tilt_rad=0.4, min_height_m=0.8 * height)
