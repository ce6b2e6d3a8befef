"""When a robot counts as recovered. Judged on what is true in the simulation, not on what its sensors say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.networks.rotation import gravity_in_body
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.models import default_qpos

HORIZON_S = 3.0
"""From the trip until it is judged."""
LASTING_S = 0.5
"""For this long before, the condition must hold."""


@dataclass(frozen=True, slots=True)
class AtRest:
    """A fixed base: its joints have come to rest inside their limits. What it held may have been let go."""

    lower: Tensor
    """(n_joints,) rad."""
    upper: Tensor
    max_speed_rad_s: float
    """Of each joint's mean over the window: random torques make light joints tremble, and trembling is at rest."""
    beyond_limit_rad: float
    """What the safety filter would damp for."""

    def met(self, joint_pos: Tensor, period_s: float) -> Tensor:
        """(n,) bool, of joints (steps, n, n_joints) that are `period_s` apart."""
        speed = (joint_pos[-1] - joint_pos[0]).abs().amax(-1) / (period_s * (len(joint_pos) - 1))
        excess = torch.maximum(self.lower - joint_pos, joint_pos - self.upper).amax((0, 2))
        return (speed <= self.max_speed_rad_s) & (excess <= self.beyond_limit_rad)

    def words(self) -> str:
        return (
            f"every joint slower than {self.max_speed_rad_s:g} rad/s on average and never more than "
            f"{self.beyond_limit_rad:g} rad beyond its limits"
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """A floating base: it stands upright and high. Its joints may move, since balancing takes that."""

    max_tilt_rad: float
    min_height_m: float

    def met(self, root: Tensor) -> Tensor:
        """(n,) bool, of the root's poses (steps, n, 7): m, scalar-first quaternion."""
        up = -gravity_in_body(root[..., 3:7].flatten(0, 1))[:, 2].clamp(-1.0, 1.0).unflatten(0, root.shape[:2])
        return ((torch.acos(up) <= self.max_tilt_rad) & (root[..., 2] >= self.min_height_m)).all(0)

    def words(self) -> str:
        return f"tilted by at most {self.max_tilt_rad:g} rad, its root at least {self.min_height_m:.2f} m high"


Criterion = AtRest | Standing


def criterion_of(robot: RobotSpec, sim: BatchSim) -> Criterion:
    """Standing is at 0.8 of the height of the default pose, on level ground."""
    if robot.floating_base:
        return Standing(max_tilt_rad=0.4, min_height_m=0.8 * float(default_qpos(sim.model, robot)[2]))
    lower, upper = (
        torch.tensor([getattr(j, f) for j in robot.joints], device=sim.device, dtype=torch.float64)
        for f in ("lower_rad", "upper_rad")
    )
    return AtRest(lower, upper, max_speed_rad_s=0.5, beyond_limit_rad=robot.safety.hard_margin_rad)


class Judge:
    """Watches the last `LASTING_S` of a roll."""

    def __init__(self, criterion: Criterion, period_s: float) -> None:
        self._criterion = criterion
        self._period_s = period_s
        self._seen: list[Tensor] = []

    def see(self, sim: BatchSim) -> None:
        """The state after one more control step."""
        standing = isinstance(self._criterion, Standing)
        self._seen.append(sim.qpos[:, :7].clone() if standing else sim.joint_pos.clone())

    def met(self) -> Tensor:
        """(n,) bool."""
        window = torch.stack(self._seen[-round(LASTING_S / self._period_s) - 1 :])
        if isinstance(self._criterion, Standing):
            return self._criterion.met(window)
        return self._criterion.met(window, self._period_s)


def words(criterion: Criterion) -> str:
    """For a card."""
    return f"{HORIZON_S:g} s later, and for all of the last {LASTING_S:g} s, {criterion.words()}"
