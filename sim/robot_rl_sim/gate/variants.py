"""The variants of a task's simulation that a policy must not notice, and the corners that it must survive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.gate.compare import Tolerance
from robot_rl_sim.physics import AS_MODELLED, PhysicsConfig, physics_of
from robot_rl_sim.randomization import RandomizationConfig

OTHER_BACKEND = {"mujoco": "warp", "warp": "mujoco"}

PHYSICS_TOLERANCE = Tolerance()
"""The same world, solved otherwise: a policy that notices has learned the solver."""
DOUBLE_STEP_TOLERANCE = Tolerance(
    success_loss=0.1, return_loss=0.1, shift=0.5, spread=0.5, distribution=0.2, replay=1.0
)
"""Twice as much: the error of a first-order integrator grows with the step, so that twice the step differs from the
reference by twice as much as half the step does."""
CORNER_TOLERANCE = Tolerance(
    success_loss=0.1, return_loss=0.15, shift=None, spread=None, distribution=None, replay=None
)
"""Another world, at the edge of what was trained on: all episodes at once are what one in many was, and a heavier robot
is right to move differently."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The reference, with one thing changed."""

    name: str
    backend: str
    randomization: RandomizationConfig
    physics: PhysicsConfig = AS_MODELLED
    tolerance: Tolerance = field(default_factory=Tolerance)
    may_diverge: bool = False
    """Its physics may be too coarse to be stable, which says nothing of the policy."""


def make_variants(env: SimVecEnv, backend: str) -> list[Variant]:
    """All variants of a reference environment on `backend`."""
    randomization = env.randomization
    physics = physics_of(env.sim.model)  # pyright: ignore[reportAttributeAccessIssue]
    variants = [Variant(f"backend/{OTHER_BACKEND[backend]}", OTHER_BACKEND[backend], randomization)]
    for name, change in _physics(physics, env.sim.substeps):
        coarse = name == "timestep/double"
        tolerance = DOUBLE_STEP_TOLERANCE if coarse else PHYSICS_TOLERANCE
        variants.append(Variant(name, backend, randomization, change, tolerance, may_diverge=coarse))
    for name, change in corners(randomization):
        variants.append(Variant(f"corner/{name}", backend, change, tolerance=CORNER_TOLERANCE))
    return variants


def _physics(own: PhysicsConfig, substeps: int) -> Iterator[tuple[str, PhysicsConfig]]:
    assert own.timestep_s is not None
    yield "timestep/half", PhysicsConfig(timestep_s=own.timestep_s / 2)
    if substeps % 2 == 0:
        yield "timestep/double", PhysicsConfig(timestep_s=own.timestep_s * 2)
    for integrator in ("euler", "implicitfast", "rk4"):
        if integrator != own.integrator:
            yield f"integrator/{integrator}", PhysicsConfig(integrator=integrator)
    for solver in ("newton", "cg"):
        if solver != own.solver:
            yield f"solver/{solver}", PhysicsConfig(solver=solver)
    for cone in ("pyramidal", "elliptic"):
        if cone != own.cone:
            yield f"cone/{cone}", PhysicsConfig(cone=cone)


def corners(config: Any) -> Iterator[tuple[str, Any]]:
    """Each range of a (nested) configuration at its low and at its high end, the others staying as they are."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from ((f"{f.name}.{name}", replace(config, **{f.name: inner})) for name, inner in corners(value))
        elif _is_range(value):
            low, high = value
            yield f"{f.name}/low", replace(config, **{f.name: (low, low)})
            yield f"{f.name}/high", replace(config, **{f.name: (high, high)})


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(end, (int, float)) for end in value)
        and value[0] < value[1]
    )
