"""Parity on flights written down as formulas, whose mistakes are made by hand: what is named must be what was done."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from robot_rl.errors import ConfigError, LogError
from robot_rl.parity.assignment import assign
from robot_rl.parity.diagnose import AT_REST, EITHER, diagnose, mend
from robot_rl.parity.flight import Flight, from_log
from robot_rl.parity.relations import G_M_S2, rotation_vector
from robot_rl.parity.text import describe
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.testing.bundles import TinyPolicy

PERIOD_S, LOOP_S, LENGTH_S = 0.05, 0.01, 8.0
NOISE = {
    "joint_pos": 0.005, "joint_vel": 0.2, "joint_effort": 0.0, "imu_quat_wxyz": 0.01, "imu_ang_vel_b": 0.1,
    "imu_lin_acc_b": 0.2,
}  # fmt: skip


def flight_of(robot: RobotSpec, seed: int = 0) -> Flight:
    """A robot whose joints swing and whose base tumbles as sines say, under loads that need other targets than that."""
    rng = np.random.default_rng(seed)
    n, t = len(robot.joints), np.arange(0.0, LENGTH_S, LOOP_S)
    kp, kd = np.array([[j.kp_nm_rad, j.kd_nms_rad] for j in robot.joints]).T
    limit = np.array([j.effort_limit_nm for j in robot.joints])
    middle = np.array([0.5 * (j.lower_rad + j.upper_rad) for j in robot.joints])
    room = np.array([0.5 * (j.upper_rad - j.lower_rad) for j in robot.joints])
    rate, phase = rng.uniform(2, 6, (2, n)), rng.uniform(0, 6, (2, n))
    swing = np.minimum(room, 0.8) * 0.4
    angles = rate[:, None] * t[None, :, None] + phase[:, None]
    q = middle + swing * np.sin(angles).sum(0)
    dq = swing * (rate[:, None] * np.cos(angles)).sum(0)
    effort = 0.2 * limit * np.sin(1.3 * t[:, None] + phase[0])
    target = q + (kd * dq + effort) / kp
    state = {"joint_pos": q, "joint_vel": dq, "joint_effort": effort}
    if robot.floating_base:
        fine = np.arange(-1e-4, LENGTH_S, 1e-4)
        quat = orientation(fine)
        turn = rotation_vector(multiply(quat[:-1] * [1, -1, -1, -1], quat[1:])) / 1e-4
        at = np.searchsorted(fine, t - 1e-9)
        state["imu_quat_wxyz"], state["imu_ang_vel_b"] = quat[at], turn[at - 1]
        state["imu_lin_acc_b"] = G_M_S2 * matrix(quat[at])[:, 2]
    noisy = {f: v + NOISE[f] * rng.uniform(-1, 1, v.shape) for f, v in state.items()}
    return Flight(
        contract=TinyPolicy(robot, control_period_s=PERIOD_S).contract(),
        stamp_s=t + 10.0, state=noisy, command_s=t + 10.0,
        command={"position": target, "kp": np.tile(kp, (len(t), 1)), "kd": np.tile(kd, (len(t), 1))},
        mode=np.array(["run"] * len(t)),
    )  # fmt: skip


def orientation(t: np.ndarray) -> np.ndarray:
    """(T, 4): yaw, pitch and roll that swing, about a heading of 1 rad."""
    halves = 0.5 * np.stack((1.0 + 0.3 * np.sin(2 * t), 0.3 * np.sin(3 * t + 1), 0.3 * np.sin(2.5 * t + 2)))
    quat = np.array([1.0, 0.0, 0.0, 0.0])[None]
    for half, axis in zip(halves, (3, 2, 1), strict=True):
        step = np.zeros((len(t), 4))
        step[:, 0], step[:, axis] = np.cos(half), np.sin(half)
        quat = multiply(quat, step)
    return quat


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    w, x, y, z = a.T
    e, f, g, h = b.T
    rows = (
        w * e - x * f - y * g - z * h, w * f + x * e + y * h - z * g,
        w * g - x * h + y * e + z * f, w * h + x * g - y * f + z * e,
    )  # fmt: skip
    return np.stack(rows, 1)


def matrix(quat: np.ndarray) -> np.ndarray:
    """(T, 3, 3) from body to world."""
    w, x, y, z = quat.T
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return np.stack(rows, 1).reshape(-1, 3, 3)


FLIGHTS = {robot.name: flight_of(robot) for robot in (LEAP_HAND, UNITREE_G1)}


def named(flight: Flight) -> set[tuple[str, str, tuple[int, ...]]]:
    return {(c.kind, c.signal, tuple(sorted(c.channels))) for c in diagnose(flight).causes}


def columns(flight: Flight, field: str, edit: Callable[[np.ndarray], Any]) -> Flight:
    values = flight.state[field].copy()
    edited = edit(values)
    return flight.with_state(**{field: values if edited is None else edited})


def targets(flight: Flight, edit: Callable[[np.ndarray], Any]) -> Flight:
    """The log has the target that was meant; the servos had another one. So undo the edit on what is in the log."""
    values = flight.command["position"].copy()
    edited = edit(values)
    return replace(flight, command=flight.command | {"position": values if edited is None else edited})


def late(values: np.ndarray) -> np.ndarray:
    rows = round(PERIOD_S / LOOP_S)
    return np.concatenate((np.repeat(values[:1], rows, 0), values[:-rows]))


def swap(*order: int) -> Callable[[np.ndarray], None]:
    def edit(values: np.ndarray) -> None:
        values[:, sorted(order)] = values[:, list(order)]

    return edit


def times(factor: float, *columns: int) -> Callable[[np.ndarray], None]:
    def edit(values: np.ndarray) -> None:
        values[:, list(columns) or slice(None)] *= factor

    return edit


def plus(offset: float, column: int) -> Callable[[np.ndarray], None]:
    def edit(values: np.ndarray) -> None:
        values[:, column] += offset

    return edit


@pytest.mark.parametrize("robot", FLIGHTS)
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_said_of_a_good_robot(robot: str, seed: int) -> None:
    spec = LEAP_HAND if robot == "leap_hand" else UNITREE_G1
    diagnosis = diagnose(flight_of(spec, seed))
    assert diagnosis.causes == ()
    assert diagnosis.not_judged == ()
    assert all(comparison.judged.all() for name, comparison in diagnosis.comparisons.items() if name != "imu_lin_acc_b")


@pytest.mark.parametrize("robot", FLIGHTS)
@pytest.mark.parametrize(
    ("field", "edit", "expected"),
    [
        ("joint_vel", swap(7, 3), ("permutation", "joint_vel", (3, 7))),
        ("joint_vel", times(-1, 5), ("sign", "joint_vel", (5,))),
        ("joint_vel", times(1.6, 2), ("scale", "joint_vel", (2,))),
        ("joint_vel", times(180 / math.pi), ("unit", "joint_vel", ())),
        ("joint_vel", times(60 / (2 * math.pi)), ("unit", "joint_vel", ())),
        ("joint_vel", late, ("lag", "joint_vel", ())),
        ("joint_pos", swap(4, 1), ("permutation", "joint_pos", (1, 4))),
        ("joint_pos", times(-1, 0), ("sign", "joint_pos", (0,))),
        ("joint_pos", times(180 / math.pi), ("unit", AT_REST, ())),
        ("joint_pos", plus(0.2, 6), ("offset", "target", (6,))),
    ],
)
def test_mistakes_of_joint_states(robot: str, field: str, edit: Callable, expected: tuple) -> None:
    found = named(columns(FLIGHTS[robot], field, edit))
    assert found == {expected}


@pytest.mark.parametrize("robot", FLIGHTS)
@pytest.mark.parametrize(
    ("edit", "kind", "channels"),
    [
        (times(-1, 4), "sign", (4,)),
        (times(1.7, 3), "scale", (3,)),
        (times(math.pi / 180), "unit", ()),
        (plus(-0.2, 5), "offset", (5,)),
    ],
)
def test_mistakes_of_targets(robot: str, edit: Callable, kind: str, channels: tuple[int, ...]) -> None:
    found = diagnose(targets(FLIGHTS[robot], edit)).causes
    assert [(c.kind, c.channels) for c in found] == [(kind, channels)]
    assert found[0].signal in ("target", "joints")


def test_swapped_commands_come_with_the_gains_of_the_other_joint() -> None:
    flight = FLIGHTS["unitree_g1"]
    order = np.arange(29)
    order[[3, 17]] = 17, 3
    swapped = replace(flight, command={f: v[:, order] for f, v in flight.command.items()})
    (cause,) = diagnose(swapped).causes
    assert (cause.kind, cause.channels, cause.sources) == ("permutation", (3, 17), (17, 3))


def test_a_target_that_acts_a_step_late() -> None:
    flight = FLIGHTS["unitree_g1"]
    policy = np.arange(len(flight.command_s)) // 5 * 5  # a new target every 50 ms
    stepped = flight.command["position"][policy]
    pos, vel, kp, kd = flight.state["joint_pos"], flight.state["joint_vel"], flight.command["kp"], flight.command["kd"]
    effort = kp * (late(stepped) - pos) - kd * vel
    struck = replace(flight.with_state(joint_effort=effort), command=flight.command | {"position": stepped})
    lags = [cause for cause in diagnose(struck).causes if cause.kind == "lag"]
    assert [cause.signal for cause in lags] == ["target"]
    assert lags[0].value == pytest.approx(PERIOD_S, abs=0.26 * PERIOD_S)


def in_world(field: str) -> Callable[[Flight], Flight]:
    def edit(flight: Flight) -> Flight:
        turned = np.einsum("tij,tj->ti", matrix(flight.state["imu_quat_wxyz"]), flight.state[field])
        return flight.with_state(**{field: turned})

    return edit


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (
            lambda f: columns(f, "imu_quat_wxyz", lambda q: q[:, [1, 2, 3, 0]]),
            ("quaternion_order", "imu_quat_wxyz", ()),
        ),
        (
            lambda f: columns(f, "imu_quat_wxyz", lambda q: q * [1, -1, -1, -1]),
            ("quaternion_conjugate", "imu_quat_wxyz", ()),
        ),
        (in_world("imu_ang_vel_b"), ("frame", "imu_ang_vel_b", ())),
        (in_world("imu_lin_acc_b"), ("frame", "imu_lin_acc_b", ())),
        (lambda f: columns(f, "imu_ang_vel_b", swap(1, 0)), ("permutation", "imu_ang_vel_b", (0, 1))),
        (lambda f: columns(f, "imu_ang_vel_b", times(-1, 2)), ("sign", "imu_ang_vel_b", (2,))),
        (lambda f: columns(f, "imu_ang_vel_b", times(180 / math.pi)), ("unit", "imu_ang_vel_b", ())),
        (lambda f: columns(f, "imu_ang_vel_b", times(0.6)), ("scale", "imu_ang_vel_b", ())),
        (lambda f: columns(f, "imu_ang_vel_b", plus(0.3, 1)), ("offset", "imu_ang_vel_b", (1,))),
        (lambda f: columns(f, "imu_ang_vel_b", late), ("lag", "imu_ang_vel_b", ())),
        (lambda f: columns(f, "imu_lin_acc_b", times(1 / G_M_S2)), ("unit", "imu_lin_acc_b", ())),
        (lambda f: columns(f, "imu_lin_acc_b", times(-1, 1)), ("sign", "imu_lin_acc_b", (1,))),
        (lambda f: columns(f, "imu_lin_acc_b", plus(2.0, 0)), ("offset", "imu_lin_acc_b", (0,))),
    ],
)
def test_mistakes_of_the_imu(edit: Callable[[Flight], Flight], expected: tuple) -> None:
    assert named(edit(FLIGHTS["unitree_g1"])) == {expected}


@pytest.mark.parametrize("phase", [1.05, 4.2])
def test_a_base_that_wobbles_about_all_axes_at_a_time_says_nothing_against_its_gyroscope(phase: float) -> None:
    """Body rates integrate to something else than the rotation from start to end (Goodman and Robinson 1958): here
    pitch times yaw makes a roll, which seems to have the wrong sign at one phase, and the wrong size at another."""
    rng, good = np.random.default_rng(0), FLIGHTS["unitree_g1"]
    t, fine_s = good.stamp_s - good.stamp_s[0], 1e-4
    fine = np.arange(-fine_s, t[-1] + fine_s, fine_s)
    roll, pitch, yaw = 0.1 * np.sin(3.5 * fine + phase), 0.35 * np.cos(7 * fine), 0.35 * np.sin(10.5 * fine + 0.8)
    vector = np.stack((roll, pitch, yaw), 1)
    angle = np.linalg.norm(vector, axis=1, keepdims=True)
    quat = np.concatenate((np.cos(angle / 2), np.sin(angle / 2) * vector / angle), 1)
    turn = rotation_vector(multiply(quat[:-1] * [1, -1, -1, -1], quat[1:])) / fine_s
    at = np.searchsorted(fine, t - 1e-9)
    state = {"imu_quat_wxyz": quat[at], "imu_ang_vel_b": turn[at - 1]}
    state["imu_lin_acc_b"] = G_M_S2 * matrix(quat[at])[:, 2]
    noisy = {f: v + NOISE[f] * rng.uniform(-1, 1, v.shape) for f, v in state.items()}
    assert named(good.with_state(**noisy)) == set()


def test_a_sensor_that_is_scaled_is_one_mistake_and_an_axis_of_it_another() -> None:
    good = FLIGHTS["unitree_g1"]
    (cause,) = diagnose(columns(good, "imu_ang_vel_b", times(1.7))).causes
    assert (cause.kind, cause.signal, cause.channels) == ("scale", "imu_ang_vel_b", ())
    assert cause.value == pytest.approx(1.7, rel=0.02)
    assert named(columns(good, "imu_ang_vel_b", times(1.7, 1))) == {("scale", "imu_ang_vel_b", (1,))}


def test_two_mistakes_are_two_causes() -> None:
    flight = columns(FLIGHTS["unitree_g1"], "joint_vel", swap(9, 2))
    flight = columns(flight, "imu_quat_wxyz", lambda q: q[:, [1, 2, 3, 0]])
    assert named(flight) == {("permutation", "joint_vel", (2, 9)), ("quaternion_order", "imu_quat_wxyz", ())}


def test_without_held_servos_velocity_and_position_accuse_each_other() -> None:
    flight = columns(FLIGHTS["leap_hand"], "joint_vel", times(-1, 5))
    limp = replace(flight, command={f: np.zeros_like(v) for f, v in flight.command.items()})
    diagnosis = diagnose(limp)
    assert [(c.kind, c.signal, c.channels) for c in diagnosis.causes] == [("sign", EITHER, (5,))]
    assert any("never held" in note for note in diagnosis.not_judged)


def test_a_joint_that_does_not_move_is_not_judged() -> None:
    flight = FLIGHTS["leap_hand"]
    still = columns(flight, "joint_pos", lambda q: q.__setitem__((slice(None), 4), q[0, 4]))
    still = columns(still, "joint_vel", lambda v: v.__setitem__((slice(None), 4), 0.0))
    comparison = diagnose(still).comparisons["joint_vel"]
    assert not comparison.judged[4]
    assert comparison.judged[:4].all()


def test_what_is_mended_is_as_before() -> None:
    flight = columns(FLIGHTS["leap_hand"], "joint_vel", swap(4, 7, 1))
    (cause,) = diagnose(flight).causes
    np.testing.assert_array_equal(mend(flight, [cause]).state["joint_vel"], FLIGHTS["leap_hand"].state["joint_vel"])


def test_words_name_joints_and_what_to_mend() -> None:
    (cause,) = diagnose(columns(FLIGHTS["leap_hand"], "joint_vel", swap(2, 0))).causes
    text = describe(cause, LEAP_HAND.joint_names)
    assert text == "joint_vel: if_mcp and if_pip are swapped. Report joint_vel in the contract's order."


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_assignments_are_the_cheapest(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        cost = rng.normal(size=(n, n))
        cheapest = min(itertools.permutations(range(n)), key=lambda p: sum(cost[i, p[i]] for i in range(n)))
        assert tuple(assign(cost)) == cheapest


def test_a_flight_checks_its_arrays() -> None:
    flight = FLIGHTS["leap_hand"]
    with pytest.raises(ConfigError, match="stamp_s must increase"):
        replace(flight, stamp_s=flight.stamp_s[::-1])
    with pytest.raises(ConfigError, match="joint_vel must have 800 rows"):
        flight.with_state(joint_vel=flight.state["joint_vel"][:-1])


def log_of(flight: Flight, contract: object) -> Any:
    """As robot_rl.runtime.log_reader.Log: messages, and columns of them; one measurement came twice, one is NaN."""
    states = [
        {"tick": k, "stamp_s": np.array([s]), **{f: v[k] for f, v in flight.state.items()}}
        for k, s in enumerate(flight.stamp_s)
    ]
    states[7] = {**states[6], "tick": 7}
    states[9] = {**states[9], "joint_pos": np.full(16, np.nan)}
    commands = [
        {"tick": k, "t_s": s, **{f: v[k] for f, v in flight.command.items()}} for k, s in enumerate(flight.command_s)
    ]
    messages = {
        "/state": states,
        "/command": commands,
        "/mode": [{"tick": k, "mode": "run"} for k in range(len(states))],
    }

    def column(topic: str, name: str) -> np.ndarray:
        return np.array([m.get(name, np.zeros(0)) for m in messages[topic]])

    return cast(Any, SimpleNamespace(contract=contract, messages=messages, column=column))


def test_a_log_becomes_a_flight_with_each_measurement_once() -> None:
    flight = FLIGHTS["leap_hand"]
    read = from_log(log_of(flight, flight.contract))
    rows = np.delete(np.arange(len(flight.stamp_s)), [7, 9])
    np.testing.assert_array_equal(read.stamp_s, flight.stamp_s[rows])
    np.testing.assert_array_equal(read.state["joint_pos"], flight.state["joint_pos"][rows])
    assert diagnose(read).ok
    with pytest.raises(LogError, match="no contract"):
        from_log(log_of(flight, None))
