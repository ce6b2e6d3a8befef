"""From simulation state to RobotState: what a robot's sensors make of what is true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from robot_rl.contract import RobotState
from robot_rl.errors import ConfigError
from robot_rl.networks.rotation import bilinear
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends.state_view import StateView
from robot_rl_sim.draws import Draws, gaussian
from robot_rl_sim.sensor_config import ORIENTATIONS, SensorConfig, SensorsConfig
from robot_rl_sim.sensor_readings import COMPUTED, OBJECT, Now, error_mirror, make_readings
from robot_rl_sim.sensor_timing import Timing

# Entry [3 i + j, k]: what q_i r_j adds to component k of q (0, r) / 2, for q = (w, x, y, z).
_TURN = torch.zeros(4, 3, 4)
_TURN[0, [0, 1, 2], [1, 2, 3]] = 0.5
_TURN[[1, 2, 3], [0, 1, 2], 0] = -0.5
_TURN[[1, 2, 3], [1, 2, 0], [3, 1, 2]] = 0.5
_TURN[[2, 3, 1], [0, 1, 2], [3, 1, 2]] = -0.5
_TURN = _TURN.flatten(0, 1)


class Sensors:
    """All sensors of every world.

    A reading is the newest sample that has arrived: sampled `period_s` apart from the start of the episode on, each
    true value of its own physics step with its own error, and held until the next one arrives. What an episode draws
    is in `draws`; what else must be kept is in `state`.
    """

    def __init__(
        self,
        now: Now,
        robot: RobotSpec,
        fields: tuple[str, ...],
        config: SensorsConfig,
        draws: Draws,
        object_body: str | None = None,
    ) -> None:
        """`fields` of RobotState are read (see sensor_readings); the others stay None, but for the joints, which always
        are. Raises ConfigError for a field that no sensor reads.
        """
        readings = make_readings(now, robot, object_body)
        unknown = [f for f in fields if f not in readings]
        if unknown:
            raise ConfigError(f"no sensor for {unknown}; valid: {', '.join(readings)}")
        # Orientations last, so that the errors of all others can be added at once.
        wanted = sorted(dict.fromkeys(("joint_pos", "joint_vel", *fields)), key=lambda f: f in ORIENTATIONS)
        self._now = now
        self._draws = draws
        self._readings = {f: readings[f] for f in wanted}
        self._configs: dict[str, SensorConfig] = {f: getattr(config, f) for f in wanted}
        self._sizes = {f: reading(now).shape[-1] for f, reading in self._readings.items()}
        self._linear = [f for f in wanted if f not in ORIENTATIONS]
        self._turned = [f for f in wanted if f in ORIENTATIONS]

        # One column of errors per number that is read; three per orientation.
        self._error_sizes = [3 if f in ORIENTATIONS else self._sizes[f] for f in wanted]
        self._noise, self._resolution = self._row("noise"), self._row("resolution")
        self._gaussian = self._row("distribution", lambda kind: kind == "gaussian")
        self._distributions = {c.distribution for c in self._configs.values() if c.noise}
        self._errors_drawn = len(self._noise) if self._distributions else 0
        self._coarse = bool(self._resolution.any())
        self._turn = _TURN.to(now.device)
        self._bias_columns = {
            f: draws.add(f"sensor/{f}/bias", error_mirror(f, robot)) for f, c in self._configs.items() if c.bias
        }
        self._bias = torch.zeros(now.num_worlds if self._bias_columns else 1, len(self._noise), device=now.device)

        late = {f: c for f, c in self._configs.items() if c.late}
        # One message for all of the robot's own sensors, another for the camera's.
        kinds = list(dict.fromkeys(f in OBJECT for f in late))
        messages = {f: kinds.index(f in OBJECT) for f in late}
        timestep_s = float(now.model.opt.timestep)
        self._timing = (
            Timing(late, self._sizes, messages, timestep_s, now.num_worlds, draws, now.device) if late else None
        )

    def _row(self, name: str, convert: Callable[[Any], Any] = lambda value: value) -> Tensor:
        """A setting of every sensor, for each of its columns of errors."""
        values = torch.tensor([convert(getattr(c, name)) for c in self._configs.values()])
        return values.repeat_interleave(torch.tensor(self._error_sizes)).to(self._now.device)

    @property
    def state(self) -> dict[str, Tensor]:
        """The live tensors that reading goes by."""
        bias = {"bias": self._bias} if self._bias_columns else {}
        return bias | (self._timing.state if self._timing else {})

    @property
    def late(self) -> bool:
        """Whether `update` must be told of every physics step."""
        return self._timing is not None

    @property
    def joint_bias(self) -> Tensor | None:
        """(num_worlds, n_joints) rad by which every joint is measured too large, and regulated too small."""
        return self._bias[:, : self._sizes["joint_pos"]] if self._configs["joint_pos"].bias else None

    @property
    def sample_steps(self) -> Tensor:
        """(num_worlds,) physics steps from the start of the episode to the oldest sample in the last reading of the
        robot's own late sensors."""
        return self._oldest_sample(lambda field: field not in OBJECT)

    @property
    def object_late(self) -> bool:
        """Whether the object may be seen later than it is there."""
        return self._timing is not None and any(field in OBJECT for field in self._timing.fields)

    @property
    def object_sample_steps(self) -> Tensor:
        """(num_worlds,) likewise to the picture in which the object was seen."""
        return self._oldest_sample(lambda field: field in OBJECT)

    def _oldest_sample(self, which: Callable[[str], bool]) -> Tensor:
        assert self._timing is not None
        columns = [i for i, field in enumerate(self._timing.fields) if which(field)]
        return self._timing.state["sample"][:, columns].amin(1)

    def arrived(self) -> Tensor:
        """(num_worlds,) bool: a first sample of every late sensor has had the time to arrive."""
        assert self._timing is not None
        return self._timing.arrived()

    @property
    def computed(self) -> bool:
        """Whether what is read is more than positions and speeds: physics must compute it."""
        return any(f in COMPUTED for f in self._readings)

    def reset(self, worlds: Tensor, states: StateView | None = None) -> None:
        """New episodes begin in `worlds` (k,) from `states` (k, ...), by default those that the physics has: they are
        set and their draws drawn."""
        if self._bias_columns:
            drawn = self._draws.values[worlds]
            zero = drawn.new_zeros(len(worlds), 1)
            columns = [
                _bias(self._configs[f], drawn[:, self._bias_columns[f]])
                if f in self._bias_columns
                else zero.expand(-1, size)
                for f, size in zip(self._readings, self._error_sizes, strict=True)
            ]
            self._bias.index_copy_(0, worlds, torch.cat(columns, 1))
        if self._timing:
            self._timing.reset(worlds, self._true(self._now)[worlds] if states is None else self._true(states))

    def update(self, trace: StateView) -> None:
        """Take in the states after each of the physics steps since the last call, (n, k, ...) each."""
        if self._timing:
            self._timing.update(self._true(trace))

    def _true(self, states: Now | StateView) -> Tensor:
        """What the late sensors measure, (n, width) or (n, k, width)."""
        assert self._timing is not None
        return torch.cat([self._readings[f](states).float() for f in self._timing.fields], -1)

    def read(self, generator: torch.Generator, worlds: Tensor | None = None) -> RobotState[Tensor]:
        """State of `worlds` (k,), or of all, in float32. `stamp_s` is zero: see `sample_steps`."""
        k = self._now.num_worlds if worlds is None else len(worlds)
        drawn = torch.rand(k, self.draws, generator=generator, device=self._now.device)
        self.draw_normal(drawn, generator)
        return self.reading(drawn, worlds)

    @property
    def draws(self) -> int:
        """How many numbers `reading` is given for each world: one per number that is read, unless nothing is noisy, and
        what timing needs."""
        return self._errors_drawn + (self._timing.draws if self._timing else 0)

    def draw_normal(self, drawn: Tensor, generator: torch.Generator) -> None:
        """Of `drawn` (..., draws), uniform in [0, 1), draw anew in place what is to be normally distributed."""
        if "gaussian" in self._distributions:
            errors = drawn[..., : self._errors_drawn]
            normal = torch.randn(errors.shape, generator=generator, device=errors.device)
            errors.copy_(torch.where(self._gaussian, normal, errors))

    def reading(
        self, drawn: Tensor, worlds: Tensor | None = None, states: StateView | None = None
    ) -> RobotState[Tensor]:
        """`read`, by `drawn` (k, draws) in [0, 1), after `draw_normal`; of `states` (k, ...) of `worlds`, or of those
        that the physics has."""
        errors, timing = drawn.tensor_split((self._errors_drawn,), 1)
        if self._distributions:
            errors = torch.where(self._gaussian, errors, 2 * errors - 1)
        late = self._timing.fields if self._timing else ()
        true = {f: reading(states or self._now) for f, reading in self._readings.items() if f not in late}
        if worlds is not None and states is None:
            true = {f: value[worlds] for f, value in true.items()}
        if self._timing is None:
            fields = self._with_errors(true, errors, worlds)
        else:
            samples, fresh = self._timing.sample(timing, worlds)
            fields = self._with_errors(true | samples, errors, worlds)
            fields |= self._timing.hold(fields, fresh, worlds)
        return RobotState(stamp_s=torch.zeros(len(fields["joint_pos"]), device=self._now.device), **fields)

    def _with_errors(self, true: dict[str, Tensor], drawn: Tensor, worlds: Tensor | None) -> dict[str, Tensor]:
        """What is read where `true` is, with errors `drawn` (k, columns)."""
        values = torch.cat([true[f] for f in self._linear], 1).float()
        error, width = self._errors(drawn, worlds), values.shape[1]
        values = values + error[:, :width]
        if self._coarse:
            step = self._resolution[:width]
            values = torch.where(step > 0, torch.round(values / step) * step, values)
        fields = dict(zip(self._linear, values.split([self._sizes[f] for f in self._linear], 1), strict=True))
        for i, f in enumerate(self._turned):
            quat, config = true[f].float(), self._configs[f]
            turn = error[:, width + 3 * i :][:, :3]
            fields[f] = _turned(quat, turn, self._turn) if config.noise or config.bias else quat
        return fields

    def _errors(self, drawn: Tensor, worlds: Tensor | None) -> Tensor:
        """(k, columns), or (1, columns)."""
        bias = self._bias if worlds is None or not self._bias_columns else self._bias[worlds]
        return torch.addcmul(bias, drawn, self._noise) if self._distributions else bias


def _bias(config: SensorConfig, drawn: Tensor) -> Tensor:
    return config.bias * (gaussian(drawn) if config.distribution == "gaussian" else drawn)


def _turned(quat: Tensor, rotation: Tensor, form: Tensor) -> Tensor:
    """A body's orientation (n, 4), off by a small rotation (n, 3) rad about its own axes: times (1, rotation / 2)."""
    return normalize(quat + bilinear(quat, rotation, form), dim=-1)
