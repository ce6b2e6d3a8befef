"""Where a robot's tips are, and whether they are inside a box: forward kinematics in numpy, for the safety filter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec

Array = NDArray[np.float64]


class Workspace:
    """The box that no tip of a robot's chains may leave, in the frame of its root body.

    Raises ConfigError for a robot without chains.
    """

    def __init__(self, robot: RobotSpec, low_m: tuple[float, ...], high_m: tuple[float, ...]) -> None:
        if not robot.chains:
            raise ConfigError(f"robot {robot.name!r} has no chains, so that its workspace cannot be limited")
        self._low, self._high = np.array(low_m), np.array(high_m)
        index = {name: i for i, name in enumerate(robot.joint_names)}
        links = [link for chain in robot.chains for link in chain.links]
        self._joint = np.array([index[link.joint] for link in links])
        self._fixed = np.array([rotation(link.quat_wxyz) for link in links])
        axes = np.array([link.axis for link in links])
        self._cross = np.array([cross(axis / np.linalg.norm(axis)) for axis in axes])
        self._cross_squared = self._cross @ self._cross
        self._offset = [np.array(link.pos_m) for link in links]
        self._tip = [np.array(chain.tip_pos_m) for chain in robot.chains]
        ends = np.cumsum([len(chain.links) for chain in robot.chains]).tolist()
        self._chains = [range(end - len(chain.links), end) for chain, end in zip(robot.chains, ends, strict=True)]

    def tips(self, joint_pos: Array) -> Array:
        """(n_chains, 3) m for joint positions (n_joints,) rad."""
        q = joint_pos[self._joint, None, None]
        # Rodrigues: I + sin q [a] + (1 - cos q) [a]².
        turned = self._fixed @ (np.eye(3) + np.sin(q) * self._cross + (1.0 - np.cos(q)) * self._cross_squared)
        tips = []
        for chain, tip in zip(self._chains, self._tip, strict=True):
            position, rotation = np.zeros(3), np.eye(3)
            for link in chain:
                position = position + rotation @ self._offset[link]
                rotation = rotation @ turned[link]
            tips.append(position + rotation @ tip)
        return np.array(tips)

    def margin(self, joint_pos: Array) -> float:
        """Least distance of a tip to a face, in half widths of the box; negative outside."""
        tips = self.tips(joint_pos)
        inside = np.minimum(tips - self._low, self._high - tips)
        return float((2.0 * inside / (self._high - self._low)).min())


def cross(axis: Array) -> Array:
    x, y, z = axis
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def rotation(quat_wxyz: tuple[float, float, float, float]) -> Array:
    w, x, y, z = np.array(quat_wxyz) / np.linalg.norm(quat_wxyz)
    skew = cross(np.array([x, y, z]))
    return np.eye(3) + 2.0 * w * skew + 2.0 * skew @ skew
