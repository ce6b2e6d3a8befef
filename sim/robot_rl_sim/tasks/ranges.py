"""The usual ranges of randomisation, for the task table: importing this imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robot_rl_sim.randomization import RandomizationConfig


def usual() -> RandomizationConfig:
    from robot_rl_sim.randomization import RandomizationConfig

    return RandomizationConfig()
