"""Deserializer against rclpy.serialization: the same message, or a refusal, whatever the bytes."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest

pytest.importorskip("rclpy")

from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import BatteryState, Imu, JointState
from std_msgs.msg import Float64MultiArray, MultiArrayDimension

from robot_rl_bridge import cdr
from robot_rl_bridge.cdr import ATTEMPTS, Deserializer
from robot_rl_bridge.converters import MessageError

pytestmark = pytest.mark.ros

numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
texts = st.sampled_from(["", "a", "knee", "hüfte", "left_hip_yaw_joint"])


@st.composite
def joint_states(draw: st.DrawFn) -> JointState:
    """Often of the same two joints, so that messages in a row differ in numbers alone."""
    names = draw(st.one_of(st.just(["a", "knee"]), st.lists(texts, max_size=4)))
    lengths = draw(st.one_of(st.just((2, 2, 0)), st.tuples(*(st.integers(0, 5),) * 3)))
    message = JointState(name=names)
    message.header.frame_id = draw(st.one_of(st.just(""), texts))
    message.position, message.velocity, message.effort = (
        array("d", draw(st.lists(numbers, min_size=n, max_size=n))) for n in lengths
    )
    return _stamped(draw, message)


@st.composite
def imus(draw: st.DrawFn) -> Imu:
    message = Imu()
    message.header.frame_id = draw(st.one_of(st.just("pelvis"), texts))
    for vector in (message.orientation, message.angular_velocity, message.linear_acceleration):
        for axis in vector.get_fields_and_field_types():
            setattr(vector, axis, draw(numbers))
    for name in ("orientation", "angular_velocity", "linear_acceleration"):
        setattr(message, f"{name}_covariance", np.array(draw(st.lists(numbers, min_size=3, max_size=3)) * 3))
    return _stamped(draw, message)


@st.composite
def arrays(draw: st.DrawFn) -> Float64MultiArray:
    message = Float64MultiArray()
    sizes = st.integers(0, 2**32 - 1)
    message.layout.dim = draw(
        st.lists(st.builds(MultiArrayDimension, label=texts, size=sizes, stride=sizes), max_size=2)
    )
    message.layout.data_offset = draw(st.one_of(st.just(4), sizes))
    message.data = array("d", draw(st.one_of(st.just([1.0, 2.0]), st.lists(numbers, max_size=6))))
    return message


KINDS = [(JointState, joint_states()), (Imu, imus()), (Float64MultiArray, arrays())]


def _stamped(draw, message):
    message.header.stamp.sec = draw(st.integers(-(2**31), 2**31 - 1))
    message.header.stamp.nanosec = draw(st.integers(0, 2**32 - 1))
    return message


def _same(message, expected) -> bool:
    """Bit for bit, NaN included."""
    for name in expected.get_fields_and_field_types():
        a, b = getattr(message, name), getattr(expected, name)
        if hasattr(b, "get_fields_and_field_types"):
            equal = _same(a, b)
        elif isinstance(b, float):
            equal = np.float64(a).tobytes() == np.float64(b).tobytes()
        elif isinstance(b, (array, np.ndarray)):
            equal = a.tobytes() == b.tobytes()
        else:
            equal = a == b
        if not equal:
            return False
    return True


def _read_as_rclpy(deserialize: Deserializer, data: bytes, kind: type) -> bool:
    """Whether `data` was not refused; then it must have been read as rclpy reads it."""
    try:
        message = deserialize(data)
    except MessageError:
        return False
    assert _same(message, deserialize_message(data, kind))
    return True


@pytest.mark.parametrize(("kind", "messages"), KINDS)
def test_it_reads_what_rclpy_reads(kind: type, messages) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(messages, min_size=1, max_size=6))
    def check(sent) -> None:
        deserialize = Deserializer(kind)
        for message in sent:
            assert _read_as_rclpy(deserialize, serialize_message(message), kind)

    check()


@pytest.mark.parametrize(("kind", "messages"), KINDS)
def test_damaged_bytes_are_refused_or_read_as_rclpy_reads_them(kind: type, messages) -> None:
    """Bytes changed anywhere, cut off or appended to, after a sound message of the same topic was learned."""

    @settings(max_examples=40, deadline=None)
    @given(messages, st.data())
    def check(message, data: st.DataObject) -> None:
        deserialize = Deserializer(kind)
        sound = serialize_message(message)
        assert _read_as_rclpy(deserialize, sound, kind)
        for _ in range(3):
            damaged = bytearray(sound)
            for at in data.draw(st.lists(st.integers(0, len(sound) - 1), max_size=3)):
                damaged[at] = data.draw(st.integers(0, 255))
            damaged = damaged[: data.draw(st.integers(0, len(sound)))] if data.draw(st.booleans()) else damaged
            damaged += data.draw(st.binary(max_size=8))
            # Bytes that end too soon are never handed to rclpy, which may not survive them.
            _read_as_rclpy(deserialize, bytes(damaged), kind)
            assert _read_as_rclpy(deserialize, sound, kind)

    check()


def _of(position: list[float], names: tuple[str, ...] = ("a", "knee")) -> bytes:
    return serialize_message(JointState(name=names, position=position))


def test_only_numbers_are_read_while_all_else_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    deserialize = Deserializer(JointState)
    deserialize(_of([1.0, 2.0]))
    renamed = _of([5.0, 6.0], ("b", "knee"))
    monkeypatch.setattr(cdr, "deserialize_message", lambda *_: pytest.fail("rclpy reads the whole message"))
    for position in ([3.0, 4.0], [-0.0, math.inf]):
        message = deserialize(_of(position))
        assert (list(message.name), list(message.position)) == (["a", "knee"], position)
    monkeypatch.undo()
    assert list(deserialize(renamed).name) == ["b", "knee"]


def test_another_byte_order_is_left_to_rclpy() -> None:
    little = _of([1.0, 2.0])
    # A whole message of which only the first four bytes say that it is big-endian.
    deserialize = Deserializer(JointState)
    deserialize(little)
    assert not _read_as_rclpy(deserialize, b"\0\0" + little[2:], JointState)
    # Float64MultiArray without dimensions, two numbers, by hand.
    big = (
        b"\0\0\0\0"
        + (0).to_bytes(4, "big") * 2
        + (2).to_bytes(4, "big")
        + bytes(4)
        + np.array([1.5, -2.0], ">f8").tobytes()
    )
    deserialize = Deserializer(Float64MultiArray)
    for _ in range(2):
        assert list(deserialize(big).data) == [1.5, -2.0]


def test_a_topic_that_keeps_changing_is_not_learned_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = cdr._learn
    monkeypatch.setattr(cdr, "_learn", lambda *given: calls.append(1) or real(*given))
    deserialize = Deserializer(JointState)
    for k in range(3 * ATTEMPTS):
        assert list(deserialize(_of([float(k)], (f"joint{k}",))).name) == [f"joint{k}"]
    assert len(calls) == ATTEMPTS


@pytest.mark.parametrize("cut", [0, 3, 4, 12, 40, -1])
def test_a_message_that_ends_too_soon_is_refused(cut: int) -> None:
    with pytest.raises(MessageError, match="ends before"):
        Deserializer(Float64MultiArray)(serialize_message(Float64MultiArray(data=[1.0] * 9))[:cut])


def test_lengths_beyond_the_end_are_refused() -> None:
    # 2³² - 1 dimensions: rclpy itself would try.
    with pytest.raises(MessageError, match="ends before"):
        Deserializer(Float64MultiArray)(b"\0\1\0\0" + b"\xff" * 4 + bytes(40))


def test_types_with_other_fields_are_refused() -> None:
    with pytest.raises(TypeError, match="float"):
        Deserializer(BatteryState)
