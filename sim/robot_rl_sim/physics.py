"""PhysicsConfig: how MuJoCo solves a model, where that shall differ from what the model's file says."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import mujoco

from robot_rl.errors import ConfigError

_INTEGRATORS = {
    "euler": mujoco.mjtIntegrator.mjINT_EULER,
    "rk4": mujoco.mjtIntegrator.mjINT_RK4,
    "implicit": mujoco.mjtIntegrator.mjINT_IMPLICIT,
    "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
}
_SOLVERS = {
    "pgs": mujoco.mjtSolver.mjSOL_PGS,
    "cg": mujoco.mjtSolver.mjSOL_CG,
    "newton": mujoco.mjtSolver.mjSOL_NEWTON,
}
_CONES = {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC}


@dataclass(frozen=True, slots=True)
class PhysicsConfig:
    """None: as the model's file says."""

    timestep_s: float | None = None
    """Must divide the control period."""
    integrator: Literal["euler", "rk4", "implicit", "implicitfast"] | None = None
    solver: Literal["pgs", "cg", "newton"] | None = None
    cone: Literal["pyramidal", "elliptic"] | None = None
    """Shape of the friction cone."""
    iterations: int | None = None
    """Most iterations of the constraint solver."""

    def __post_init__(self) -> None:
        for name, valid in (("integrator", _INTEGRATORS), ("solver", _SOLVERS), ("cone", _CONES)):
            value = getattr(self, name)
            if value is not None and value not in valid:
                raise ConfigError(f"unknown {name} {value!r}; valid: {', '.join(valid)}")
        for name in ("timestep_s", "iterations"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, got {value}")

    def apply(self, model: mujoco.MjModel) -> None:
        """Write what is not None into the model's options."""
        if self.timestep_s is not None:
            model.opt.timestep = self.timestep_s
        if self.integrator is not None:
            model.opt.integrator = int(_INTEGRATORS[self.integrator])
        if self.solver is not None:
            model.opt.solver = int(_SOLVERS[self.solver])
        if self.cone is not None:
            model.opt.cone = int(_CONES[self.cone])
        if self.iterations is not None:
            model.opt.iterations = self.iterations

    def describe(self) -> str:
        """What differs, such as "integrator rk4"."""
        return ", ".join(f"{f.name} {getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) is not None)


AS_MODELLED = PhysicsConfig()


def physics_of(model: mujoco.MjModel) -> PhysicsConfig:
    """How `model` is solved, in full."""

    def name(names: dict, value: int) -> str:
        return next(n for n, member in names.items() if int(member) == int(value))

    opt = model.opt
    return PhysicsConfig(
        timestep_s=float(opt.timestep),
        integrator=name(_INTEGRATORS, opt.integrator),  # pyright: ignore[reportArgumentType]
        solver=name(_SOLVERS, opt.solver),  # pyright: ignore[reportArgumentType]
        cone=name(_CONES, opt.cone),  # pyright: ignore[reportArgumentType]
        iterations=int(opt.iterations),
    )
