"""The contract: everything about order, unit, frame, limit and rate that training and robot must agree on.

Nothing is a convention. A value that both sides need is a field here, is written to JSON at full precision, and is
covered by the digest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from robot_rl.contract.state import OBJECT_FIELDS, STATE_FIELDS
from robot_rl.errors import ContractError

SCHEMA_VERSION = 1

Source = Literal["state", "command", "memory"]
MemoryStart = Literal["zero", "joint_pos", "observation"]
Feedback = Literal["policy", "applied"]
ActionKind = Literal["position_relative", "position_delta"]
QuaternionOrder = Literal["wxyz"]


@dataclass(frozen=True, slots=True)
class JointSpec:
    """One actuated joint, as trained: limits, gains and the pose that the policy calls zero."""

    name: str
    lower_rad: float
    upper_rad: float
    velocity_limit_rad_s: float
    effort_limit_nm: float
    default_pos_rad: float
    kp_nm_rad: float
    kd_nms_rad: float

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "name"}
        bad = [f"{k}={v}" for k, v in values.items() if not math.isfinite(v)]
        if bad:
            raise ContractError(f"joint {self.name!r}: not finite: {', '.join(bad)}")
        if not self.lower_rad < self.upper_rad:
            raise ContractError(f"joint {self.name!r}: lower {self.lower_rad} must be below upper {self.upper_rad}")
        if not self.lower_rad <= self.default_pos_rad <= self.upper_rad:
            raise ContractError(
                f"joint {self.name!r}: default {self.default_pos_rad} is outside [{self.lower_rad}, {self.upper_rad}]"
            )
        for field in ("velocity_limit_rad_s", "effort_limit_nm", "kp_nm_rad"):
            if not values[field] > 0:
                raise ContractError(f"joint {self.name!r}: {field} must be positive, got {values[field]}")
        if self.kd_nms_rad < 0:
            raise ContractError(f"joint {self.name!r}: kd_nms_rad must not be negative, got {self.kd_nms_rad}")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor at the edge of the exported graph. `shape` leaves out the leading batch dimension."""

    name: str
    shape: tuple[int, ...]
    unit: str
    """SI unit, or "1" for a pure number."""
    source: Source | None = None
    """Where an input comes from: a RobotState field, the command, or the graph's own memory. None for outputs."""
    frame: str = ""
    low: float | None = None
    high: float | None = None
    """Physical bounds of every element; a value outside them is a fault, not an observation."""
    max_age_s: float | None = None
    """Oldest usable value. None: never too old."""
    start: MemoryStart | None = None
    """Memory only: its value when the policy takes over ("observation" repeats the first observation)."""
    feedback: Feedback | None = None
    """Memory only: fed back as the policy computed it, or as the safety filter let it through."""

    def __post_init__(self) -> None:
        for field, valid in (("source", Source), ("start", MemoryStart), ("feedback", Feedback)):
            value = getattr(self, field)
            if value is not None and value not in get_args(valid):
                raise ContractError(f"tensor {self.name!r}: {field} {value!r}; valid: {', '.join(get_args(valid))}")
        if any(not isinstance(d, int) or d <= 0 for d in self.shape):
            raise ContractError(f"tensor {self.name!r}: shape {self.shape} must hold positive integers")
        if self.source == "state" and self.name not in STATE_FIELDS:
            raise ContractError(f"tensor {self.name!r} is no RobotState field; valid: {', '.join(STATE_FIELDS)}")
        if (self.source == "memory") != (self.start is not None and self.feedback is not None):
            raise ContractError(f"tensor {self.name!r}: start and feedback belong to memory tensors, and only to them")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ContractError(f"tensor {self.name!r}: low {self.low} must be below high {self.high}")


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """How a raw action in [-1, 1] becomes a joint target. It is done inside the graph; this states what it does.

    position_relative: target = offset + scale * action
    position_delta:    target = last_target + scale * action
    Both are then clipped to [low, high].
    """

    kind: ActionKind
    scale_rad: tuple[float, ...]
    offset_rad: tuple[float, ...]
    low_rad: tuple[float, ...]
    high_rad: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in get_args(ActionKind):
            raise ContractError(f"action kind {self.kind!r}; valid: {', '.join(get_args(ActionKind))}")
        sizes = {len(self.scale_rad), len(self.offset_rad), len(self.low_rad), len(self.high_rad)}
        if len(sizes) != 1:
            raise ContractError("action: scale, offset, low and high differ in length")
        if any(not low < high for low, high in zip(self.low_rad, self.high_rad, strict=True)):
            raise ContractError("action: every low must be below its high")
        if any(not (math.isfinite(s) and s > 0) for s in self.scale_rad):
            raise ContractError(f"action: scale must be positive and finite, got {self.scale_rad}")


