"""What a log holds: topics, the fields of their messages, and how a tick becomes bytes.

    /state     what was measured                         /command   what was sent to the robot
    /health    temperatures, battery, motor errors       /filtered  what the safety filter asked for, where the driver
    /operator  what the operator had asked for                      sent something else
    /action    what the policy said, when it was asked   /mode      mode, cause, what the filter changed
    /margins   of each check: 1 far away, 0 at its       /timing    where the time went
               threshold, NaN where it does not apply

Fields are those of the runtime's own dataclasses, read from their types: a field that is added to Tick is in the next
log. Every message carries `t_s`, the loop's monotonic clock. An array that there is not is empty, a number NaN.

Messages are protobuf, and each log carries their descriptors. Beside JSON with JSON schema, the other encoding that
Foxglove opens without a plug-in, a tick of a humanoid (29 joints, 279 observations) takes 4.5 kB instead of 13 and
0.1 ms instead of 0.5; and numbers keep every bit, also those that are not finite, which JSON cannot write: a replay
sees what the robot saw.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Iterator
from enum import Enum, IntEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from robot_rl.contract import STATE_FIELDS, JointCommand, NumpyState
from robot_rl.runtime.checks import CHECKS
from robot_rl.runtime.log_record import LogRecord
from robot_rl.runtime.policy_runner import PolicyStep
from robot_rl.runtime.safety import MODIFICATIONS
from robot_rl.runtime.tick import Tick

_Proto = descriptor_pb2.FieldDescriptorProto
_SCALARS = {float: _Proto.TYPE_DOUBLE, int: _Proto.TYPE_INT64, bool: _Proto.TYPE_BOOL, str: _Proto.TYPE_STRING}
Fields = dict[str, tuple[int, bool]]
"""Name -> (protobuf type, whether it is an array)."""

_NUMBER, _NUMBERS, _FLAGS = (_Proto.TYPE_DOUBLE, False), (_Proto.TYPE_DOUBLE, True), (_Proto.TYPE_BOOL, True)


def fields_of(kind: Any) -> Fields:
    """Fields of a dataclass or NamedTuple that are numbers, texts or arrays of them; nested ones are left to others.

    Raises TypeError naming a field of another type.
    """
    fields = {}
    for name, hint in get_type_hints(kind).items():
        if not _has_fields(inner := _without_none(hint)):
            fields[name] = _proto_type(inner, f"{kind.__name__}.{name}")
    return fields


def _has_fields(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    (inner,) = (h for h in get_args(hint) if h is not type(None))
    return inner


def _proto_type(hint: Any, where: str) -> tuple[int, bool]:
    if get_origin(hint) is np.ndarray:
        scalar = get_args(get_args(hint)[1])[0]
        kind = np.dtype(scalar).kind if isinstance(scalar, type) and not issubclass(scalar, np.integer) else "i"
        if scalar is Any:
            kind = "f"
        types_of = {"f": _Proto.TYPE_DOUBLE, "i": _Proto.TYPE_INT64, "b": _Proto.TYPE_BOOL}
        return (_Proto.TYPE_FLOAT if scalar is np.float32 else types_of[kind]), True
    if get_origin(hint) is tuple:
        return _proto_type(_without_none(get_args(hint)[0]), where)[0], True
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _Proto.TYPE_STRING, False
    if hint in _SCALARS:
        return _SCALARS[hint], False
    raise TypeError(f"{where} of type {hint} cannot be logged; valid: numbers, texts, enums, arrays and tuples of them")


MARGINS: dict[str, int] = {}
"""What is measured -> the first check that looks at it."""
for _number, _check in enumerate(CHECKS):
    _name = _check.margin.__name__
    MARGINS.setdefault(_check.cause.value if _name == "<lambda>" else _name, _number)
_TICK = fields_of(Tick)
_TIMES = {name: kind for name, kind in _TICK.items() if name.endswith("_s") and name != "now_s"}
_ELSEWHERE = ("now_s", "applied", "modified", "margins")
"""Fields of Tick that are elsewhere, or go by other names."""
_NESTED = {
    name: hint
    for name, hint in ((n, _without_none(h)) for n, h in get_type_hints(Tick).items())
    if _has_fields(hint) and hint not in (JointCommand, PolicyStep)
}
"""Fields of Tick that are topics of their own."""

TOPICS: dict[str, Fields] = {
    "/state": {
        "stamp_s": _NUMBER,
        "age_s": _NUMBER,
        **dict.fromkeys(STATE_FIELDS, _NUMBERS),
        "object_stamp_s": _NUMBER,
    },
    "/command": fields_of(JointCommand),
    "/filtered": fields_of(JointCommand),
    "/action": {**fields_of(PolicyStep), "applied": _TICK["applied"]},
    "/mode": {
        **{n: kind for n, kind in _TICK.items() if n not in _TIMES and n not in _ELSEWHERE},
        **{f"modified_{reason}": _FLAGS for reason in MODIFICATIONS},
    },
    "/margins": dict.fromkeys(MARGINS, _NUMBER),
    "/timing": _TIMES,
    **{f"/{name}": fields_of(hint) for name, hint in _NESTED.items()},
}
"""Topic -> fields of its messages, in the order of their numbers, besides `t_s`."""

EVERY_TICK = ("/command", "/mode", "/margins", "/timing", "/operator")
"""Topics with a message in every tick."""


def type_name(topic: str) -> str:
    """Full name of the message type of a topic."""
    return f"robot_rl.{topic.strip('/')}"


def descriptors(topic: str) -> bytes:
    """FileDescriptorSet of the message type of a topic."""
    name = topic.strip("/")
    file = descriptor_pb2.FileDescriptorProto(name=f"robot_rl/{name}.proto", package="robot_rl", syntax="proto3")
    message = file.message_type.add(name=name)
    for number, (field, (kind, many)) in enumerate({"t_s": _NUMBER, **TOPICS[topic]}.items(), start=1):
        label = _Proto.LABEL_REPEATED if many else _Proto.LABEL_OPTIONAL
        message.field.add(name=field, number=number, type=kind, label=label)  # type: ignore[arg-type]
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def message_class(descriptor_set: bytes, name: str) -> Any:
    """The class of the message `name`. Raises DecodeError, TypeError or KeyError for descriptors that are none, do not
    hold together, or do not have it."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def messages(tick: Tick, state: NumpyState | None, sent: JointCommand) -> Iterator[tuple[str, dict[str, Any]]]:
    """(topic, fields) of each message of a tick, as plain numbers, texts and lists; arrays that there are not are left
    out."""
    for topic, source, more in _sources(tick, state, sent):
        values: dict[str, Any] = {"t_s": tick.now_s}
        for name, many, read in _READERS[topic]:
            value = more[name] if name in more else getattr(source, name)
            if value is not None:
                values[name] = read(value)
            elif not many:
                values[name] = math.nan
        yield topic, values


