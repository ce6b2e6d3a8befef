"""BatchSim: many worlds of one robot model, stepped together. What a backend must offer, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import mujoco
import torch
from torch import Tensor

from robot_rl_sim.backends.state_view import StateView

MAX_SPEED = 1e3
"""m/s or rad/s: no robot gets there, so physics that does has blown up (`BatchSim.failed`)."""


class BatchSim(Protocol):
    """`num_worlds` copies of one model. Every tensor is a live view: it changes when the worlds are stepped or set.

    Joints are in contract order. A floating base has its pose in qpos[:, :7] (m, scalar-first quaternion) and its
    velocity in qvel[:, :6] (linear in the world frame, m/s; angular in the base frame, rad/s).
    """

    model: mujoco.MjModel
    """The model as it was loaded: names, addresses, nominal values."""
    num_worlds: int
    substeps: int
    """Physics steps in one control period."""
    device: torch.device
    stays: bool
    """Whether every tensor stays where it is and is up to date whenever physics, `set_state` or `refresh` returns: then
    compiled code can go on reading it without asking again. `write_state` can be compiled, too."""
    qpos: Tensor
    """(num_worlds, nq); writable."""
    qvel: Tensor
    """(num_worlds, nv); writable."""

    @property
    def joint_effort(self) -> Tensor:
        """(num_worlds, n_joints) N m, applied in the last physics step; read only. After `set_state`, ask again: it may
        be computed only then."""
        ...

    @property
    def joint_pos(self) -> Tensor:
        """(num_worlds, n_joints) rad; part of qpos. A copy, and not a live view, where other joints lie in between."""
        ...

    @property
    def joint_vel(self) -> Tensor:
        """(num_worlds, n_joints) rad/s; part of qvel, as `joint_pos` of qpos."""
        ...

    @property
    def failed(self) -> Tensor:
        """(num_worlds,) bool: the physics of this world cannot be trusted since its last `set_state` (NaN, divergence,
        an overflow); its values may be anything. The other worlds are not touched by it."""
        ...

    @property
    def any_failed(self) -> bool:
        """Whether any world is `failed`: on a CPU sooner known than which."""
        ...

    def free_joint(self, body: str) -> tuple[Tensor, Tensor]:
        """Pose (num_worlds, 7) and velocity (num_worlds, 6) of a body with a free joint, as in qpos and qvel; writable.

        Raises ConfigError if the model has no such body or it is not free.
        """
        ...

    def sensor(self, name: str) -> Tensor:
        """(num_worlds, size) of a sensor of the model, as it read before the last physics step; read only. After
        `set_state`, ask again: it may be computed only then."""
        ...

    def trace(self) -> StateView:
        """States (num_worlds, substeps, ...) after each physics step of the last control period; live, and recorded
        from the first call on. Sensors and efforts are those before the step, as in `sensor`."""
        ...

    def view(self, qpos: Tensor, qvel: Tensor) -> StateView:
        """Any states (k, nq) and (k, nv) of the model, in the types of qpos and qvel; without efforts and sensors."""
        ...

    def nominal(self, name: str) -> Tensor:
        """The model field `name` (...) as it was loaded; a copy. Options are named as in "opt.gravity"."""
        ...

    def model_field(self, name: str) -> Tensor:
        """(num_worlds, ...) values of the model field `name`; writable, and in force after `apply_model`."""
        ...

    def apply_model(self, worlds: Tensor) -> None:
        """Recompute what depends on the model fields just written for `worlds` (k,)."""
        ...

    def set_state(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Start `worlds` (k,) afresh from qpos (k, nq) and qvel (k, nv), at time 0, without memory of the past."""
        ...

    def write_state(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """`set_state` without `refresh`: efforts and sensors of `worlds` stay what they were until that or a step."""
        ...

    def refresh(self, worlds: Tensor) -> None:
        """Compute the efforts and sensors of `worlds` (k,), whose states were written."""
        ...

    def step(self, ctrl: Tensor) -> None:
        """Advance one control period. Joint targets: ctrl (num_worlds, n_joints), or one per physics step,
        (num_worlds, substeps, n_joints). Worlds in which this goes wrong are marked in `failed`.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the physics state and of every model field that was asked for."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...
