"""Joints that bring a robot's own links together are stopped: kinematics of capsules, for the safety filter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec
from robot_rl.robots.collision import CollisionModel, Placement
from robot_rl.runtime.workspace import cross, rotation

Array = NDArray[np.float64]

_LEAST = 1e-12
_SLACK_M = 1e-9
"""Rounding is no approach."""
DRAWN_RAD = 0.05
"""As far as a joint at rest gets towards its target before it can be told to stop."""
HORIZON_S = 0.1
"""About as long as an arm takes to stop."""


@dataclass(frozen=True, slots=True)
class Clearance:
    """What was computed last: as far as joints have hardly moved since, nothing need be computed again."""

    joint_pos: Array
    """(n_joints,) rad."""
    distance_m: Array
    """(n_pairs,) between surfaces; negative: they overlap."""


class SelfCollision:
    """The pairs of a robot's capsules that must stay `margin_m` apart. Raises ConfigError for a robot without any."""

    def __init__(self, robot: RobotSpec, margin_m: float) -> None:
        model = robot.collision
        if model is None:
            raise ConfigError(f"robot {robot.name!r} has no capsules, so that it cannot be kept from hitting itself")
        self.margin_m = margin_m
        levels = _levels(model)
        places = [place for level in levels for place in level]
        row = {"": 0} | {place.joint: 1 + i for i, place in enumerate(places)}
        self._joint = np.array([robot.joint_names.index(place.joint) for place in places])
        ends = np.cumsum([len(level) for level in levels]).tolist()
        self._levels = [slice(end - len(level), end) for end, level in zip(ends, levels, strict=True)]
        self._parent = np.array([row[place.parent] for place in places])
        self._fixed = np.array([rotation(place.quat_wxyz) for place in places])
        axes = np.array([place.axis for place in places])
        self._cross = np.array([cross(axis / np.linalg.norm(axis)) for axis in axes])
        self._cross_squared = self._cross @ self._cross
        self._offset = np.array([place.pos_m for place in places])
        self._body = np.array([row[c.joint] for c in model.capsules])
        # (n_capsules, 4, 2): both ends, homogeneous.
        self._ends = np.array([[(*c.start_m, 1.0), (*c.end_m, 1.0)] for c in model.capsules]).transpose(0, 2, 1)
        index = {c.name: i for i, c in enumerate(model.capsules)}
        self._pairs = np.array([[index[a], index[b]] for a, b in model.pairs]).T
        self.radii = np.array([c.radius_m for c in model.capsules])[self._pairs].sum(0)
        self._reach = _reach(model, robot.joint_names)
        self._moves = self._reach > 0.0

    def distances(self, joint_pos: Array) -> Array:
        """(n_pairs,) m between the surfaces of each pair, for joint positions (n_joints,) rad."""
        q = joint_pos[self._joint, None, None]
        local = np.zeros((len(q), 4, 4))
        # Rodrigues: I + sin q [a] + (1 - cos q) [a]².
        local[:, :3, :3] = self._fixed @ (np.eye(3) + np.sin(q) * self._cross + (1.0 - np.cos(q)) * self._cross_squared)
        local[:, :3, 3] = self._offset
        local[:, 3, 3] = 1.0
        world = np.empty((1 + len(q), 4, 4))
        world[0] = np.eye(4)
        for level in self._levels:
            world[1 + level.start : 1 + level.stop] = world[self._parent[level]] @ local[level]
        points = (world[self._body] @ self._ends)[:, :3]
        first, second = points[self._pairs[0]], points[self._pairs[1]]
        return _between_lines(first[:, :, 0], first[:, :, 1], second[:, :, 0], second[:, :, 1]) - self.radii

    def hold(
        self, target: Array, joint_pos: Array, joint_vel: Array, last: Clearance | None
    ) -> tuple[NDArray[np.bool_] | None, Clearance]:
        """Which joints (n_joints,) must stop where they are, None if all may go on; and what to give as `last` next
        time.

        They are those between two links that would come nearer than the margin, as fast as they move and where `target`
        draws them, if it draws them nearer than they are. Whatever parts them is let through. It is the measured pose
        that counts: the target of a soft servo is a torque, and may well lie inside another link.
        """
        drawn = joint_pos + np.minimum(np.maximum(target - joint_pos, -DRAWN_RAD), DRAWN_RAD)
        ahead = drawn + HORIZON_S * joint_vel
        if last is not None and (self._at_least(ahead, last) >= self.margin_m).all():
            return None, last
        now = Clearance(ahead, self.distances(ahead))
        near = now.distance_m < self.margin_m
        if not near.any():
            return None, now
        nearer = near & (self.distances(drawn) < self.distances(joint_pos) - _SLACK_M)
        return np.any(self._moves[nearer], axis=0) if nearer.any() else None, now

    def _at_least(self, joint_pos: Array, last: Clearance) -> Array:
        """(n_pairs,) m, no more than there is: a point moves by no more than the angle times its distance."""
        return last.distance_m - self._reach @ np.abs(joint_pos - last.joint_pos)


def _levels(model: CollisionModel) -> list[list[Placement]]:
    """The tree's joints by how many come before them, so that all of a level are computed at once."""
    depth = {"": 0}
    for place in model.tree:
        depth[place.joint] = depth[place.parent] + 1
    return [[p for p in model.tree if depth[p.joint] == level] for level in range(1, max(depth.values()) + 1)]


def _reach(model: CollisionModel, joint_names: tuple[str, ...]) -> Array:
    """(n_pairs, n_joints) m: how far from each joint the farthest point of the pair that it moves can be; 0 for a joint
    that moves both of a pair or neither."""
    tree = {place.joint: place for place in model.tree}
    reach: dict[str, dict[str, float]] = {}
    for capsule in model.capsules:
        far = max(float(np.linalg.norm(end)) for end in (capsule.start_m, capsule.end_m)) + capsule.radius_m
        joint, reach[capsule.name] = capsule.joint, {}
        while joint:
            reach[capsule.name][joint] = far
            far += float(np.linalg.norm(tree[joint].pos_m))
            joint = tree[joint].parent
    rows = np.zeros((len(model.pairs), len(joint_names)))
    for k, (a, b) in enumerate(model.pairs):
        for joint in reach[a].keys() ^ reach[b].keys():
            rows[k, joint_names.index(joint)] = reach[a].get(joint, 0.0) + reach[b].get(joint, 0.0)
    return rows


def _between_lines(a0: Array, a1: Array, b0: Array, b1: Array) -> Array:
    """(n,) m, least distance of lines from a0 to a1 and from b0 to b1, all (n, 3).

    Ericson, Real-Time Collision Detection (2005), 5.1.9: the point of one line nearest to the other as if that had no
    ends, then the nearest to it there, and once more back.
    """
    u, v, w = a1 - a0, b1 - b0, a0 - b0
    uu, vv, uv = _dot(u, u), _dot(v, v), _dot(u, v)
    uw, vw = _dot(u, w), _dot(v, w)
    s = _unit((uv * vw - uw * vv) / np.maximum(uu * vv - uv * uv, _LEAST))
    t = _unit((uv * s + vw) / np.maximum(vv, _LEAST))
    s = _unit((uv * t - uw) / np.maximum(uu, _LEAST))
    gap = w + s[:, None] * u - t[:, None] * v
    return np.sqrt(_dot(gap, gap))


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("ij,ij->i", a, b)


def _unit(value: Array) -> Array:
    return np.minimum(np.maximum(value, 0.0), 1.0)