@dataclass(frozen=True, slots=True)
class Contract:
    """What a policy was trained on, and therefore what a robot must be to run it."""

    robot: str
    variant: str
    control_period_s: float
    joints: tuple[JointSpec, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    action: ActionSpec
    observation_terms: tuple[tuple[str, int], ...]
    """(name, size) of each term of one observation frame, in order."""
    history_length: int = 1
    quaternion_order: QuaternionOrder = "wxyz"
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ContractError(
                f"schema version {self.schema_version} is not supported; this code reads {SCHEMA_VERSION}"
            )
        if self.quaternion_order not in get_args(QuaternionOrder):
            raise ContractError(
                f"quaternion order {self.quaternion_order!r} is not supported; "
                f"valid: {', '.join(get_args(QuaternionOrder))}"
            )
        if not self.control_period_s > 0:
            raise ContractError(f"control_period_s must be positive, got {self.control_period_s}")
        if self.history_length < 1:
            raise ContractError(f"history_length must be at least 1, got {self.history_length}")
        _check_unique("joint", [j.name for j in self.joints])
        _check_unique("input", [t.name for t in self.inputs])
        _check_unique("output", [t.name for t in self.outputs])
        if len(self.action.scale_rad) != len(self.joints):
            raise ContractError(f"action has {len(self.action.scale_rad)} entries for {len(self.joints)} joints")
        commands = [t.name for t in self.inputs if t.source == "command"]
        if len(commands) > 1:
            raise ContractError(f"at most one command input, got {commands}")
        for spec in self.inputs:
            if spec.source is None:
                raise ContractError(f"input {spec.name!r} has no source; valid: {', '.join(get_args(Source))}")
            if spec.source == "memory" and f"next_{spec.name}" not in self.output_names:
                raise ContractError(f"memory {spec.name!r} needs an output 'next_{spec.name}'")
        for name in ("joint_target", "obs"):
            if name not in self.output_names:
                raise ContractError(f"outputs must include {name!r}; got {', '.join(self.output_names)}")

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(j.name for j in self.joints)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.outputs)

    @property
    def command(self) -> TensorSpec | None:
        return next((t for t in self.inputs if t.source == "command"), None)

    @property
    def reads_object(self) -> bool:
        """Whether the policy goes by the pose of an object."""
        return any(t.source == "state" and t.name in OBJECT_FIELDS for t in self.inputs)

    @property
    def observation_dim(self) -> int:
        return self.history_length * sum(size for _, size in self.observation_terms)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, floats at full precision, so that equal contracts give equal bytes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1, allow_nan=False)

    def digest(self) -> str:
        """sha256 of the canonical JSON, as 64 hexadecimal characters."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @staticmethod
    def from_json(text: str) -> Contract:
        """Parse and validate. Raises ContractError naming the key for unknown, missing or ill-typed entries."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ContractError(f"contract is not JSON: {error}") from error
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise ContractError(f"schema version {version!r} is not supported; this code reads {SCHEMA_VERSION}")
        data = dict(data)
        for key, kind in (("joints", JointSpec), ("inputs", TensorSpec), ("outputs", TensorSpec)):
            data[key] = tuple(dataclass_from(kind, item, f"{key}[{i}]") for i, item in enumerate(data.get(key, ())))
        if "action" in data:
            data["action"] = dataclass_from(ActionSpec, data["action"], "action")
        data["observation_terms"] = tuple((str(n), int(s)) for n, s in data.get("observation_terms", ()))
        return dataclass_from(Contract, data, "contract")


def _check_unique(what: str, names: Sequence[str]) -> None:
    duplicates = sorted({n for n in names if names.count(n) > 1})
    if duplicates:
        raise ContractError(f"{what} names must be unique; repeated: {', '.join(duplicates)}")


def dataclass_from(kind: Any, data: Any, where: str) -> Any:
    """Dataclass from a mapping, with lists made tuples. Raises ContractError naming unknown and missing keys."""
    if not isinstance(data, Mapping):
        raise ContractError(f"{where}: expected an object, got {type(data).__name__}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ContractError(f"{where}: unknown keys {', '.join(unknown)}; valid: {', '.join(fields)}")
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in data]
    if missing:
        raise ContractError(f"{where}: missing keys {', '.join(missing)}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ContractError(f"{where}: {error}") from error
