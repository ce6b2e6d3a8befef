"""What the feet do: sensors in the model, and for how long each foot has stood or swung."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from robot_rl_sim.backends.batch_sim import BatchSim

_SOLE_M = (0.035, 0.0, -0.035)
"""Middle of the sole, in the frame of the ankle roll link: between the contact spheres, at their lowest point."""
_SIDES = ("left", "right")
_SENSORS = {
    "pos": (mujoco.mjtSensor.mjSENS_FRAMEPOS, 3),
    "vel": (mujoco.mjtSensor.mjSENS_FRAMELINVEL, 3),
    "contact": (mujoco.mjtSensor.mjSENS_CONTACT, 1),
}


def add_foot_sensors(spec: mujoco.MjSpec) -> None:
    """Position and velocity of each sole in the world, and the number of contacts of each foot with the ground."""
    for side in _SIDES:
        body = f"{side}_ankle_roll_link"
        spec.body(body).add_site(name=f"{side}_sole", pos=_SOLE_M)
        for name, (kind, _) in _SENSORS.items():
            sensor = spec.add_sensor(name=f"{side}_sole_{name}", type=kind)
            if name == "contact":
                sensor.objtype, sensor.objname = mujoco.mjtObj.mjOBJ_BODY, body
                sensor.reftype, sensor.refname = mujoco.mjtObj.mjOBJ_BODY, "world"
                # What to report (how many were found), how to reduce many contacts (not), and how many slots.
                sensor.intprm[:3] = [1, 0, 1]
            else:
                sensor.objtype, sensor.objname = mujoco.mjtObj.mjOBJ_SITE, f"{side}_sole"


def round_soles(spec: mujoco.MjSpec, radius_m: float) -> None:
    """Make the soles' contact spheres larger, their lowest points staying where they are.

    A height field collides as one prism for each half cell. The flanks of prisms inside the field push sideways what
    sinks in by as much as its radius; a larger sphere hardly feels them.
    """
    for geom in spec.geoms:
        if geom.name.startswith(tuple(f"{side}_foot" for side in _SIDES)):
            geom.pos[2] += radius_m - geom.size[0]
            geom.size = [radius_m, 0.0, 0.0]


class Feet:
    """Reads the sensors of `add_foot_sensors`, left foot first. `state` has each foot's mode and its age."""

    def __init__(self, num_worlds: int, device: torch.device | str) -> None:
        self.state = {
            "standing": torch.ones(num_worlds, 2, dtype=torch.bool, device=device),
            "mode_s": torch.zeros(num_worlds, 2, device=device),
        }

    def read(self, sim: BatchSim) -> tuple[Tensor, Tensor, Tensor]:
        """Position (n, 2, 3) m and velocity (n, 2, 3) m/s of the soles in the world, and contact (n, 2) bool."""
        values = torch.cat([sim.sensor(f"{side}_sole_{name}") for name in _SENSORS for side in _SIDES], -1).float()
        return values[:, :6].unflatten(-1, (2, 3)), values[:, 6:12].unflatten(-1, (2, 3)), values[:, 12:] > 0

    def update(self, contact: Tensor, period_s: float) -> Tensor:
        """Take note of contact (n, 2); returns for how long (n, 2) s each foot has been as it is, at least a step."""
        mode_s, standing = self.state["mode_s"], self.state["standing"]
        mode_s.mul_(contact == standing).add_(period_s)
        standing.copy_(contact)
        return mode_s

    def reset(self, worlds: Tensor) -> None:
        self.state["standing"][worlds] = True
        self.state["mode_s"][worlds] = 0.0
