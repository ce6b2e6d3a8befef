"""The pose of an object that a camera tracks: when it can be believed, and what is known of it from tick to tick.

A camera is slower and later than joints, loses its object behind a finger, and now and then takes one face for another.
So its pose has a stamp of its own, and what cannot be believed is left out: the last believed pose grows old, and an
age is what the safety filter looks at.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import OBJECT_FIELDS, Contract, EpisodeSpec, NumpyState, ObjectStart

Array = NDArray[np.float64]

QUAT_NORM_TOLERANCE = 0.05
JUMP_M, SPEED_M_S = 0.05, 3.0
"""Distance between two sightings that noise explains, and the speed that explains more: of a fall of half a metre."""
JUMP_RAD, TURN_RAD_S = 0.4, 10.0
"""Likewise of its orientation: within 0.1 s, less than the quarter turn by which a cube's faces are mixed up."""


@dataclass(frozen=True, slots=True)
class ObjectLimits:
    """What a policy that reads an object's pose needs of it. Build with `make`."""

    fields: tuple[str, ...]
    """Those of OBJECT_FIELDS that the policy reads."""
    bounds: tuple[tuple[float, float], ...]
    """(low, high) of each field's elements."""
    max_age_s: float
    """Of the last believed pose."""
    start: ObjectStart | None
    """Where the policy's episodes began; None: unknown."""

    @staticmethod
    def make(contract: Contract, episode: EpisodeSpec | None) -> ObjectLimits | None:
        """None for a policy that reads no object's pose."""
        specs = [t for t in contract.inputs if t.source == "state" and t.name in OBJECT_FIELDS]
        if not specs:
            return None
        return ObjectLimits(
            fields=tuple(t.name for t in specs),
            bounds=tuple(
                (-math.inf if t.low is None else t.low, math.inf if t.high is None else t.high) for t in specs
            ),
            max_age_s=min(math.inf if t.max_age_s is None else t.max_age_s for t in specs),
            start=None if episode is None else episode.object,
        )


@dataclass(frozen=True, slots=True)
class ObjectPose:
    """Where the object was seen, in the frame of the robot's root body. What the policy does not read may be None."""

    stamp_s: float
    """Time of the picture."""
    pos: Array | None
    """(3,) m."""
    quat_wxyz: Array | None
    """(4,)."""


@dataclass(frozen=True, slots=True)
class ObjectTrack:
    """What is known of the object."""

    pose: ObjectPose | None = None
    """The last believed one."""
    seen_s: float = -math.inf
    """Stamp of the newest report, whatever it says."""
    valid_s: float = -math.inf
    """Stamp of the newest report of a possible pose, believed or not."""

    def after(self, state: NumpyState | None, limits: ObjectLimits, *, in_use: bool) -> ObjectTrack:
        """Once `state` has come. While no policy uses the object, a person may put it anywhere: that is no jump."""
        stamp_s = stamp(state)
        if state is None or stamp_s is None or stamp_s == self.seen_s:
            return self
        pose = measure(state, limits)
        if pose is None:
            return dataclasses.replace(self, seen_s=stamp_s)
        believed = not in_use or self.pose is None or jump(pose, self.pose, self.valid_s, limits) <= 1.0
        return ObjectTrack(pose if believed else self.pose, stamp_s, stamp_s)


def stamp(state: NumpyState | None) -> float | None:
    """Time of the picture behind a state's object; None if it has none, or none that is a time."""
    if state is None or all(getattr(state, name) is None for name in OBJECT_FIELDS):
        return None
    own = state.stamp_s if state.object_stamp_s is None else state.object_stamp_s
    return float(own[0]) if _holds_numbers(own, (1,)) and math.isfinite(own[0]) else None


def measure(state: NumpyState, limits: ObjectLimits) -> ObjectPose | None:
    """The pose in a state, or None if a field is missing, not finite, out of its bounds or no unit quaternion."""
    stamp_s = stamp(state)
    fields: dict[str, Array] = {}
    for name, (low, high) in zip(limits.fields, limits.bounds, strict=True):
        value = getattr(state, name)
        if not _holds_numbers(value, (1, 3 if name == "object_pos" else 4)):
            return None
        fields[name] = np.array(value[0], np.float64)
        # Written so that NaN, which compares false, is out of bounds.
        if not (np.isfinite(fields[name]) & (fields[name] >= low) & (fields[name] <= high)).all():
            return None
    quat = fields.get("object_quat_wxyz")
    if stamp_s is None or (quat is not None and abs(math.sqrt(float(quat @ quat)) - 1.0) > QUAT_NORM_TOLERANCE):
        return None
    return ObjectPose(stamp_s, fields.get("object_pos"), quat)


def jump(new: ObjectPose, last: ObjectPose, valid_s: float, limits: ObjectLimits) -> float:
    """Change since the last believed pose, as a share of the largest that noise and motion explain.

    Motion is given the time since the last possible pose, at `valid_s`, believed or not, and at most the age that a
    pose may have: so a lasting jump does not become plausible by being repeated.
    """
    elapsed_s = min(abs(new.stamp_s - valid_s), limits.max_age_s)
    share = 0.0
    if new.pos is not None and last.pos is not None:
        share = float(np.linalg.norm(new.pos - last.pos)) / (JUMP_M + SPEED_M_S * elapsed_s)
    if new.quat_wxyz is not None and last.quat_wxyz is not None:
        share = max(share, turn_between(new.quat_wxyz, last.quat_wxyz) / (JUMP_RAD + TURN_RAD_S * elapsed_s))
    return share


def believable(state: NumpyState, age_s: float, limits: ObjectLimits | None, track: ObjectTrack) -> bool:
    """Whether a policy may see this state's object, whose own sensors' values are `age_s` old."""
    if limits is None:
        return True
    after = track.after(state, limits, in_use=True)
    seen_s = stamp(state)
    if after.pose is None or seen_s is None or after.pose.stamp_s != seen_s:
        return False
    return abs(float(state.stamp_s[0]) + age_s - seen_s) <= limits.max_age_s


def _holds_numbers(value: Any, shape: tuple[int, ...]) -> bool:
    return getattr(value, "shape", None) == shape and value.dtype.kind in "fiu"


def turn_between(a: Array, b: Array, free_axis: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> float:
    """Angle rad of the turn from orientation `b` (4,) to `a` (4,), less what of it is about `free_axis` (3,): the
    swing, by the decomposition into swing and twist. Axis and turn are in the frame that `a` and `b` are given in."""
    w, x, y, z = a.tolist()
    bw, bx, by, bz = b.tolist()
    # a times the conjugate of b
    scalar = w * bw + x * bx + y * by + z * bz
    vector = (
        bw * x - w * bx - y * bz + z * by,
        bw * y - w * by - z * bx + x * bz,
        bw * z - w * bz - x * by + y * bx,
    )
    along = sum(v * c for v, c in zip(vector, free_axis, strict=True))
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return 2.0 * math.acos(min(1.0, math.hypot(scalar, along) / norm))
