"""EpisodeSpec: how an episode of the task begins, and what is asked in it, as far as a robot must be brought to that.

A policy knows the states that its episodes led through, and no others. One that was trained with a cube in its hand
can take over only from a hand that holds one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from robot_rl.contract.spec import Contract, dataclass_from
from robot_rl.contract.state import OBJECT_FIELDS
from robot_rl.errors import ContractError

Vector3 = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ObjectStart:
    """Where the object is when an episode begins, in the frame of the robot's root body."""

    pos_m: Vector3
    pos_tolerance_m: float
    """Distance from `pos_m` within which episodes began."""
    quat_wxyz: tuple[float, float, float, float]
    free_axis: Vector3
    """Unit vector about which the object may be turned by any angle; zeros: there is none."""
    angle_tolerance_rad: float
    """Turn from `quat_wxyz`, besides that about `free_axis`, within which episodes began."""
    lost_distance_m: float
    """Distance from `pos_m` at which the task counts the object as lost."""

    def __post_init__(self) -> None:
        _check_vector("object.pos_m", self.pos_m, 3)
        _check_vector("object.quat_wxyz", self.quat_wxyz, 4, norms=(1.0,))
        _check_vector("object.free_axis", self.free_axis, 3, norms=(0.0, 1.0))
        _check_positive("object", self, ("pos_tolerance_m", "angle_tolerance_rad", "lost_distance_m"))
        if self.lost_distance_m < self.pos_tolerance_m:
            raise ContractError(
                f"object.lost_distance_m {self.lost_distance_m} must not be below pos_tolerance_m "
                f"{self.pos_tolerance_m}"
            )


@dataclass(frozen=True, slots=True)
class TurnGoals:
    """Goal orientations of the object, each a turn from the one before."""

    axis: Vector3
    """Unit vector of the turns, root body frame."""
    turn_rad: tuple[float, float]
    """Least and largest angle of a turn, which is made either way."""
    tolerance_rad: float
    """An object turned to within this of its goal has reached it."""

    def __post_init__(self) -> None:
        _check_vector("goals.axis", self.axis, 3, norms=(1.0,))
        _check_vector("goals.turn_rad", self.turn_rad, 2)
        _check_positive("goals", self, ("tolerance_rad",))
        if not 0 < self.turn_rad[0] <= self.turn_rad[1] <= math.pi:
            raise ContractError(f"goals.turn_rad must be an increasing pair in (0, pi], got {self.turn_rad}")


@dataclass(frozen=True, slots=True)
class EpisodeSpec:
    """How episodes begin, and what they ask for."""

    joint_pos_rad: tuple[float, ...]
    """(n_joints,) pose in which the robot waits for the policy to take over."""
    object: ObjectStart | None = None
    goals: TurnGoals | None = None

    def check(self, contract: Contract) -> None:
        """Raise ContractError, naming what does not fit, unless a policy of `contract` can have such episodes."""
        if len(self.joint_pos_rad) != len(contract.joints):
            raise ContractError(f"episode: {len(self.joint_pos_rad)} joint_pos_rad for {len(contract.joints)} joints")
        for joint, value in zip(contract.joints, self.joint_pos_rad, strict=True):
            if not joint.lower_rad <= value <= joint.upper_rad:
                raise ContractError(
                    f"episode: joint {joint.name!r} starts at {value}, outside [{joint.lower_rad}, {joint.upper_rad}]"
                )
        if self.object is not None and not contract.reads_object:
            raise ContractError(f"episode: has an object, but the policy reads none of {', '.join(OBJECT_FIELDS)}")
        if self.goals is not None and (contract.command is None or contract.command.shape != (4,)):
            raise ContractError("episode: has goal orientations, but the policy's command is no quaternion")

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> EpisodeSpec:
        """Parse and validate. Raises ContractError naming the key for unknown, missing or ill-typed entries."""
        kinds = {"object": ObjectStart, "goals": TurnGoals}
        parts = {
            name: dataclass_from(kind, data[name], f"episode.{name}")
            for name, kind in kinds.items()
            if data.get(name) is not None
        }
        spec: EpisodeSpec = dataclass_from(EpisodeSpec, {**data, **parts}, "episode")
        if not isinstance(spec.joint_pos_rad, tuple):
            raise ContractError(f"episode.joint_pos_rad must be a list of numbers, got {spec.joint_pos_rad!r}")
        _check_vector("joint_pos_rad", spec.joint_pos_rad, len(spec.joint_pos_rad))
        return spec


def _check_vector(name: str, values: Any, size: int, norms: tuple[float, ...] = ()) -> None:
    """`size` finite numbers, of one of these norms if any are given."""
    if not isinstance(values, tuple) or len(values) != size or not all(_is_number(v) for v in values):
        raise ContractError(f"episode.{name} must be {size} finite numbers, got {values!r}")
    if norms and not any(abs(math.sqrt(sum(v * v for v in values)) - norm) < 1e-3 for norm in norms):
        raise ContractError(f"episode.{name} must have norm {' or '.join(f'{n:g}' for n in norms)}, got {values}")


def _check_positive(where: str, spec: object, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(spec, name)
        if not (_is_number(value) and value > 0):
            raise ContractError(f"episode.{where}.{name} must be positive and finite, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
