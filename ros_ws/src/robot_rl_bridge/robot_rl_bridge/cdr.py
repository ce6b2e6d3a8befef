"""Messages from their bytes, without making anew what has not changed since the last one.

rclpy makes a Python object of every field of a message. For 29 joint names, which never change, and their numbers that
takes longer than the safety filter. Subscriptions created with `raw=True` deliver bytes, in plain CDR, of which a
Deserializer makes the same message as rclpy would.
"""

from __future__ import annotations

import functools
import importlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message, serialize_message

from robot_rl_bridge.converters import MessageError

ATTEMPTS = 20
"""A topic that changes more often than this is left to rclpy: to learn its messages costs more than it saves."""
_ENCAPSULATION = 4
"""Bytes at the front that tell byte order and version. What follows is aligned from there on."""
_BYTE_ORDERS = {b"\0\0": ">", b"\0\1": "<"}
_SCALARS = {"double": ("d", 8), "int32": ("i", 4), "uint32": ("I", 4)}
"""Type of a field -> (form for `struct`, size)."""


class Deserializer:
    """`rclpy.serialization.deserialize_message` for the messages of one topic, of type `kind`.

    As long as messages differ in nothing but float64 numbers and time stamps, only those are read, into a message that
    is kept. All else is compared byte by byte: where it differs, or the length does, rclpy reads the whole message,
    once it is certain that no length in it is beyond its end, which rclpy may not survive.

    Raises TypeError at construction for messages with fields other than float64, int32, uint32, text and messages of
    those.
    """

    def __init__(self, kind: type) -> None:
        _Walk(serialize_message(kind())).message(kind, ())
        self._kind = kind
        self._known: _Known | None = None
        self._attempts = ATTEMPTS

    def __call__(self, data: bytes) -> Any:
        """The message in `data`; valid until the next call. Raises MessageError for bytes that hold none."""
        known = self._known
        if known is not None and known.fits(data):
            known.read(data)
            return known.message
        walk = _Walk(data)
        walk.message(self._kind, ())
        try:
            message = deserialize_message(data, self._kind)
        except Exception as error:
            raise MessageError(f"not a {self._kind.__name__}: {error}") from error
        if self._attempts > 0:
            self._attempts -= 1
            self._known = _learn(data, walk.parts, deserialize_message(data, self._kind))
        return message


@dataclass(frozen=True, slots=True)
class _Known:
    """A message, and how to read into it what of its bytes are numbers."""

    message: Any
    mask: NDArray[np.uint8]
    """255 for bytes that must stay the same; 0 for numbers, and for padding, which may hold anything."""
    fixed: bytes
    """The message's bytes behind the mask."""
    arrays: tuple[tuple[NDArray[np.float64], int], ...]
    """(a view of the field, where its numbers begin)."""
    scalars: struct.Struct
    owners: tuple[tuple[Any, str], ...]
    """(part of the message, attribute) of each of the scalars."""

    def fits(self, data: bytes) -> bool:
        """Whether `data` differs from the message in numbers alone."""
        return len(data) == len(self.fixed) and (np.frombuffer(data, np.uint8) & self.mask).tobytes() == self.fixed

    def read(self, data: bytes) -> None:
        for view, start in self.arrays:
            view[:] = np.frombuffer(data, np.float64, len(view), start)
        for (owner, name), value in zip(self.owners, self.scalars.unpack_from(data), strict=True):
            setattr(owner, name, value)


@dataclass(frozen=True, slots=True)
class _Part:
    """Bytes that are not padding: numbers of one field, or something that must stay the same."""

    start: int
    size: int
    form: str = ""
    """Of one number, for `struct`; "array" for several; empty for what must stay the same."""
    path: tuple[str, ...] = ()
    """Attributes that lead to the number."""


