"""LeapOptions: `driver.options` of a LEAP hand's unit file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from robot_rl.errors import ConfigError
from robot_rl.robots.unit import UnitConfig
from robot_rl_hardware.dynamixel_x import MOST_GAIN, WATCHDOG_STEP_S

_RANGES = {
    "baud": (9_600, 4_000_000),
    "current_limit_ma": (1, 1_750),
    "damp_current_ma": (0, 1_750),
    "p_gain": (1, MOST_GAIN),
    "d_gain": (1, MOST_GAIN),
    "watchdog_s": (WATCHDOG_STEP_S, 127 * WATCHDOG_STEP_S),
    "reply_timeout_s": (0.001, 0.5),
}


@dataclass(frozen=True)
class LeapOptions:
    """How the servos are reached and how strong they are. Gains and currents of the hand: leap-hand/LEAP_Hand_API."""

    port: str
    """Serial port; names under /dev/serial/by-id stay the same."""
    baud: int = 4_000_000
    current_limit_ma: int = 350
    """Goal current. The hand's authors advise 350 with XL330 servos, 550 with XC330."""
    damp_current_ma: int = 100
    p_gain: int = 600
    """Position P gain register at the robot's own kp. Its unit is the servo's; the value is the hand's authors'."""
    d_gain: int = 200
    """Position D gain register at the robot's own kd."""
    watchdog_s: float = 0.2
    """Servos stop by themselves after this long without a packet; in steps of 20 ms."""
    reply_timeout_s: float = 0.02
    """How long an answer may take beyond its own length on the wire."""

    def __post_init__(self) -> None:
        if not isinstance(self.port, str):
            raise ConfigError(f"driver option port must be text, got {self.port!r}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            kinds = (int,) if isinstance(low, int) else (int, float)
            if type(value) not in kinds or not low <= value <= high:
                raise ConfigError(
                    f"driver option {name} must be {kinds[-1].__name__} in [{low}, {high}], got {value!r}"
                )
        if self.damp_current_ma > self.current_limit_ma:
            raise ConfigError(
                f"damp_current_ma {self.damp_current_ma} exceeds current_limit_ma {self.current_limit_ma}"
            )


def options_of(unit: UnitConfig) -> LeapOptions:
    """The unit's driver options. Raises ConfigError naming what is unknown, missing or out of range."""
    valid = ", ".join(f.name for f in dataclasses.fields(LeapOptions))
    unknown = sorted(set(unit.options) - {f.name for f in dataclasses.fields(LeapOptions)})
    if unknown:
        raise ConfigError(f"unit {unit.serial!r}: unknown driver option {unknown[0]!r}; valid: {valid}")
    if "port" not in unit.options:
        raise ConfigError(f"unit {unit.serial!r}: driver.options.port is missing; valid: {valid}")
    return LeapOptions(**unit.options)
