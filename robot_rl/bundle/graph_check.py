"""Whether an ONNX file is a plain policy graph, found out before onnxruntime sees it. No ONNX library.

onnxruntime follows a tensor's reference to other files, allocates what a shape asks for, and runs loops as long as they
say. A policy needs none of that. So the protobuf is walked here, as far as it matters, and refused if a tensor lies
outside the file, an operator is not one of standard ONNX, a node holds a graph (Loop, Scan, If), or a size is absurd.
Field numbers: onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from robot_rl.bundle.manifest import POLICY_FILE
from robot_rl.errors import BundleError

MOST_NODES = 100_000
MOST_ELEMENTS = 2**27
"""Of one tensor in the file: 512 MB of float32."""
DOMAINS = (b"", b"ai.onnx")


def check_graph(model: bytes) -> None:
    """Raise BundleError naming what a policy must not have, or that the file is damaged."""
    try:
        _Walker().model(memoryview(model))
    except _Damaged as error:
        raise BundleError(f"{POLICY_FILE}: no ONNX graph: {error}") from error


class _Damaged(Exception):
    """Not a protobuf message."""


class _Walker:
    """Goes through the messages of a model that can hold tensors, nodes or domains."""

    def __init__(self) -> None:
        self.nodes = 0

    def model(self, data: memoryview) -> None:
        graphs = 0
        for number, value in _fields(data):
            if number == 7:
                graphs += 1
                self.graph(_message(value))
            elif number == 8:
                _check_domain("imports", _last(_message(value), 1, b""))
            elif number in (20, 25):
                raise BundleError(f"{POLICY_FILE}: holds {'training code' if number == 20 else 'functions'} of its own")
        if graphs != 1:
            raise _Damaged(f"{graphs} graphs, expected 1")

    def graph(self, data: memoryview) -> None:
        parts: dict[int, Callable[[memoryview], None]] = {1: self.node, 5: self.tensor, 15: self.sparse}
        for number, value in _fields(data):
            if number in parts:
                parts[number](_message(value))

    def node(self, data: memoryview) -> None:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise BundleError(f"{POLICY_FILE}: more than {MOST_NODES} nodes")
        operator = _last(data, 4, b"").decode(errors="replace")
        _check_domain(f"operator {operator!r}", _last(data, 7, b""))
        for number, value in _fields(data):
            if number == 5:
                self.attribute(_message(value), operator)

    def attribute(self, data: memoryview, operator: str) -> None:
        for number, value in _fields(data):
            if number in (5, 10):
                self.tensor(_message(value))
            elif number in (6, 11):
                raise BundleError(
                    f"{POLICY_FILE}: operator {operator!r} holds a graph; a policy has no loops or branches"
                )
            elif number in (22, 23):
                self.sparse(_message(value))

    def sparse(self, data: memoryview) -> None:
        for number, value in _fields(data):
            if number in (1, 2):
                self.tensor(_message(value))
            elif number == 3:
                _check_elements(_integers(value))

    def tensor(self, data: memoryview) -> None:
        dims: list[int] = []
        for number, value in _fields(data):
            if number == 13 or (number == 14 and value != 0):
                raise BundleError(f"{POLICY_FILE}: keeps weights in an external data file; export it as one file")
            if number == 1:
                dims += _integers(value)
        _check_elements(dims)


def _check_domain(what: str, domain: bytes) -> None:
    if domain not in DOMAINS:
        raise BundleError(f"{POLICY_FILE}: {what} domain {domain.decode(errors='replace')!r}; valid: standard ONNX")


def _check_elements(dims: list[int]) -> None:
    elements = 1
    for dim in dims:
        elements *= dim
        if not 0 <= dim <= MOST_ELEMENTS or elements > MOST_ELEMENTS:
            raise BundleError(f"{POLICY_FILE}: a tensor of shape {dims[:8]}; the most is {MOST_ELEMENTS} elements")


def _last(data: memoryview, wanted: int, default: bytes) -> bytes:
    """The value of a text field: of several, protobuf takes the last."""
    found = default
    for number, value in _fields(data):
        if number == wanted:
            found = bytes(_message(value))
    return found


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Damaged("a number where there should be a message")
    return value


def _integers(value: int | memoryview) -> list[int]:
    """A repeated int64, packed or not."""
    if isinstance(value, int):
        return [_signed(value)]
    integers, at = [], 0
    while at < len(value):
        integer, at = _varint(value, at)
        integers.append(_signed(integer))
    return integers


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
        elif kind in (1, 5):
            end = at + (8 if kind == 1 else 4)
            if end > len(data):
                raise _Damaged("it ends within a number")
            yield number, int.from_bytes(data[at:end], "little")
            at = end
        elif kind == 2:
            size, at = _varint(data, at)
            if size > len(data) - at:
                raise _Damaged(f"a field of {size} bytes where {len(data) - at} are left")
            yield number, data[at : at + size]
            at += size
        else:
            raise _Damaged(f"unknown wire type {kind}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _Damaged("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise _Damaged("a number of more than ten bytes")
