"""Domain randomisation: which parts of the dynamics and sensors differ between episodes, and by how much."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.sensors import NO_NOISE, SensorNoise

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class RandomizationConfig:
    """Every episode draws its own values, uniformly, from these ranges. A scale multiplies the nominal; None is off.

    The widths are those of field-proven humanoid and hand stacks (holosoma, unitree_rl_lab, ASAP); friction of servo
    gears is known least, hence its wide range.
    """

    link_mass_scale: Range | None = (0.9, 1.1)
    """Mass and inertia of each body, together."""
    friction_scale: Range | None = (0.6, 1.4)
    """Sliding friction, the same for all surfaces of a world."""
    kp_scale: Range | None = (0.9, 1.1)
    kd_scale: Range | None = (0.9, 1.1)
    joint_damping_scale: Range | None = (0.7, 1.3)
    joint_frictionloss_scale: Range | None = (0.5, 2.0)
    armature_scale: Range | None = (0.9, 1.1)
    action_latency_steps: Range | None = (0.0, 1.0)
    """Delay between a decision and its target reaching the servos, in control steps."""
    sensor_noise: SensorNoise = field(default_factory=SensorNoise)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                raise ConfigError(f"randomization {f.name} must be an increasing pair of at least 0, got {value}")


NOMINAL = RandomizationConfig(None, None, None, None, None, None, None, None, NO_NOISE)


@dataclass(frozen=True, slots=True)
class _Scaled:
    """Parts of model fields that one random scale per entry multiplies."""

    range: Range
    entries: int
    """1: the same scale for all of a world."""
    parts: tuple[tuple[Tensor, Tensor], ...]
    """(live view (n_worlds, entries, ...), nominal values (entries, ...))."""


class Randomizer:
    """Writes per-world model fields at reset. Their values live in the BatchSim, which also saves them."""

    def __init__(self, sim: BatchSim, config: RandomizationConfig) -> None:
        self._sim = sim

        def part(name: str, column: int | None) -> tuple[Tensor, Tensor]:
            live, nominal = sim.model_field(name), sim.nominal(name)
            nominal = nominal.to(live)
            return (live, nominal) if column is None else (live[..., column], nominal[..., column])

        nbody, nu, nv = (len(sim.nominal(name)) for name in ("body_mass", "actuator_gainprm", "dof_damping"))
        c = config
        # A position servo is gain[0] u + bias[1] q + bias[2] dq, with gain[0] = kp, bias[1] = -kp, bias[2] = -kd.
        table: tuple[tuple[Range | None, int, tuple[tuple[str, int | None], ...]], ...] = (
            (c.link_mass_scale, nbody, (("body_mass", None), ("body_inertia", None))),
            (c.friction_scale, 1, (("geom_friction", 0),)),
            (c.kp_scale, nu, (("actuator_gainprm", 0), ("actuator_biasprm", 1))),
            (c.kd_scale, nu, (("actuator_biasprm", 2),)),
            (c.joint_damping_scale, nv, (("dof_damping", None),)),
            (c.joint_frictionloss_scale, nv, (("dof_frictionloss", None),)),
            (c.armature_scale, nv, (("dof_armature", None),)),
        )
        self._scaled = [_Scaled(scale, n, tuple(part(*p) for p in parts)) for scale, n, parts in table if scale]

    def reset(self, worlds: Tensor, generator: torch.Generator) -> None:
        """Draw the dynamics of new episodes in `worlds` (k,)."""
        if not self._scaled:
            return
        entries = [s.entries for s in self._scaled]
        uniform = torch.rand(len(worlds), sum(entries), generator=generator, dtype=torch.float64, device=worlds.device)
        for scaled, u in zip(self._scaled, uniform.split(entries, dim=1), strict=True):
            low, high = scaled.range
            scale = low + (high - low) * u
            for live, nominal in scaled.parts:
                live.index_copy_(0, worlds, nominal * scale.to(live).view(*scale.shape, *[1] * (nominal.dim() - 1)))
        self._sim.apply_model(worlds)
