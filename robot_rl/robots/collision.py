"""CollisionModel: the links of a robot that could hit one another, as capsules on its tree of joints. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

from robot_rl.errors import ContractError

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a joint sits: fixed in the frame of its parent joint, then a rotation about `axis`."""

    joint: str
    parent: str
    """The joint before it; empty: the root body."""
    pos_m: Vector
    quat_wxyz: tuple[float, float, float, float]
    axis: Vector


@dataclass(frozen=True, slots=True)
class Capsule:
    """All points within `radius_m` of a line, in the frame of the joint that moves them (empty: the root body)."""

    name: str
    joint: str
    start_m: Vector
    end_m: Vector
    radius_m: float


@dataclass(frozen=True, slots=True)
class CollisionModel:
    """Made from a model by robot_rl_sim.importing.capsules."""

    tree: tuple[Placement, ...]
    """Parents first; only joints that lead to a capsule."""
    capsules: tuple[Capsule, ...]
    pairs: tuple[tuple[str, str], ...]
    """Names of capsules that must stay apart."""

    def __post_init__(self) -> None:
        known = {""}
        for place in self.tree:
            if place.parent not in known or place.joint in known:
                raise ContractError(
                    f"collision tree: {place.joint!r} must come once, after its parent {place.parent!r}"
                )
            known.add(place.joint)
        loose = [c.name for c in self.capsules if c.joint not in known or not c.radius_m > 0]
        if loose:
            raise ContractError(f"capsules {loose} must have a radius above 0 and a joint of the collision tree")
        names = {c.name for c in self.capsules}
        unknown = sorted({name for pair in self.pairs for name in pair} - names)
        if unknown:
            raise ContractError(f"collision pairs name unknown capsules {unknown}; valid: {', '.join(sorted(names))}")
