"""Where a joint takes the tip of its chain: what somebody who looks at a robot can compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from robot_rl.robots.spec import Chain, RobotSpec

Array = NDArray[np.float64]


def tip_motion_m(robot: RobotSpec, joint: str, angle_rad: float) -> tuple[str, Array] | None:
    """Chain that `joint` is part of, and how its tip moves in the root body's frame when the joint turns by `angle_rad`
    from the default pose, (3,) m. None for a joint of no chain."""
    pose = {j.name: j.default_pos_rad for j in robot.joints}
    for chain in robot.chains:
        if any(link.joint == joint for link in chain.links):
            turned = pose | {joint: pose[joint] + angle_rad}
            return chain.name, tip_position_m(chain, turned) - tip_position_m(chain, pose)
    return None


def tip_position_m(chain: Chain, pose: Mapping[str, float]) -> Array:
    """(3,) m, of the chain's tip in the root body's frame, at `pose`: joint -> rad."""
    position, rotation = np.zeros(3), np.eye(3)
    for link in chain.links:
        position = position + rotation @ np.array(link.pos_m)
        half = 0.5 * pose[link.joint]
        turn = (math.cos(half), *(math.sin(half) * np.array(link.axis) / np.linalg.norm(link.axis)))
        rotation = rotation @ _matrix(link.quat_wxyz) @ _matrix(turn)
    return position + rotation @ np.array(chain.tip_pos_m)


def _matrix(quat_wxyz: Sequence[float]) -> Array:
    w, x, y, z = np.array(quat_wxyz) / np.linalg.norm(quat_wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
