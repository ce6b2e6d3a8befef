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

HORIZON_S = 3.0
"""From the trip until it is judged."""
LASTING_S = 0.5
"""The condition must hold at every control step of this long before the end."""


@dataclass(frozen=True, slots=True)
class AtRest:
    """A fixed base: its joints have come to rest inside their limits. What it held may have been let go."""

    lower: Tensor
    """(n_joints,) rad."""
    upper: Tensor
    max_speed_rad_s: float
    beyond_limit_rad: float
    """What the safety filter would damp for."""

    def met(self, joint_pos: Tensor, joint_vel: Tensor) -> Tensor:
        """(n,) bool, of joints (n, n_joints)."""
        excess = torch.maximum(self.lower - joint_pos, joint_pos - self.upper).amax(-1)
        return (joint_vel.abs().amax(-1) <= self.max_speed_rad_s) & (excess <= self.beyond_limit_rad)

    def words(self) -> str:
        return (
            f"every joint slower than {self.max_speed_rad_s:g} rad/s and at most {self.beyond_limit_rad:g} rad beyond "
            "its limits"
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """A floating base: it stands upright and high. Its joints may move, since balancing takes that."""

    max_tilt_rad: float
    min_height_m: float

    def met(self, root: Tensor) -> Tensor:
        """(n,) bool, of the root's pose (n, 7): m, scalar-first quaternion."""
        up = -gravity_in_body(root[:, 3:7])[:, 2].clamp(-1.0, 1.0)
        return (torch.acos(up) <= self.max_tilt_rad) & (root[:, 2] >= self.min_height_m)

    def words(self) -> str:
        return f"tilted by at most {self.max_tilt_rad:g} rad, its root at least {self.min_height_m:.2f} m high"


Criterion = AtRest | Standing


def criterion_of(robot: RobotSpec, sim: BatchSim) -> Criterion:
    """At rest is as still as STAND asks before RUN; standing is at 0.8 of the height of the default pose, on level
    ground."""
    if robot.floating_base:
        return Standing(max_tilt_rad=0.4, min_height_m=0.8 * float(default_qpos(sim.model, robot)[2]))
    lower, upper = (
        torch.tensor([getattr(j, f) for j in robot.joints], device=sim.device, dtype=torch.float64)
        for f in ("lower_rad", "upper_rad")
    )
    return AtRest(lower, upper, STILL_RAD_S, robot.safety.hard_margin_rad)


def met(criterion: Criterion, sim: BatchSim) -> Tensor:
    """(n,) bool, of the present states."""
    if isinstance(criterion, Standing):
        return criterion.met(sim.qpos[:, :7])
    return criterion.met(sim.joint_pos, sim.joint_vel)


def words(criterion: Criterion) -> str:
    """For a card."""
    return f"{HORIZON_S:g} s later, and for all of the last {LASTING_S:g} s, {criterion.words()}"
