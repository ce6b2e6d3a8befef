"""Where failing states come from: what is done to a policy until the robot trips or falls. SOURCES is the list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

from robot_rl.robots import RobotSpec
from robot_rl_sim.randomization import RandomizationConfig
from robot_rl_sim.sensor_config import SensorsConfig

PUSHED_M_S = (0.5, 1.5)
WIDENED = 3.0
NOISE = 2.0
DELAY_S = (0.02, 0.06)
DROPPED = 0.3

Driver = Literal["policy", "random", "still"]


@dataclass(frozen=True, slots=True)
class Source:
    """One way to get a robot into trouble."""

    name: str
    words: str
    """For the card."""
    change: Callable[[RandomizationConfig], RandomizationConfig]
    """What becomes of the randomisation that the policy was trained with."""
    driver: Driver = "policy"
    """Whose actions are played: the bundle's; random ones; or none, so that the servos hold the default pose."""
    stops: bool = False
    """The policy stops at a random moment, whatever the robot does then; else only trips of the safety filter and falls
    count."""
    floating_only: bool = False


def _widened(config: RandomizationConfig) -> RandomizationConfig:
    """Every range of the dynamics, widened about its middle; scales stay above a tenth."""
    changes = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if not isinstance(value, tuple) or f.name in ("push_speed_m_s", "push_interval_steps"):
            continue
        middle, half = (value[0] + value[1]) / 2, WIDENED * (value[1] - value[0]) / 2
        least = -float("inf") if value[0] < 0 else 0.1 if f.name.endswith("_scale") else 0.0
        changes[f.name] = (max(middle - half, least), middle + half)
    return replace(config, **changes)


def _poor_sensors(config: RandomizationConfig) -> RandomizationConfig:
    sensors: SensorsConfig = config.sensors.timed(delay_s=DELAY_S, drop_probability=DROPPED)
    noisy = {f.name: replace(s, noise=NOISE * s.noise) for f in fields(sensors) if (s := getattr(sensors, f.name))}
    return replace(config, sensors=SensorsConfig(**noisy))


def _pushed(config: RandomizationConfig) -> RandomizationConfig:
    return replace(config, push_speed_m_s=PUSHED_M_S)


def _same(config: RandomizationConfig) -> RandomizationConfig:
    return config


SOURCES: tuple[Source, ...] = (
    Source("policy stops", "in ordinary operation the policy stops answering at a random moment", _same, stops=True),
    Source(
        "policy gone wrong",
        "random actions, each for 0.1 s, until the safety filter trips or at most for a second",
        _same,
        driver="random",
        stops=True,
    ),
    Source("pushes", f"pushes of {PUSHED_M_S[0]:g} to {PUSHED_M_S[1]:g} m/s", _pushed,
           floating_only=True),
    Source("other dynamics", f"every range of the dynamics {WIDENED:g} times as wide as in training", _widened),
    Source(
        "poor sensors",
        f"{NOISE:g} times the noise, {1e3 * DELAY_S[0]:g} to {1e3 * DELAY_S[1]:g} ms late, {DROPPED:.0%} lost",
        _poor_sensors,
    ),
    Source("standing still", "servos hold the default pose, without any policy, under the task's own pushes", _same,
           driver="still", floating_only=True),
)  # fmt: skip


def sources_for(robot: RobotSpec) -> tuple[Source, ...]:
    return tuple(s for s in SOURCES if robot.floating_base or not s.floating_only)
