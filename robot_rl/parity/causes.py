"""What can be wrong with a signal: kinds of mistakes, their prices, and the units that are mixed up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

ANGLES = {
    180 / math.pi: "degrees for radians",
    math.pi / 180: "radians for degrees",
    1 / (2 * math.pi): "turns for radians",
    2 * math.pi: "radians for turns",
    1e3: "milliradians for radians",
    1e-3: "radians for milliradians",
}
RATES = ANGLES | {60 / (2 * math.pi): "rpm for rad/s", 2 * math.pi / 60: "rad/s for rpm"}
ACCELERATIONS = {1 / 9.80665: "g for m/s²", 9.80665: "m/s² for g", 1e3: "mm/s² for m/s²", 1000 / 9.80665: "mg for m/s²"}
ALL_UNITS = RATES | ACCELERATIONS
"""Factor by which a value comes out too large -> what was given for what was asked for."""

PRICE = 12.0
"""Of a mistake, in units of N log(squared error): odds of exp(6) against it before the data speak."""
PRICES = {"scale": 1.5, "offset": 1.5, "unclear": 1.5}
"""In units of PRICE, where not 1: a number that may be anything explains more than a sign, and must pay for it."""


VAGUE = ("limits", "unclear")
"""Kinds that say where something is wrong, and not what."""


@dataclass(frozen=True)
class Tolerance:
    """Of one signal: what a good robot's model error and calibration make of it; differences below are no mistakes."""

    factor: float
    """Largest ratio of a scale to 1."""
    offset: float
    """In the signal's unit."""
    floor: float
    """Standard deviation below which an error is nothing, in the signal's unit."""
    units: Mapping[float, str]
    """Those it may come in by mistake, of ALL_UNITS."""


@dataclass(frozen=True)
class Cause:
    """One mistake: `signal` is what `kind` makes of it, in `channels` (empty: in all)."""

    kind: str
    """permutation, sign, scale, offset, unit, lag, quaternion_order, quaternion_conjugate or frame. Or one of
    VAGUE: "limits", where joints are said to be where they cannot be; "unclear", where a sign,
    a scale or an offset explain what is seen equally well, or two orders of several channels."""
    signal: str
    channels: tuple[int, ...] = ()
    value: float = 0.0
    """Factor of a scale or unit, offset, or lag in s."""
    sources: tuple[int, ...] = ()
    """Of a permutation: the channel whose value stands in each of `channels`."""

    @property
    def price(self) -> float:
        return PRICE * PRICES.get(self.kind, 1.0)

    def renumbered(self, channels: list[int]) -> Cause:
        """The same where channel k was `channels[k]` of a longer list."""
        return replace(
            self, channels=tuple(channels[i] for i in self.channels), sources=tuple(channels[i] for i in self.sources)
        )


def price(causes: Iterable[Cause]) -> float:
    return sum(cause.price for cause in causes)