class _Walk:
    """Finds the parts of a message, and believes no length for which there are not enough bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self.parts: list[_Part] = []
        self._take(_ENCAPSULATION, 1)
        if data[:2] not in _BYTE_ORDERS:
            raise MessageError(f"not plain CDR: begins with {data[:2].hex()}")
        self._count_form = f"{_BYTE_ORDERS[data[:2]]}I"

    def message(self, kind: Any, path: tuple[str, ...] | None) -> None:
        """Go on through a message; `path` None: one of several, whose numbers must stay the same as well."""
        for name, field in kind.get_fields_and_field_types().items():
            self._field(field, None if path is None else (*path, name), is_stamp=kind is Time)

    def _field(self, field: str, path: tuple[str, ...] | None, *, is_stamp: bool = False) -> None:
        element = field.removeprefix("sequence<").removesuffix(">")
        if element != field:
            count = self._count()
            if element == "double":
                self._numbers(count, path)
            else:
                for _ in range(count):
                    self._field(element, None)
        elif field in _SCALARS:
            form, size = _SCALARS[field]
            # Of integers only stamps are numbers; others say what the numbers mean.
            is_number = path is not None and (form == "d" or is_stamp)
            self._take(size, size, form if is_number else "", path)
        elif field.startswith("double["):
            self._numbers(int(field.removeprefix("double[").removesuffix("]")), path)
        elif field == "string":
            self._take(self._count(), 1)
        elif "/" in field:
            self.message(_message_type(field), path)
        else:
            raise TypeError(f"a field is {field}; valid: {', '.join(_SCALARS)}, string and messages of those")

    def _numbers(self, count: int, path: tuple[str, ...] | None) -> None:
        if count:
            self._take(8 * count, 8, "" if path is None else "array", path)

    def _count(self) -> int:
        self._take(4, 4)
        return struct.unpack_from(self._count_form, self._data, self._at - 4)[0]

    def _take(self, size: int, alignment: int, form: str = "", path: tuple[str, ...] | None = None) -> None:
        start = self._at + -(self._at - _ENCAPSULATION) % alignment
        if start + size > len(self._data):
            raise MessageError(f"a message of {len(self._data)} bytes ends before byte {start + size}")
        self.parts.append(_Part(start, size, form, path or ()))
        self._at = start + size


@functools.cache
def _message_type(name: str) -> Any:
    package, kind = name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), kind)


def _learn(data: bytes, parts: list[_Part], message: Any) -> _Known | None:
    """How to read more messages like `message`, which rclpy has read from `data`; None if that cannot be."""
    given = np.frombuffer(data, np.uint8)
    numbers, others = (np.zeros(len(data), np.uint8) for _ in range(2))
    for part in parts:
        (numbers if part.form else others)[part.start : part.start + part.size] = 255
    scalars = [p for p in parts if p.form not in ("", "array")]
    owners = tuple(_slot(functools.reduce(getattr, p.path[:-1], message), p.path[-1]) for p in scalars)
    arrays = tuple(
        (np.frombuffer(functools.reduce(getattr, p.path, message)), p.start) for p in parts if p.form == "array"
    )
    known = _Known(message, others, (given & others).tobytes(), arrays, _with_gaps(scalars), owners)
    # The proof: of numbers that were forgotten, `read` alone brings back what the bytes said.
    for view, _ in arrays:
        view[:] = 0.0
    for owner, name in owners:
        setattr(owner, name, type(getattr(owner, name))())
    known.read(data)
    written = np.frombuffer(serialize_message(message), np.uint8)
    # Else it is of another byte order, or of a form that is not understood here.
    same = len(written) == len(data) and not ((written ^ given) & (numbers | others)).any()
    return known if same else None


def _slot(owner: Any, name: str) -> tuple[Any, str]:
    """Where a message keeps the field `name`, behind its checks of type and range, which these numbers pass: they take
    longer than all else here."""
    return owner, f"_{name}" if hasattr(owner, f"_{name}") else name


def _with_gaps(scalars: list[_Part]) -> struct.Struct:
    """Unpacks all of them at once from a whole message."""
    form, at = "=", 0
    for part in scalars:
        form += f"{part.start - at}x{part.form}"
        at = part.start + part.size
    return struct.Struct(form)
