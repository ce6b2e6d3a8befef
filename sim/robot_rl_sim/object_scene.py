"""What a simulated robot needs besides itself to meet a task with an object: the model, and where the object is put."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mujoco
import torch
from torch import Tensor

from robot_rl.env import get_task
from robot_rl.errors import ConfigError
from robot_rl_sim.backends.addresses import free_joint, free_joint_columns

if TYPE_CHECKING:
    from robot_rl_sim.mdp import Mdp


@dataclass(frozen=True)
class ObjectScene:
    """A task's robot with its object, as episodes begin. Make with `of`."""

    model: mujoco.MjModel
    body: str
    """The object's, which has a free joint."""
    columns: tuple[slice, slice]
    """Of the object in qpos and in qvel."""
    mdp: Mdp

    @staticmethod
    def of(task: str, seed: int = 0) -> ObjectScene:
        """Raises ConfigError for a task that is unknown, not simulated or without an object."""
        env = get_task(task).make_env(num_envs=1, seed=seed, num_threads=1)
        env.close()
        mdp: Mdp | None = getattr(env, "mdp", None)
        if mdp is None or mdp.object_body is None:
            raise ConfigError(f"task {task!r} has no object that a simulated robot could be given")
        model = mdp.model_spec().compile()
        return ObjectScene(model, mdp.object_body, free_joint(free_joint_columns(model), mdp.object_body), mdp)

    def start_pose(self, generator: torch.Generator) -> Tensor:
        """(7,) position m and orientation in the world with which an episode begins, drawn at random."""
        drawn = torch.rand(1, self.mdp.start_draws, generator=generator)
        qpos = self.mdp.start(torch.zeros(1, dtype=torch.int64), drawn).qpos
        return qpos[0, self.columns[0]].double()