class Encoder:
    """Ticks as bytes. Holds no state between ticks."""

    def __init__(self) -> None:
        self._classes = {
            topic: (number, message_class(descriptors(topic), type_name(topic))) for number, topic in enumerate(TOPICS)
        }

    def encode(
        self, number: int, stamp_ns: int, tick: Tick, state: NumpyState | None, sent: JointCommand, trip: str = ""
    ) -> bytes:
        """The `number`-th tick; `trip` names what tripped in it."""
        parts = []
        for topic, values in messages(tick, state, sent):
            topic_number, kind = self._classes[topic]
            parts.append((topic_number, kind(**values).SerializeToString()))
        return LogRecord(number, stamp_ns, trip, tuple(parts)).to_bytes()


def _sources(tick: Tick, state: NumpyState | None, sent: JointCommand) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(topic, where its fields are, fields that are elsewhere) for each message of a tick."""
    if state is not None:
        seen_s = state.object_stamp_s
        stamps = {"stamp_s": state.stamp_s[0], "object_stamp_s": math.nan if seen_s is None else seen_s[0]}
        yield "/state", state, {**stamps, "age_s": tick.age_s}
    yield "/command", sent, {}
    if sent is not tick.command:
        yield "/filtered", tick.command, {}
    if tick.policy is not None:
        yield "/action", tick.policy, {"applied": tick.applied}
    yield "/mode", tick, {f"modified_{r}": flags for r, flags in zip(MODIFICATIONS, tick.modified, strict=True)}
    yield "/margins", None, {name: tick.margins[number] for name, number in MARGINS.items()}
    yield "/timing", tick, {}
    for name in _NESTED:
        if (nested := getattr(tick, name)) is not None:
            yield f"/{name}", nested, {}


def _reader(kind: int, many: bool) -> Callable[[Any], Any]:
    if many:
        return _list
    readers: dict[int, Callable[[Any], Any]] = {
        _Proto.TYPE_DOUBLE: float,
        _Proto.TYPE_INT64: int,
        _Proto.TYPE_BOOL: bool,
        _Proto.TYPE_STRING: _text,
    }
    return readers[kind]


def _list(value: Any) -> list[Any]:
    # Forty times in a tick: np.ravel would double the time of the whole encoding.
    if isinstance(value, np.ndarray):
        return (value if value.ndim == 1 else value.ravel()).tolist()
    return np.ravel(value).tolist()


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        return value.name.lower() if isinstance(value, IntEnum) else value.value
    # Words of a policy's error may be no Unicode.
    return value.encode("utf-8", "replace").decode()


_READERS = {
    topic: [(name, many, _reader(kind, many)) for name, (kind, many) in fields.items()]
    for topic, fields in TOPICS.items()
}
