"""Parity where servos are soon stopped, hardly move, or are wiggled: flights written down by the servos' own law."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_rl.contract import JointCommand, RobotState
from robot_rl.errors import ConfigError, LogError
from robot_rl.parity.diagnose import EITHER, diagnose
from robot_rl.parity.flight import Flight, FlightRecorder
from robot_rl.parity.text import describe
from robot_rl.parity.wiggle_log import read_wiggle_log, write_wiggle_log
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.testing.bundles import TinyPolicy

LOOP_S, PERIOD_S = 0.01, 0.05
JOINT = 6
Edit = Callable[[np.ndarray], None]


def unchanged(_values: np.ndarray) -> None: ...


def flight(
    robot: RobotSpec, held_s: float, *, told: Edit = unchanged, read: Edit = unchanged, swing_rad: float = 0.0,
    load: float = 0.2, stiffness: float = 1.0, seed: int = 0,
) -> Flight:  # fmt: skip
    """Limp and moved by hand for 2 s, then held at its default pose for `held_s`; `told`, `read`: a driver's mistakes.

    While it is held, each target swings by `swing_rad`, and loads of up to `load` of the limits come and go.
    """
    rng = np.random.default_rng(seed)
    n, t = len(robot.joints), np.arange(0.0, 2.0 + held_s, LOOP_S)
    kp, kd, limit = np.array([[j.kp_nm_rad, j.kd_nms_rad, j.effort_limit_nm] for j in robot.joints]).T
    phase, held = rng.uniform(0, 6, n), (t >= 2.0)[:, None]
    kp = np.where(held, stiffness * kp, 0.0)
    default = np.array([j.default_pos_rad for j in robot.joints])
    target = default + swing_rad * np.sin(4 * t[:, None] + phase)
    true_target = target.copy()
    told(true_target)
    effort = np.where(held, load * limit * np.sin(3 * t[:, None] + phase), 0.0)
    # Where the servo's law has it while its load is this one; kd dq is small beside both.
    q = np.where(held, true_target - effort / np.maximum(kp, 1e-9), default + 0.2 * np.sin(5 * t[:, None] + phase))
    dq = np.gradient(q, LOOP_S, axis=0)
    dq[np.searchsorted(t, 2.0) - 1 : np.searchsorted(t, 2.0) + 2] = 0.0
    effort = np.where(held, np.clip(kp * (true_target - q) - kd * dq, -limit, limit), 0.0)
    pos = q.copy()
    read(pos)
    state = {"joint_pos": pos, "joint_vel": np.gradient(pos, LOOP_S, axis=0), "joint_effort": effort}
    noise = {"joint_pos": 0.005, "joint_vel": 0.2, "joint_effort": 0.02 * limit}
    return Flight(
        contract=TinyPolicy(robot, control_period_s=PERIOD_S).contract(),
        stamp_s=t + 10.0, state={f: v + noise[f] * rng.uniform(-1, 1, v.shape) for f, v in state.items()},
        command_s=t + 10.0 - 0.002,
        command={"position": target, "kp": kp, "kd": np.tile(kd, (len(t), 1))},
        mode=np.array(["stand"] * len(t)),
    )  # fmt: skip


def times(factor: float, *columns: int) -> Edit:
    def edit(values: np.ndarray) -> None:
        values[:, list(columns) or slice(None)] *= factor

    return edit


def plus(offset: float, column: int) -> Edit:
    def edit(values: np.ndarray) -> None:
        values[:, column] += offset

    return edit


def both(first: Edit, second: Edit) -> Edit:
    def edit(values: np.ndarray) -> None:
        first(values)
        second(values)

    return edit


def named(*flights: Flight) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(c.kind, c.signal, c.channels) for c in diagnose(*flights).causes]


@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1], ids=["hand", "humanoid"])
@pytest.mark.parametrize(("held_s", "stiffness"), [(0.04, 0.1), (0.5, 0.3), (3.0, 1.0)])
def test_nothing_is_said_of_servos_that_do_as_they_are_told(robot: RobotSpec, held_s: float, stiffness: float) -> None:
    assert named(flight(robot, held_s, stiffness=stiffness)) == []


def test_a_unit_shows_in_the_first_row_that_all_servos_have_in_common() -> None:
    struck = flight(UNITREE_G1, 0.04, told=times(180 / math.pi), stiffness=0.1)
    assert named(struck) == [("unit", "target", ())]


def test_a_unit_and_an_offset_of_one_target() -> None:
    struck = flight(LEAP_HAND, 0.5, told=both(times(math.pi / 180), plus(0.25, JOINT)), swing_rad=0.2, load=0.02)
    assert named(struck) == [("unit", "target", ()), ("offset", "target", (JOINT,))]


def turned(*joints: int) -> Edit:
    """Each of `joints` is told the next one's target."""

    def edit(values: np.ndarray) -> None:
        values[:, list(joints)] = values[:, [*joints[1:], joints[0]]]

    return edit


