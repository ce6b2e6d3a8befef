"""Messages to values and back, through the real serialiser, and what is refused on the way."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64, Float64MultiArray

from robot_rl.contract import JointCommand, damping_command
from robot_rl_bridge import converters
from robot_rl_bridge.converters import JointOrder, MessageError

pytestmark = pytest.mark.ros

NAMES = ("a", "b", "c")
COMMAND = JointCommand(
    position=np.array([0.1, -0.2, 0.3]),
    velocity=np.array([1.0, 2.0, 3.0]),
    effort=np.array([-1.0, 0.0, 1e-9]),
    kp=np.array([3.0, 4.0, 5.0]),
    kd=np.array([0.1, 0.2, 0.3]),
    stamp_s=50.0,
    expires_s=50.1,
)


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def encoded(command: JointCommand = COMMAND, **changes) -> Float64MultiArray:
    arguments = {"session": 7, "sequence": 3, "now_s": 50.02, **changes}
    return converters.CommandWriter(NAMES).fill(command, **arguments)


def decode(message: Float64MultiArray, names=NAMES):
    return converters.decode_joint_command(over_the_wire(message), JointOrder(names, extra_allowed=False))


def test_a_joint_command_survives_the_wire_bit_for_bit() -> None:
    received = decode(encoded())
    assert (received.session, received.sequence, received.sent_s) == (7.0, 3.0, 50.02)
    assert received.time_to_live_s == pytest.approx(0.08)
    for row, name in zip(received.values, ("position", "velocity", "effort", "kp", "kd"), strict=True):
        np.testing.assert_array_equal(row, getattr(COMMAND, name))


def test_its_bytes_are_those_that_rclpy_reads() -> None:
    writer = converters.CommandWriter(NAMES)
    for sequence in (1, 2):
        message = writer.fill(COMMAND, session=7, sequence=sequence, now_s=50.02)
        assert deserialize_message(writer.to_bytes(), Float64MultiArray) == message


def test_a_joint_command_is_matched_by_name() -> None:
    received = decode(encoded(), names=("c", "a", "b"))
    np.testing.assert_array_equal(received.values[0], [0.3, 0.1, -0.2])
    np.testing.assert_array_equal(received.values[3], [5.0, 3.0, 4.0])


def test_a_damping_command_is_a_joint_command() -> None:
    received = decode(encoded(damping_command(np.array([0.1, 0.2, 0.3]), 50.0, 0.1)))
    np.testing.assert_array_equal(received.values, [[0, 0, 0]] * 4 + [[0.1, 0.2, 0.3]])


@pytest.mark.parametrize("field", ["position", "velocity", "effort", "kp", "kd"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_neither_sent_nor_obeyed(field: str, value: float) -> None:
    bad = getattr(COMMAND, field).copy()
    bad[1] = value
    with pytest.raises(MessageError, match=f"{field} not finite"):
        encoded(dataclasses.replace(COMMAND, **{field: bad}))
    message = encoded()
    message.data[converters.HEADER + 3 * converters.ROWS.index(field) + 1] = value
    with pytest.raises(MessageError, match=f"{field} not finite"):
        decode(message)


def test_a_command_of_the_wrong_length_is_not_sent() -> None:
    with pytest.raises(MessageError, match=r"kp has shape \(2,\)"):
        encoded(dataclasses.replace(COMMAND, kp=np.zeros(2)))


def test_negative_gains_are_neither_sent_nor_obeyed() -> None:
    with pytest.raises(MessageError, match="negative"):
        encoded(dataclasses.replace(COMMAND, kd=-COMMAND.kd))
    message = encoded()
    message.data[-1] = -0.1
    with pytest.raises(MessageError, match="negative"):
        decode(message)


def test_a_command_that_has_already_expired_is_not_sent() -> None:
    with pytest.raises(MessageError, match="time to live"):
        encoded(now_s=50.2)


@pytest.mark.parametrize("time_to_live_s", [0.0, -1.0, 100.0, float("nan"), float("inf")])
def test_a_time_to_live_that_a_robot_must_not_trust_is_refused(time_to_live_s: float) -> None:
    message = encoded()
    message.data[3] = time_to_live_s
    with pytest.raises(MessageError, match="time to live"):
        decode(message)


def test_wrong_joint_names_are_named() -> None:
    with pytest.raises(MessageError, match=r"missing \['d'\], extra \['c'\]"):
        decode(encoded(), names=("a", "b", "d"))


def test_a_repeated_joint_is_named() -> None:
    message = encoded()
    message.layout.dim[1].label = "a,b,b"
    with pytest.raises(MessageError, match=r"repeated \['b'\]"):
        decode(message)


def test_a_truncated_or_foreign_array_is_no_command() -> None:
    message = encoded()
    message.data = message.data[:-1]
    with pytest.raises(MessageError, match="18 values for 3 joints"):
        decode(message)
    with pytest.raises(MessageError, match="not a joint command"):
        decode(Float64MultiArray())


def test_joint_states_are_matched_by_name_whatever_their_order() -> None:
    order = JointOrder(NAMES, extra_allowed=True)
    for names in (("a", "b", "c"), ("c", "a", "b"), ("b", "gripper", "c", "a"), ("a", "b", "c")):
        values = {"a": 1.0, "b": 2.0, "c": 3.0, "gripper": 9.0}
        position = np.array([values[n] for n in names])
        message = over_the_wire(converters.encode_joint_state(names, 12.5, position, -position, 2 * position))
        pos, vel, effort = converters.decode_joint_state(message, order)
        np.testing.assert_array_equal(pos, [1.0, 2.0, 3.0])
        np.testing.assert_array_equal(vel, [-1.0, -2.0, -3.0])
        np.testing.assert_array_equal(effort, [2.0, 4.0, 6.0])
        assert converters.stamp_of(message) == 12.5


def test_a_joint_state_without_effort_has_none() -> None:
    message = converters.encode_joint_state(NAMES, 0.0, np.zeros(3), np.zeros(3), None)
    assert converters.decode_joint_state(over_the_wire(message), JointOrder(NAMES, extra_allowed=True))[2] is None


@pytest.mark.parametrize(
    ("names", "position", "velocity", "message"),
    [
        (["a", "b"], [0.0] * 2, [0.0] * 2, r"missing \['c'\]"),
        (["a", "b", "c"], [0.0] * 2, [0.0] * 3, "'position': 2"),
        (["a", "b", "c"], [0.0] * 3, [], "'velocity': 0"),
        (["a", "b", "a", "c"], [0.0] * 4, [0.0] * 4, r"repeated \['a'\]"),
        ([], [], [], "missing"),
    ],
)
def test_an_incomplete_joint_state_is_refused(names, position, velocity, message: str) -> None:
    state = over_the_wire(JointState(name=names, position=position, velocity=velocity))
    with pytest.raises(MessageError, match=message):
        converters.decode_joint_state(state, JointOrder(NAMES, extra_allowed=True))


def test_nan_in_a_joint_state_reaches_the_safety_filter() -> None:
    message = converters.encode_joint_state(NAMES, 0.0, np.array([0.0, np.nan, 0.0]), np.zeros(3), None)
    position, _, _ = converters.decode_joint_state(over_the_wire(message), JointOrder(NAMES, extra_allowed=True))
    assert np.isnan(position[1])


def test_the_scalar_of_an_imu_quaternion_changes_places() -> None:
    quat = np.array([0.1, 0.2, 0.3, 0.4])
    message = over_the_wire(converters.encode_imu(3.25, "pelvis", quat, np.array([1.0, 2, 3]), np.array([4.0, 5, 6])))
    assert (message.orientation.w, message.orientation.x) == (0.1, 0.2)
    assert message.header.frame_id == "pelvis"
    decoded = converters.decode_imu(message)
    for value, expected in zip(decoded, (quat, [1, 2, 3], [4, 5, 6]), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_an_imu_without_orientation_is_refused() -> None:
    message = Imu()
    message.orientation_covariance[0] = -1.0
    with pytest.raises(MessageError, match="orientation"):
        converters.decode_imu(over_the_wire(message))


@pytest.mark.parametrize("data", [[1.0, 2.0], [1.0, 2.0, float("nan")], [1.0, 2.0, 3.0, 4.0]])
def test_a_policy_command_must_be_finite_and_complete(data: list[float]) -> None:
    with pytest.raises(MessageError, match="3 finite numbers"):
        converters.decode_command(Float64MultiArray(data=data), 3, 0.0)


def test_a_policy_command_carries_its_time_of_arrival() -> None:
    command = converters.decode_command(over_the_wire(Float64MultiArray(data=[1.0, 2.0, 3.0])), 3, 8.5)
    assert command.stamp_s == 8.5
    assert command.values.dtype == np.float32
    np.testing.assert_array_equal(command.values, [1.0, 2.0, 3.0])


@pytest.mark.parametrize("stamp_s", [0.0, 1.999999999, 1795219560.043815591])
def test_times_keep_their_microsecond(stamp_s: float) -> None:
    message = converters.time_message(stamp_s)
    assert message.sec + 1e-9 * message.nanosec == pytest.approx(stamp_s, abs=1e-6)


def test_importing_the_bridge_switched_field_checks_on() -> None:
    with pytest.raises(AssertionError):
        Float64(data="garbage")


def test_a_writer_fills_one_message_again_and_again() -> None:
    writer, n = converters.CommandWriter(NAMES), len(NAMES)
    order = converters.JointOrder(NAMES, extra_allowed=False)
    first = writer.fill(damping_command(np.full(n, 0.5), 1.0, 0.1), session=3, sequence=1, now_s=1.0)
    assert converters.decode_joint_command(first, order).values[4] == pytest.approx(np.full(n, 0.5))
    second = writer.fill(damping_command(np.full(n, 0.25), 2.0, 0.1), session=3, sequence=2, now_s=2.0)
    received = converters.decode_joint_command(second, order)
    assert second is first
    assert (received.sequence, received.sent_s) == (2.0, 2.0)
    assert received.values[4] == pytest.approx(np.full(n, 0.25))
