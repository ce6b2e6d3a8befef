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


class Randomizer:
    """Writes per-world model fields at reset. Their values live in the BatchSim, which also saves them."""

    def __init__(self, sim: BatchSim, config: RandomizationConfig) -> None:
        self._sim = sim
        self._config = config
        names: list[str] = []
        if config.link_mass_scale:
            names += ["body_mass", "body_inertia"]
        if config.friction_scale:
            names.append("geom_friction")
        if config.kp_scale or config.kd_scale:
            names += ["actuator_gainprm", "actuator_biasprm"]
        for scale, name in self._per_dof():
            if scale:
                names.append(name)
        self._nominal = {name: sim.nominal(name) for name in names}
        for name in names:
            sim.model_field(name)

    def reset(self, worlds: Tensor, generator: torch.Generator) -> None:
        """Draw the dynamics of new episodes in `worlds` (k,)."""
        if not self._nominal:
            return
        c, k = self._config, len(worlds)

        def write(name: str, values: Tensor) -> None:
            self._sim.model_field(name)[worlds] = values

        def draw(scale: Range, *size: int) -> Tensor:
            return scale[0] + (scale[1] - scale[0]) * torch.rand(k, *size, generator=generator, dtype=torch.float64)

        if c.link_mass_scale:
            mass = draw(c.link_mass_scale, len(self._nominal["body_mass"]))
            write("body_mass", self._nominal["body_mass"] * mass)
            write("body_inertia", self._nominal["body_inertia"] * mass.unsqueeze(-1))
        if c.friction_scale:
            friction = self._nominal["geom_friction"].repeat(k, 1, 1)
            friction[..., 0] *= draw(c.friction_scale, 1)
            write("geom_friction", friction)
        if c.kp_scale or c.kd_scale:
            # A position servo is gain[0] u + bias[1] q + bias[2] dq, with gain[0] = kp, bias[1] = -kp, bias[2] = -kd.
            gain = self._nominal["actuator_gainprm"].repeat(k, 1, 1)
            bias = self._nominal["actuator_biasprm"].repeat(k, 1, 1)
            kp = draw(c.kp_scale or (1.0, 1.0), gain.shape[1])
            gain[..., 0] *= kp
            bias[..., 1] *= kp
            bias[..., 2] *= draw(c.kd_scale or (1.0, 1.0), gain.shape[1])
            write("actuator_gainprm", gain)
            write("actuator_biasprm", bias)
        for scale, name in self._per_dof():
            if scale:
                write(name, self._nominal[name] * draw(scale, len(self._nominal[name])))
        self._sim.apply_model(worlds)

    def _per_dof(self) -> tuple[tuple[Range | None, str], ...]:
        c = self._config
        return (
            (c.joint_damping_scale, "dof_damping"),
            (c.joint_frictionloss_scale, "dof_frictionloss"),
            (c.armature_scale, "dof_armature"),
        )
