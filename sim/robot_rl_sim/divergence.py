"""Divergence: the last good state of a world whose physics then failed, and what it was told: to see it again."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robot_rl_sim.backends.batch_sim import BatchSim


@dataclass(frozen=True, slots=True)
class Divergence:
    """One control period that one world did not survive."""

    world: int
    episode_step: int
    qpos: Tensor
    """(nq,) before the period."""
    qvel: Tensor
    """(nv,)."""
    ctrl: Tensor
    """(n_joints,) rad, or (substeps, n_joints)."""
    model: dict[str, Tensor]
    """Model field -> its value in this world."""


def record(sim: BatchSim, world: int, episode_step: int, qpos: Tensor, qvel: Tensor, ctrl: Tensor) -> Divergence:
    """`qpos`, `qvel` and `ctrl` are those of all worlds, as they were when the period began."""
    fields = {
        name.removeprefix("model/"): value[world].cpu()
        for name, value in sim.state_dict().items()
        if name.startswith("model/")
    }
    qpos, qvel, ctrl = (values[world].cpu().clone() for values in (qpos, qvel, ctrl))
    return Divergence(world, episode_step, qpos, qvel, ctrl, fields)
