"""From simulation state to RobotState: which quantity each sensor reads, and what it makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import mujoco
import torch
from torch import Tensor
from torch.nn.functional import normalize

from robot_rl.contract import RobotState
from robot_rl.errors import ConfigError
from robot_rl.networks.rotation import conjugate, in_body, multiply
from robot_rl.replay.mirror import Entries
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends.state_view import StateView
from robot_rl_sim.draws import Draws, gaussian
from robot_rl_sim.sensor_config import ORIENTATIONS, SensorConfig, SensorsConfig
from robot_rl_sim.symmetry import DIRECTION, ROTATION, joint_entries

# Entry [3 i + j, k]: what q_i r_j adds to component k of q (0, r) / 2, for q = (w, x, y, z).
_TURN = torch.zeros(4, 3, 4)
_TURN[0, [0, 1, 2], [1, 2, 3]] = 0.5
_TURN[[1, 2, 3], [0, 1, 2], 0] = -0.5
_TURN[[1, 2, 3], [1, 2, 0], [3, 1, 2]] = 0.5
_TURN[[2, 3, 1], [0, 1, 2], [3, 1, 2]] = -0.5
_TURN = _TURN.flatten(0, 1)

_JOINTS = ("joint_pos", "joint_vel", "joint_effort")
_OBJECT = ("object_pos", "object_quat_wxyz")


class Now(Protocol):
    """Where the true values come from, as live tensors: a BatchSim, or a StateView of one state of each world."""

    model: mujoco.MjModel
    qpos: Tensor
    qvel: Tensor

    @property
    def num_worlds(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def joint_pos(self) -> Tensor: ...

    @property
    def joint_vel(self) -> Tensor: ...

    @property
    def joint_effort(self) -> Tensor: ...

    def sensor(self, name: str) -> Tensor: ...

    def free_joint(self, body: str) -> tuple[Tensor, Tensor]: ...


Reading = Callable[[Now | StateView], Tensor]


class Sensors:
    """All sensors of every world. The IMU is that of the base, and its frame is the base's.

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
        """`fields` of RobotState are read; the others stay None, but for the joints, which always are.

        `object_body` is what the camera sees, a body with a free joint. Raises ConfigError for a field that no sensor
        reads.
        """
        readings = _readings(now, robot, object_body)
        unknown = [f for f in fields if f not in readings]
        if unknown:
            raise ConfigError(f"no sensor for {unknown}; valid: {', '.join(readings)}")
        # Orientations last, so that the errors of all others can be added at once.
        wanted = sorted(dict.fromkeys(("joint_pos", "joint_vel", *fields)), key=lambda f: f in ORIENTATIONS)
        self._now = now
        self._readings = {f: readings[f] for f in wanted}
        self._configs: dict[str, SensorConfig] = {f: getattr(config, f) for f in wanted}
        self._sizes = {f: reading(now).shape[-1] for f, reading in self._readings.items()}
        self._draws = draws
        self._set_up_errors(robot)
        self._set_up_timing()

    def _set_up_errors(self, robot: RobotSpec) -> None:
        """One column of errors per number that is read; three per orientation."""
        device = self._now.device
        sizes = {f: 3 if f in ORIENTATIONS else n for f, n in self._sizes.items()}
        self._error_sizes = list(sizes.values())
        self._linear = [f for f in self._readings if f not in ORIENTATIONS]
        self._turned = [f for f in self._readings if f in ORIENTATIONS]

        def row(name: str) -> Tensor:
            values = [getattr(c, name) for c in self._configs.values()]
            return torch.tensor(values).repeat_interleave(torch.tensor(self._error_sizes)).to(device)

        self._noise, self._resolution = row("noise"), row("resolution")
        self._coarse = bool(self._resolution.any())
        gaussian_ = torch.tensor([c.distribution == "gaussian" for c in self._configs.values()])
        self._gaussian = gaussian_.repeat_interleave(torch.tensor(self._error_sizes)).to(device)
        self._distributions = {c.distribution for c in self._configs.values() if c.noise}
        self._bias_columns = {
            f: self._draws.add(f"sensor/{f}/bias", _mirror(f, robot, self._sizes[f]))
            for f, c in self._configs.items()
            if c.bias
        }
        self.state: dict[str, Tensor] = {}
        self._no_bias = torch.zeros(1, sum(self._error_sizes), device=device)
        if self._bias_columns:
            self.state["bias"] = torch.zeros(self._now.num_worlds, sum(self._error_sizes), device=device)

    def _set_up_timing(self) -> None:
        """History and clocks, if any sensor is late."""
        self._late = [f for f, c in self._configs.items() if c.late]
        self._holding = [f for f in self._late if self._configs[f].holds]
        if not self._late:
            return
        n, device = self._now.num_worlds, self._now.device
        dt = float(self._now.model.opt.timestep)
        configs = [self._configs[f] for f in self._late]

        def steps(values: list[float], least: int) -> Tensor:
            return torch.tensor([max(least, round(v / dt)) for v in values], device=device)

        self._period = steps([c.period_s for c in configs], 1)
        self._jitter = steps([c.jitter_s for c in configs], 0)
        self._delay_range = tuple(torch.tensor([c.delay_s[end] / dt for c in configs], device=device) for end in (0, 1))
        self._jitters = any(c.jitter_s for c in configs)
        self._dropping = any(c.drop_probability for c in configs)
        self._log_drop = torch.tensor([c.drop_probability for c in configs], device=device).log()
        # Runs of drops that are longer than one in a million are cut off.
        self._most_drops = torch.ceil(math.log(1e-6) / self._log_drop)
        oldest = self._delay_range[1] + self._jitter + self._period * (2 + self._most_drops)
        # One message for all of the robot's own sensors, another for the camera's.
        messages = list(dict.fromkeys(f in _OBJECT for f in self._late))
        self._message = torch.tensor([messages.index(f in _OBJECT) for f in self._late], device=device)
        self._num_messages = len(messages)
        self._delay_columns: slice | None = None
        if any(c.delay_s[1] > c.delay_s[0] for c in configs):
            self._delay_columns = self._draws.add("sensor/delay", [(i, 1) for i in range(len(messages))])
        self._late_sizes = [self._sizes[f] for f in self._late]
        fields = torch.arange(len(self._late), device=device)
        self._field_of_column = fields.repeat_interleave(torch.tensor(self._late_sizes, device=device))
        ints = {"dtype": torch.int64, "device": device}
        self.state |= {
            "history": torch.zeros(n, int(oldest.max()) + 1, sum(self._late_sizes), device=device),
            "clock": torch.zeros(n, 1, **ints),
            "delay": torch.zeros(n, len(self._late), **ints),
            "sample": torch.zeros(n, len(self._late), **ints),
        }
        if self._holding:
            self.state["seen"] = torch.zeros(n, len(self._late), **ints)
            self.state["held"] = torch.zeros(n, sum(self._sizes[f] for f in self._holding), device=device)

    @property
    def late(self) -> bool:
        """Whether `update` must be told of every physics step."""
        return bool(self._late)

    @property
    def joint_bias(self) -> Tensor | None:
        """(num_worlds, n_joints) rad by which every joint is measured too large, and regulated too small."""
        return self.state["bias"][:, : self._sizes["joint_pos"]] if self._configs["joint_pos"].bias else None

    @property
    def sample_steps(self) -> Tensor:
        """(num_worlds,) physics steps from the start of the episode to the oldest sample in the last reading."""
        return self.state["sample"].amin(1) if self._late else self.state["clock"][:, 0]

    def arrived(self) -> Tensor:
        """(num_worlds,) bool: a first sample of every sensor has had the time to arrive."""
        return (self.state["clock"] >= self.state["delay"]).all(1)

    def reset(self, worlds: Tensor) -> None:
        """New episodes begin in `worlds` (k,): their states are set and their draws drawn. Until samples of the episode
        arrive, its first state is read, as of a robot that stood there for long."""
        drawn = self._draws.values[worlds]
        if self._bias_columns:
            zeros = drawn.new_zeros(len(worlds), 1)
            columns = [
                _bias(self._configs[f], drawn[:, self._bias_columns[f]])
                if f in self._bias_columns
                else zeros.expand(-1, size)
                for f, size in zip(self._readings, self._error_sizes, strict=True)
            ]
            self.state["bias"].index_copy_(0, worlds, torch.cat(columns, 1))
        if not self._late:
            return
        self.forget(worlds)
        self.state["delay"].index_copy_(0, worlds, self._delays(drawn))
        for name in ("clock", "sample"):
            self.state[name][worlds] = 0
        if self._holding:
            self.state["seen"][worlds] = -1

    def forget(self, worlds: Tensor) -> None:
        """Of `worlds` (k,), let the whole past be as the present."""
        if self._late:
            now = torch.cat([self._readings[f](self._now)[worlds].float() for f in self._late], 1)
            history = self.state["history"]
            history.index_copy_(0, worlds, now.unsqueeze(1).expand(-1, history.shape[1], -1))

    def _delays(self, drawn: Tensor) -> Tensor:
        """(k, late fields) physics steps, of new episodes whose draws are given."""
        low, high = self._delay_range
        u = drawn.new_zeros(len(drawn), 1) if self._delay_columns is None else drawn[:, self._delay_columns]
        if self._delay_columns is not None:
            u = u[:, self._message]
        return torch.round(0.5 * (low + high) + 0.5 * (high - low) * u).to(torch.int64)

    def update(self, trace: StateView) -> None:
        """Take in the states after each of the physics steps since the last call, (n, k, ...) each."""
        new = torch.cat([self._readings[f](trace).float() for f in self._late], -1)
        history = self.state["history"]
        length = history.shape[1]
        self.state["history"] = torch.cat((history, new), 1)[:, -length:].contiguous()
        self.state["clock"] += new.shape[1]

    def read(self, generator: torch.Generator, worlds: Tensor | None = None) -> RobotState[Tensor]:
        """State of `worlds` (k,), or of all, in float32. `stamp_s` is zero: see `sample_steps`."""
        true = {f: reading(self._now) for f, reading in self._readings.items() if f not in self._late}
        true = {f: value if worlds is None else value[worlds] for f, value in true.items()}
        fresh = None
        if self._late:
            late, fresh = self._sample(generator, worlds)
            true |= late
        fields = self._with_errors(true, generator, worlds)
        if fresh is not None and self._holding:
            fields |= self._hold(fields, fresh, worlds)
        return RobotState(stamp_s=torch.zeros(len(fields["joint_pos"]), device=self._now.device), **fields)

    def _sample(self, generator: torch.Generator, worlds: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        """True values of the newest samples that have arrived, and whether each (k, late fields) is a new one."""
        own = self.state if worlds is None else {name: value[worlds] for name, value in self.state.items()}
        sample = own["clock"] - own["delay"]
        fresh = sample >= 0
        if self._holding:
            newest = self._newest(sample, generator)
            # Samples up to `seen` were there to be read the last time; of those since, all may have been dropped.
            sample = newest - self._drops(newest, generator) * self._period
            fresh = sample.clamp(min=0) > own["seen"]
            sample = torch.where(fresh, sample, own["sample"])
            _put(self.state, "seen", torch.maximum(own["seen"], newest.clamp(min=0)), worlds)
        sample = sample.clamp(min=0)
        _put(self.state, "sample", sample, worlds)
        history = own["history"]
        row = (history.shape[1] - 1 + sample - own["clock"]).clamp(min=0)
        values = history.gather(1, row[:, self._field_of_column].unsqueeze(1)).squeeze(1)
        return dict(zip(self._late, values.split(self._late_sizes, 1), strict=True)), fresh

    def _newest(self, arrived: Tensor, generator: torch.Generator) -> Tensor:
        """The newest sample (k, late fields) that would have arrived by now if none were dropped."""
        if self._jitters:
            arrived = arrived - torch.round(self._uniform(arrived, generator) * self._jitter).to(torch.int64)
        return torch.div(arrived, self._period, rounding_mode="floor") * self._period

    def _drops(self, newest: Tensor, generator: torch.Generator) -> Tensor:
        """How many samples (k, late fields) in a row, from the newest on, were dropped: at least i with drop^i."""
        if not self._dropping:
            return torch.zeros_like(newest)
        runs = torch.log(self._uniform(newest, generator).clamp(min=1e-9)) / self._log_drop
        return torch.minimum(runs.floor(), self._most_drops).to(torch.int64)

    def _uniform(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """(k, late fields), the same for fields of one message."""
        drawn = torch.rand(len(like), self._num_messages, generator=generator, device=like.device)
        return drawn[:, self._message]

    def _with_errors(
        self, true: dict[str, Tensor], generator: torch.Generator, worlds: Tensor | None
    ) -> dict[str, Tensor]:
        """What is read where `true` is."""
        values = torch.cat([true[f] for f in self._linear], 1).float()
        error, width = self._errors(len(values), generator, worlds), values.shape[1]
        values = values + error[:, :width]
        if self._coarse:
            step = self._resolution[:width]
            values = torch.where(step > 0, torch.round(values / step) * step, values)
        fields = dict(zip(self._linear, values.split([self._sizes[f] for f in self._linear], 1), strict=True))
        for i, f in enumerate(self._turned):
            quat, config = true[f].float(), self._configs[f]
            fields[f] = _turned(quat, error[:, width + 3 * i :][:, :3]) if config.noise or config.bias else quat
        return fields

    def _errors(self, n: int, generator: torch.Generator, worlds: Tensor | None) -> Tensor:
        """(n, columns). One draw for all: as many numbers in one call cost a fraction of what they do in several."""
        shape, device = (n, len(self._noise)), self._noise.device
        bias = self._no_bias
        if "bias" in self.state:
            bias = self.state["bias"] if worlds is None else self.state["bias"][worlds]
        if not self._distributions:
            return bias.expand(shape)
        drawn = torch.empty(shape, device=device)
        if "uniform" in self._distributions:
            drawn.uniform_(-1, 1, generator=generator)
        if "gaussian" in self._distributions:
            drawn = torch.where(self._gaussian, torch.randn(shape, generator=generator, device=device), drawn)
        return torch.addcmul(bias, drawn, self._noise)

    def _hold(self, fields: dict[str, Tensor], fresh: Tensor, worlds: Tensor | None) -> dict[str, Tensor]:
        """Readings that are not fresh give way to the last one of the same sensor."""
        held = self.state["held"] if worlds is None else self.state["held"][worlds]
        sizes = [self._sizes[f] for f in self._holding]
        kept = {
            f: torch.where(fresh[:, self._late.index(f), None], fields[f], before)
            for f, before in zip(self._holding, held.split(sizes, 1), strict=True)
        }
        _put(self.state, "held", torch.cat(list(kept.values()), 1), worlds)
        return kept


def _put(state: dict[str, Tensor], name: str, value: Tensor, worlds: Tensor | None) -> None:
    if worlds is None:
        state[name] = value
    else:
        state[name].index_copy_(0, worlds, value)


def _bias(config: SensorConfig, drawn: Tensor) -> Tensor:
    return config.bias * (gaussian(drawn) if config.distribution == "gaussian" else drawn)


def _turned(quat: Tensor, rotation: Tensor) -> Tensor:
    """A body's orientation (n, 4), off by a small rotation (n, 3) rad about its own axes.

    The product with (1, rotation / 2), written as a bilinear form: a few operations instead of a dozen.
    """
    products = quat.unsqueeze(-1) * rotation.unsqueeze(-2)
    return normalize(quat + products.flatten(1) @ _TURN.to(quat), dim=-1)


def _mirror(field: str, robot: RobotSpec, size: int) -> Entries:
    """The image of a sensor's errors with left and right exchanged."""
    if field in _JOINTS:
        return joint_entries(robot)
    return ROTATION if field in (*ORIENTATIONS, "imu_ang_vel_b") else DIRECTION


def _readings(now: Now, robot: RobotSpec, object_body: str | None) -> dict[str, Reading]:
    """What each sensor measures, of one state per world or of several."""
    readings: dict[str, Reading] = {
        "joint_pos": lambda s: s.joint_pos,
        "joint_vel": lambda s: s.joint_vel,
        "joint_effort": lambda s: s.joint_effort,
        "imu_quat_wxyz": lambda s: s.qpos[..., 3:7],
        "imu_ang_vel_b": lambda s: s.qvel[..., 3:6],
        "imu_lin_acc_b": lambda s: s.sensor("imu_acc"),
    }
    if object_body is None:
        return readings
    fixed = None if robot.floating_base else _fixed_pose(now.model, robot.root_body).to(now.qpos)

    def from_root(s: Now | StateView, convert: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        pose, _ = s.free_joint(object_body)
        root = s.qpos[..., :7] if fixed is None else fixed.expand_as(pose)
        return convert(pose.reshape(-1, 7), root.reshape(-1, 7)).reshape(*pose.shape[:-1], -1)

    def position(pose: Tensor, root: Tensor) -> Tensor:
        return in_body(pose[:, :3] - root[:, :3], root[:, 3:])

    def orientation(pose: Tensor, root: Tensor) -> Tensor:
        return multiply(conjugate(root[:, 3:]), pose[:, 3:])

    readings["object_pos"] = lambda s: from_root(s, position)
    readings["object_quat_wxyz"] = lambda s: from_root(s, orientation)
    return readings


def _fixed_pose(model: mujoco.MjModel, body: str) -> Tensor:
    """Position m and orientation (7,) in the world of a body that no joint moves."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    pose = data.body(body)
    return torch.cat((torch.from_numpy(pose.xpos.copy()), torch.from_numpy(pose.xquat.copy())))
