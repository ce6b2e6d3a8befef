"""What joystick and keys mean, without ROS; and the teleop node beside the policy node's topics."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import TwistStamped
from pseudo_terminal import ProgramOnTerminal
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool, Float64MultiArray

from robot_rl.errors import ConfigError
from robot_rl_bridge import ros_compat
from robot_rl_bridge.teleop import KEY_HOLD_S, Mapping, Teleop

pytestmark = pytest.mark.ros

MAPPING = Mapping((1, 0, 3), (0.5, 0.3, 0.8), (0.0, 0.0, 0.1), 4, 1, (("stand", 0),))
TIMEOUT_S = 0.25
NEUTRAL = (0.0, 0.0, 0.1)


def buttons(*pressed: int) -> list[int]:
    return [int(k in pressed) for k in range(8)]


@pytest.fixture
def teleop() -> Teleop:
    teleop = Teleop(MAPPING, TIMEOUT_S)
    teleop.joy([0.0] * 4, buttons(), 1.0)
    return teleop


def test_axes_move_only_while_the_button_is_held(teleop: Teleop) -> None:
    axes = [0.5, 1.0, 0.0, -1.0]
    teleop.joy(axes, buttons(), 1.1)
    assert not teleop.intent(1.1).held
    assert teleop.intent(1.1).values == NEUTRAL
    teleop.joy(axes, buttons(4), 1.2)
    intent = teleop.intent(1.2)
    assert intent.held
    assert intent.values == pytest.approx((0.5, 0.15, -0.7))


def test_a_silent_joystick_counts_as_released(teleop: Teleop) -> None:
    teleop.joy([1.0] * 4, buttons(4), 1.1)
    assert teleop.intent(1.1 + TIMEOUT_S - 0.01).held
    late = teleop.intent(1.1 + TIMEOUT_S + 0.01)
    assert not late.held
    assert late.values == NEUTRAL


def test_a_button_stuck_from_the_start_moves_nothing() -> None:
    teleop = Teleop(MAPPING, TIMEOUT_S)
    teleop.joy([1.0] * 4, buttons(4), 1.0)
    assert not teleop.intent(1.0).held
    teleop.joy([1.0] * 4, buttons(), 1.1)
    teleop.joy([1.0] * 4, buttons(4), 1.2)
    assert teleop.intent(1.2).held


def test_stop_outranks_the_dead_man(teleop: Teleop) -> None:
    teleop.joy([1.0] * 4, buttons(4, 1), 1.1)
    intent = teleop.intent(1.1)
    assert (intent.stop, intent.held, intent.values) == (True, False, NEUTRAL)


def test_a_request_is_told_once_and_on_the_press_only(teleop: Teleop) -> None:
    teleop.joy([0.0] * 4, buttons(0), 1.1)
    assert teleop.intent(1.1).request == "stand"
    teleop.joy([0.0] * 4, buttons(0), 1.15)
    assert teleop.intent(1.15).request == ""


@pytest.mark.parametrize(("axes", "count"), [([1.0] * 3, 8), ([1.0] * 4, 4), ([math.nan] * 4, 8)])
def test_another_joystick_is_refused_with_what_it_lacks(teleop: Teleop, axes: list, count: int) -> None:
    teleop.joy(axes, [1] * count, 1.3)
    assert "axes" in teleop.problem
    assert not teleop.intent(1.3).held


def test_keys_hold_for_as_long_as_a_terminal_takes_to_repeat_them() -> None:
    teleop = Teleop(MAPPING, TIMEOUT_S)
    teleop.key("s", 1.0)
    assert teleop.intent(1.1).values == pytest.approx((-0.5, 0.0, 0.1))
    assert not teleop.intent(1.0 + KEY_HOLD_S + 0.01).held
    teleop.key(" ", 2.0)
    assert teleop.intent(5.0).stop
    teleop.key("w", 6.0)
    assert not teleop.intent(6.0).stop


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"axes": (1, 0)}, "one entry per component"),
        ({"scale": (0.5, math.inf, 0.8)}, "finite"),
        ({"deadman_button": -1}, "dead-man"),
    ],
)
def test_a_mapping_that_cannot_work_is_refused(change: dict, words: str) -> None:
    fields = {"axes": (1, 0, 3), "scale": (0.5,) * 3, "offset": (0.0,) * 3, "deadman_button": 4, "estop_button": 1}
    with pytest.raises(ConfigError, match=words):
        Mapping(**{**fields, **change})


@pytest.mark.parametrize(("form", "kind", "topic"), [
    ("twist_stamped", TwistStamped, "cmd_vel"), ("array", Float64MultiArray, "policy/command"),
])  # fmt: skip
def test_the_node_tells_policy_and_watchdog(start_node, ros_domain, form: str, kind: type, topic: str) -> None:
    start_node("teleop_node", "teleop", command=form)
    with ros_compat.ros_context([]) as executor:
        node = Node("station", enable_rosout=False)
        executor.add_node(node)
        heard: dict[str, list] = {"held": [], "stop": [], "command": []}
        qos = ros_compat.COMMAND_QOS
        node.create_subscription(Bool, "policy/deadman", lambda m: heard["held"].append(m.data), qos)
        node.create_subscription(kind, topic, heard["command"].append, qos)
        ros_compat.hear_all(node, Bool, "estop", lambda m: heard["stop"].append(m.data))
        joy = node.create_publisher(Joy, "joy", ros_compat.STATUS_QOS)
        now = {"axes": [0.0, 1.0, 0.0, 0.0], "buttons": buttons()}
        node.create_timer(0.02, lambda: joy.publish(Joy(**now)))

        def until(condition) -> None:
            assert ros_compat.spin_while(executor, lambda: not condition(), 10.0), heard

        until(lambda: heard["held"])
        until(joy.get_subscription_count)
        ros_compat.spin_while(executor, lambda: True, 0.2)
        assert not any(heard["held"])
        assert not heard["command"]
        now["buttons"] = buttons(4)

        def speed() -> float:
            last = heard["command"][-1]
            return last.data[0] if form == "array" else last.twist.linear.x

        until(lambda: heard["held"][-1] and heard["command"])
        assert speed() == 0.5
        now["buttons"] = buttons(1)
        until(lambda: True in heard["stop"] and not heard["held"][-1] and speed() == 0.0)


def test_a_terminal_that_is_lost_releases_the_dead_man(ros_domain) -> None:
    node_program = str(Path(sys.executable).parent / "teleop_node")
    program = ProgramOnTerminal([node_program, "--ros-args", "-p", "source:=keyboard"])
    with ros_compat.ros_context([]) as executor:
        node = Node("station", enable_rosout=False)
        executor.add_node(node)
        held: list[bool] = []
        node.create_subscription(Bool, "policy/deadman", lambda m: held.append(m.data), ros_compat.COMMAND_QOS)
        node.create_timer(0.05, lambda: None if program.lost else program.type("w"))
        assert ros_compat.spin_while(executor, lambda: not any(held), 15.0)
        assert held[-1]
        program.lose()
        assert ros_compat.spin_while(executor, lambda: held[-1], 5.0)
        assert program.process.wait(5) == 0