def test_each_cycle_is_a_mistake() -> None:
    struck = flight(LEAP_HAND, 1.0, told=both(turned(1, 2), turned(5, 6, 7)), swing_rad=0.2, load=0.05)
    assert named(struck) == [("permutation", "target", (1, 2)), ("permutation", "target", (5, 6, 7))]


@pytest.mark.parametrize("joints", [(2, 6, 1), (3, 7, 2), (4, 8, 1)])
def test_a_joint_whose_target_is_the_same_as_its_neighbours_is_part_of_the_cycle(joints: tuple[int, ...]) -> None:
    """At rest it seems right; where it moves, it does not."""
    resting = flight(LEAP_HAND, 0.6, told=turned(*joints), load=0.05)
    moving = flight(LEAP_HAND, 2.0, told=turned(*joints), load=0.05, swing_rad=0.15, seed=7)
    assert named(resting, moving) == [("permutation", "target", tuple(sorted(joints)))]


@pytest.mark.parametrize(("told", "kind"), [(times(1.6, JOINT), "scale"), (plus(0.3, JOINT), "offset")])
def test_what_a_target_at_rest_does_not_tell_wiggling_does(told: Edit, kind: str) -> None:
    resting = flight(LEAP_HAND, 1.0, told=told, load=0.05)
    (cause,) = diagnose(resting).causes
    assert (cause.kind, cause.signal, cause.channels) == ("unclear", "target", (JOINT,))
    assert "robot-rl wiggle --joints mf_pip --log" in describe(cause, LEAP_HAND.joint_names)
    wiggled = flight(LEAP_HAND, 2.0, told=told, load=0.05, swing_rad=0.15, seed=1)
    assert named(resting, wiggled) == [(kind, "target", (JOINT,))]


def test_a_position_that_is_read_too_large_shows_in_how_far_a_load_moves_it() -> None:
    struck = flight(LEAP_HAND, 3.0, read=times(1.7, JOINT), load=0.6, stiffness=0.3)
    # Velocity is that of the position as it is read: the joint as a whole is scaled.
    assert named(struck) == [("scale", "joints", (JOINT,))]


def test_a_position_near_zero_does_not_tell_whether_it_or_its_velocity_is_scaled() -> None:
    good = flight(LEAP_HAND, 1.0, load=0.01)
    slow = good.state["joint_vel"].copy()
    slow[:, JOINT] *= 0.6
    limp = replace(good.with_state(joint_vel=slow), command={f: 0 * v for f, v in good.command.items()})
    assert named(limp) == [("scale", EITHER, (JOINT,))]


@pytest.mark.parametrize("field", ["joint_vel", "joint_pos"])
def test_what_is_late_is_named_and_never_what_would_be_early(field: str) -> None:
    good = flight(LEAP_HAND, 3.0, swing_rad=0.2)
    rows = round(PERIOD_S / LOOP_S)
    late = np.concatenate((np.repeat(good.state[field][:1], rows, 0), good.state[field][:-rows]))
    (cause, *_) = diagnose(good.with_state(**{field: late})).causes
    assert (cause.kind, cause.signal) == ("lag", field)
    assert cause.value == pytest.approx(PERIOD_S, abs=0.26 * PERIOD_S)


