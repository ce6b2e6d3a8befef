"""A double of Isaac Gym (see isaacgym/__init__.py), and IsaacGymSim on it, in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco

from robot_rl.robots import RobotSpec
from robot_rl_sim.backends import isaac_gym_worker
from robot_rl_sim.backends.isaac_gym import IsaacGymSim

FOLDER = Path(__file__).parent
"""On the path of a worker process, `import isaacgym` gives the double."""


class Local:
    """A worker without a process."""

    def __init__(self, config: dict[str, Any]) -> None:
        if str(FOLDER) not in sys.path:
            sys.path.append(str(FOLDER))
        Path(config["shared"]).touch()
        self.config = config
        self.arrays = isaac_gym_worker.shared_arrays(config["shared"], config["sizes"])

    def request(self, do: str, worlds: Sequence[int]) -> None:
        if do == "start":
            self.worlds = isaac_gym_worker.Worlds(self.config, self.arrays)
        elif do == "step":
            self.worlds.step(worlds)
        else:
            self.worlds.set_properties(worlds)


def make_sim(
    model: mujoco.MjModel, robot: RobotSpec, num_worlds: int, substeps: int, device: str = "cpu"
) -> IsaacGymSim:
    return IsaacGymSim(model, robot, num_worlds, substeps, device, Local)
