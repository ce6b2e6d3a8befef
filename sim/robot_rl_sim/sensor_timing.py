"""Which sample of each sensor has arrived by now: delay, jitter, rate and loss."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from robot_rl_sim.draws import Draws
from robot_rl_sim.sensor_config import SensorConfig

Fields = dict[str, Tensor]


class Timing:
    """The late sensors of every world: their true values in the past, and what of them has been read.

    Times are physics steps since the start of the episode. Sensors of one message draw the same delay, jitter and loss.
    What must be kept is in `state`.
    """

    def __init__(
        self,
        configs: Mapping[str, SensorConfig],
        sizes: Mapping[str, int],
        messages: Mapping[str, int],
        timestep_s: float,
        num_worlds: int,
        draws: Draws,
        device: torch.device,
    ) -> None:
        """Per late sensor: configuration, width, and which message (0, 1, ...) brings it."""
        self.fields = tuple(configs)
        self._sizes = [sizes[f] for f in self.fields]
        self._holding = [f for f in self.fields if configs[f].holds]
        self._held_sizes = [sizes[f] for f in self._holding]
        each = list(configs.values())

        def steps(values: list[float], least: int) -> Tensor:
            return torch.tensor([max(least, round(v / timestep_s)) for v in values], device=device)

        self._period = steps([c.period_s for c in each], 1)
        self._jitter = steps([c.jitter_s for c in each], 0)
        self._delay_range = tuple(
            torch.tensor([c.delay_s[end] / timestep_s for c in each], device=device) for end in (0, 1)
        )
        self._jitters = any(c.jitter_s for c in each)
        self._dropping = any(c.drop_probability for c in each)
        self._log_drop = torch.tensor([c.drop_probability for c in each], device=device).log()
        # Runs of drops that are longer than one in a million are cut off.
        self._most_drops = torch.ceil(math.log(1e-6) / self._log_drop)
        oldest = self._delay_range[1] + self._jitter + self._period * (2 + self._most_drops)

        self._num_messages = 1 + max(messages.values())
        self._message = torch.tensor([messages[f] for f in self.fields], device=device)
        self._draws = draws
        self._delay_columns: slice | None = None
        if any(c.delay_s[1] > c.delay_s[0] for c in each):
            self._delay_columns = draws.add("sensor/delay", [(i, 1) for i in range(self._num_messages)])

        n, width = num_worlds, len(self.fields)
        indices = torch.arange(width, device=device)
        self._field_of_column = indices.repeat_interleave(torch.tensor(self._sizes, device=device))
        ints = {"dtype": torch.int64, "device": device}
        self.state: Fields = {
            "history": torch.zeros(n, int(oldest.max()) + 1, sum(self._sizes), device=device),
            "clock": torch.zeros(n, 1, **ints),
            "delay": torch.zeros(n, width, **ints),
            "sample": torch.zeros(n, width, **ints),
        }
        if self._holding:
            self.state["seen"] = torch.zeros(n, width, **ints)
            self.state["held"] = torch.zeros(n, sum(self._held_sizes), device=device)

    def reset(self, worlds: Tensor, now: Tensor) -> None:
        """New episodes, whose draws are drawn, begin in `worlds` (k,) from true values `now` (k, width). Until samples
        of the episode arrive, its first state is read, as of a robot that stood there for long."""
        self.forget(worlds, now)
        low, high = self._delay_range
        middle = 0.5 * (low + high).expand(len(worlds), -1)
        if self._delay_columns is not None:
            drawn = self._draws.values[worlds][:, self._delay_columns][:, self._message]
            middle = middle + 0.5 * (high - low) * drawn
        self.state["delay"].index_copy_(0, worlds, torch.round(middle).to(torch.int64))
        for name in ("clock", "sample"):
            self.state[name][worlds] = 0
        if self._holding:
            self.state["seen"][worlds] = -1

    def forget(self, worlds: Tensor, now: Tensor) -> None:
        """Of `worlds` (k,), let the whole past be as the present, `now` (k, width)."""
        history = self.state["history"]
        history.index_copy_(0, worlds, now.unsqueeze(1).expand(-1, history.shape[1], -1))

    def update(self, new: Tensor) -> None:
        """Take in true values (n, steps, width) after each of the physics steps since the last call."""
        history = self.state["history"]
        history.copy_(torch.cat((history, new), 1)[:, -history.shape[1] :])
        self.state["clock"] += new.shape[1]

    def arrived(self) -> Tensor:
        """(n,) bool: a first sample of every sensor has had the time to arrive."""
        return (self.state["clock"] >= self.state["delay"]).all(1)

    @property
    def draws(self) -> int:
        """How many numbers `sample` is given for each world."""
        return self._num_messages * (self._jitters + self._dropping)

    def sample(self, drawn: Tensor, worlds: Tensor | None) -> tuple[Fields, Tensor]:
        """True values of the newest samples that have arrived, and whether each (k, n_fields) is a new one. All that is
        left to chance is in `drawn` (k, draws), in [0, 1)."""
        own = self.state if worlds is None else {name: value[worlds] for name, value in self.state.items()}
        sample = own["clock"] - own["delay"]
        fresh = sample >= 0
        if self._holding:
            newest = self._newest(sample, drawn)
            # Samples up to `seen` were there to be read the last time; of those since, all may have been dropped.
            sample = newest - self._drops(newest, drawn) * self._period
            fresh = sample.clamp(min=0) > own["seen"]
            sample = torch.where(fresh, sample, own["sample"])
            self._put("seen", torch.maximum(own["seen"], newest.clamp(min=0)), worlds)
        sample = sample.clamp(min=0)
        self._put("sample", sample, worlds)
        history = own["history"]
        row = (history.shape[1] - 1 + sample - own["clock"]).clamp(min=0)
        values = history.gather(1, row[:, self._field_of_column].unsqueeze(1)).squeeze(1)
        return dict(zip(self.fields, values.split(self._sizes, 1), strict=True)), fresh

    def hold(self, read: Fields, fresh: Tensor, worlds: Tensor | None) -> Fields:
        """Of what was read, the fields that may be held: where they are not fresh, as they were read before."""
        if not self._holding:
            return {}
        held = self.state["held"] if worlds is None else self.state["held"][worlds]
        kept = {
            f: torch.where(fresh[:, self.fields.index(f), None], read[f], before)
            for f, before in zip(self._holding, held.split(self._held_sizes, 1), strict=True)
        }
        self._put("held", torch.cat(list(kept.values()), 1), worlds)
        return kept

    def _newest(self, arrived: Tensor, drawn: Tensor) -> Tensor:
        """The newest sample (k, n_fields) that would have arrived by now if none were dropped."""
        if self._jitters:
            arrived = arrived - torch.round(drawn[:, self._message] * self._jitter).to(torch.int64)
        return torch.div(arrived, self._period, rounding_mode="floor") * self._period

    def _drops(self, newest: Tensor, drawn: Tensor) -> Tensor:
        """How many samples (k, n_fields) in a row, from the newest on, were dropped: at least i with drop^i."""
        if not self._dropping:
            return torch.zeros_like(newest)
        runs = torch.log(drawn[:, -self._num_messages :][:, self._message].clamp(min=1e-9)) / self._log_drop
        return torch.minimum(runs.floor(), self._most_drops).to(torch.int64)

    def _put(self, name: str, value: Tensor, worlds: Tensor | None) -> None:
        if worlds is None:
            self.state[name].copy_(value)
        else:
            self.state[name].index_copy_(0, worlds, value)