def recorded() -> FlightRecorder:
    """One joint of a hand, sent to and fro."""
    recorder, n = FlightRecorder(), len(LEAP_HAND.joints)
    for k in range(200):
        now_s, q, zero = 5.0 + k * LOOP_S, np.zeros((1, n)), np.zeros(n)
        q[0, JOINT] = 0.1 * math.sin(k / 10)
        recorder.take(
            now_s, JointCommand(q[0].copy(), zero, zero, zero + 1.0, zero + 0.1, now_s, now_s + 0.1),
            RobotState(np.array([now_s + 0.005]), q, np.zeros((1, n)), joint_effort=np.zeros((1, n))),
        )  # fmt: skip
    return recorder


def test_a_wiggle_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "wiggle.npz"
    contract = TinyPolicy(LEAP_HAND).contract()
    write_wiggle_log(path, LEAP_HAND, recorded())
    read, direct = read_wiggle_log(path, contract), recorded().flight(contract)
    np.testing.assert_array_equal(read.stamp_s, direct.stamp_s)
    np.testing.assert_array_equal(read.command["position"], direct.command["position"])
    assert read.state.keys() == {"joint_pos", "joint_vel", "joint_effort"}
    np.testing.assert_array_equal(read.state["joint_pos"], direct.state["joint_pos"])
    assert set(read.mode) == {"wiggle"}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("kp", np.zeros((2, 16)), "kp must have .* rows"),
        ("joint_pos", np.zeros((40, 3)), "16 columns, one per joint, got 3"),
        ("position", np.array(["x"]), "position must be a table of numbers"),
        ("stamp_s", np.array([np.nan]), "stamp_s has values that are not finite"),
    ],
)
def test_a_damaged_wiggle_log_is_refused(tmp_path: Path, name: str, values: np.ndarray, message: str) -> None:
    path = tmp_path / "wiggle.npz"
    write_wiggle_log(path, LEAP_HAND, recorded())
    with np.load(path) as file:
        arrays: dict[str, Any] = dict(file) | {name: values}
    np.savez(path, **arrays)
    with pytest.raises(LogError, match=message):
        read_wiggle_log(path, TinyPolicy(LEAP_HAND).contract())


def test_what_a_sensor_failed_to_measure_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "wiggle.npz"
    write_wiggle_log(path, LEAP_HAND, recorded())
    with np.load(path) as file:
        arrays: dict[str, Any] = dict(file)
    arrays["joint_vel"][1, 4] = np.nan
    np.savez(path, **arrays)
    read = read_wiggle_log(path, TinyPolicy(LEAP_HAND).contract())
    np.testing.assert_array_equal(read.stamp_s, np.delete(arrays["stamp_s"], 1))


def test_other_robots_and_other_files_are_refused(tmp_path: Path) -> None:
    write_wiggle_log(tmp_path / "hand.npz", LEAP_HAND, recorded())
    with pytest.raises(LogError, match="leap_hand/right, not of unitree_g1"):
        read_wiggle_log(tmp_path / "hand.npz", TinyPolicy(UNITREE_G1).contract())
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "pickle.npz", robot=np.array([{}], dtype=object))
    np.savez(tmp_path / "other.npz", joint_pos=np.zeros(3))
    for name in ("text", "pickle", "other", "missing"):
        with pytest.raises(LogError, match="no log of wiggled joints"):
            read_wiggle_log(tmp_path / f"{name}.npz", TinyPolicy(LEAP_HAND).contract())
    with pytest.raises(ConfigError, match="nothing was measured"):
        write_wiggle_log(tmp_path / "empty.npz", LEAP_HAND, FlightRecorder())
