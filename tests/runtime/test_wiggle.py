"""Wiggle on robots whose wiring is wrong on purpose, in time that only the test makes pass."""

import dataclasses
import os
import signal
import sys

import numpy as np
import pytest

from robot_rl.commands.main import main
from robot_rl.commands.wiggle import unit_lines
from robot_rl.contract import JointCommand, NumpyState, RobotState
from robot_rl.errors import ConfigError
from robot_rl.robots import FRANKA_PANDA, LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.robots.tip_motion import tip_motion_m
from robot_rl.robots.unit import JointWiring, UnitConfig
from robot_rl.runtime.interface import Health
from robot_rl.runtime.wiggle import Finding, WiggleAborted, WiggleConfig, wiggle
from robot_rl.testing.fakes import FakeClock

CONFIG = WiggleConfig()
NAMES = LEAP_HAND.joint_names


class Miswired:
    """Takes the command of joint i as one for joint `order[i]`, times `sign[i]`. Velocity is in proportion to stiffness
    and distance, as of a heavily damped joint. Records what it is told."""

    def __init__(self, spec: RobotSpec, clock: FakeClock, order: np.ndarray, sign: np.ndarray, pos: np.ndarray) -> None:
        self.spec, self.pos = spec, pos.copy()
        self.commands: list[JointCommand] = []
        self.stopped = False
        self._clock, self._order, self._sign = clock, order, sign
        self._kp = np.array([j.kp_nm_rad for j in spec.joints])
        self._target, self._rate, self._vel = pos.copy(), np.zeros_like(pos), np.zeros_like(pos)
        self._time_s = clock.now()

    def connect(self) -> None: ...

    def write(self, command: JointCommand) -> JointCommand:
        self._advance()
        self.commands.append(command)
        self._target[self._order] = self._sign * command.position
        self._rate[self._order] = command.kp / self._kp / 0.05
        return command

    def read(self) -> NumpyState | None:
        self._advance()
        return RobotState(np.array([self._clock.now()]), self.pos[None].copy(), self._vel[None].copy())

    def stop(self) -> None:
        self.stopped = True

    def _advance(self) -> None:
        elapsed_s, self._time_s = self._clock.now() - self._time_s, self._clock.now()
        if elapsed_s > 0:
            step = (self._target - self.pos) * (1 - np.exp(-self._rate * elapsed_s))
            self.pos, self._vel = self.pos + step, step / elapsed_s


def random_wiring(spec: RobotSpec, seed: int, swaps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(order, sign, pose): `swaps` joints permuted, each sign turned with probability a half, anywhere in range."""
    rng = np.random.default_rng(seed)
    n = len(spec.joints)
    order, chosen = np.arange(n), rng.choice(n, swaps, replace=False)
    order[chosen] = np.roll(order[chosen], 1)
    sign = rng.choice([-1.0, 1.0], n)
    low, high = (np.array([getattr(j, f"{side}_rad") for j in spec.joints]) for side in ("lower", "upper"))
    return order, sign, rng.uniform(np.maximum(low, -1.0), np.minimum(high, 1.0))


def damped_at_the_end(robot: Miswired) -> bool:
    return robot.stopped and not any(command.kp.any() for command in robot.commands[-40:])


@pytest.mark.parametrize("spec", [LEAP_HAND, FRANKA_PANDA, UNITREE_G1], ids=lambda s: s.name)
def test_a_robot_that_is_what_it_is_called(spec: RobotSpec) -> None:
    clock = FakeClock()
    n = len(spec.joints)
    robot = Miswired(spec, clock, np.arange(n), np.ones(n), np.array([j.default_pos_rad for j in spec.joints]))
    findings = wiggle(robot, clock, CONFIG)
    assert [f.joint for f in findings] == list(spec.joint_names)
    assert all(f.ok and f.verdict == "ok" for f in findings)
    assert damped_at_the_end(robot)
    kp = np.array([j.kp_nm_rad for j in spec.joints])
    assert all((command.kp <= 0.3 * kp + 1e-12).all() for command in robot.commands)


@pytest.mark.parametrize("seed", range(20))
def test_permutations_and_signs_are_found(seed: int) -> None:
    """Nothing is known of the wiring: half of the signs wrong, up to all joints permuted, any pose."""
    clock = FakeClock()
    order, sign, pose = random_wiring(LEAP_HAND, seed, swaps=[0, 2, 5, 16][seed % 4])
    robot = Miswired(LEAP_HAND, clock, order, sign, pose)
    findings = wiggle(robot, clock, CONFIG)
    found = [(f.moved, f.sign) for f in findings]
    assert found == [(NAMES[j], s) for j, s in zip(order, sign, strict=True)]
    assert [f.ok for f in findings] == [(j == i and s > 0) for i, (j, s) in enumerate(zip(order, sign, strict=True))]
    assert damped_at_the_end(robot)
    # Where something moved that should have stayed, no two joints were stiff ever after.
    if [f.ok for f in findings] != [True] * 16 and np.abs(pose[order] - sign * pose).max() > 0.2:
        assert all((command.kp > 0).sum() <= 1 for command in robot.commands[60:])


def test_verdicts_in_words() -> None:
    assert Finding("a", ()).verdict == "nothing moved"
    assert Finding("a", (("a", 0.9),)).verdict == "ok"
    assert Finding("a", (("a", -0.9),)).verdict == "the other way"
    assert Finding("a", (("b", -0.9),)).verdict == "moved b, the other way"
    assert Finding("a", (("b", 0.9), ("a", 0.8))).verdict == "several moved: b, a"


def test_lines_for_the_unit_file_undo_the_wiring() -> None:
    """Motor 10 is called if_mcp and moves if_rot the other way; motor 11 is called if_rot and moves if_mcp."""
    wiring = tuple(JointWiring(10 + i, -1 if i == 1 else 1, i / 4) for i in range(16))
    unit = UnitConfig("u", "leap_hand", "leap_hand", {}, wiring)
    findings = [Finding("if_mcp", (("if_rot", -0.9),)), Finding("if_rot", (("if_mcp", 0.9),))]
    assert unit_lines(findings, LEAP_HAND, unit) == [
        "if_mcp: {id: 11, sign: -1, zero_offset_rad: 0.25}",
        "if_rot: {id: 10, sign: -1, zero_offset_rad: 0.0}",
    ]
    # No lines from guesses.
    assert unit_lines(findings[:1], LEAP_HAND, unit) == []
    assert unit_lines([Finding("if_mcp", ()), findings[1]], LEAP_HAND, unit) == []
    assert unit_lines(findings, LEAP_HAND, dataclasses.replace(unit, joints=())) == []


class Broken(Miswired):
    """Breaks in some way when the first joint becomes stiff."""

    def __init__(self, clock: FakeClock, how: str) -> None:
        super().__init__(
            LEAP_HAND, clock, np.arange(16), np.ones(16), np.array([j.default_pos_rad for j in LEAP_HAND.joints])
        )
        self.how, self._stiff = how, False

    def write(self, command: JointCommand) -> JointCommand:
        self._stiff = self._stiff or bool(command.kp.any())
        if self._stiff and self.how == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        if self._stiff and self.how == "exception" and command.kp.any():
            raise OSError("unplugged")
        return super().write(command)

    def read(self) -> NumpyState | None:
        state = super().read()
        assert state is not None
        if not self._stiff:
            return state
        if self.how == "runaway":
            return dataclasses.replace(state, joint_vel=state.joint_vel + np.eye(16)[3] * 5.0)
        if self.how == "silent":
            return dataclasses.replace(state, stamp_s=np.array([100.0]))
        if self.how == "nan":
            return dataclasses.replace(state, joint_pos=state.joint_pos * np.nan)
        return state

    def health(self) -> Health | None:
        errors = np.zeros(16, np.int64)
        errors[2] = 0x20 if self._stiff and self.how == "error" else 0
        lost = 11 if self._stiff and self.how == "lost" else 0
        return Health(self._clock.now(), motor_errors=errors, lost_packets=lost)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("runaway", WiggleAborted, "if_dip moves at 5 rad/s"),
        ("silent", WiggleAborted, "no state of the robot for 0.2 s"),
        ("nan", WiggleAborted, "the state is not finite"),
        ("error", WiggleAborted, "motor errors: if_pip 0x20"),
        ("lost", WiggleAborted, "11 exchanges with the robot failed in a row"),
        ("signal", WiggleAborted, "ended by SIGINT"),
        ("exception", OSError, "unplugged"),
    ],
)
def test_everything_unexpected_ends_damped(how: str, error: type[Exception], message: str) -> None:
    clock = FakeClock()
    robot = Broken(clock, how)
    with pytest.raises(error, match=message):
        wiggle(robot, clock, CONFIG)
    assert damped_at_the_end(robot)


def test_a_joint_that_goes_too_far_ends_the_run() -> None:
    """Commands of one joint arrive at another with a zero elsewhere: no sign makes it stay."""
    clock = FakeClock()

    class Shifted(Miswired):
        def write(self, command: JointCommand) -> JointCommand:
            return super().write(dataclasses.replace(command, position=command.position + 0.7))

    pose = np.array([j.default_pos_rad for j in LEAP_HAND.joints])
    robot = Shifted(LEAP_HAND, clock, np.arange(16), np.ones(16), pose)
    with pytest.raises(WiggleAborted, match="its zero is elsewhere"):
        wiggle(robot, clock, CONFIG)
    assert damped_at_the_end(robot)
    assert np.abs(robot.pos - pose).max() < 0.4


def test_somebody_who_looks_has_the_last_word() -> None:
    clock = FakeClock()
    robot = Miswired(
        LEAP_HAND, clock, np.arange(16), np.ones(16), np.array([j.default_pos_rad for j in LEAP_HAND.joints])
    )
    asked = []

    def ask(finding: Finding, direction: int) -> Finding:
        asked.append((finding.verdict, direction))
        return Finding(finding.joint, (("th_ipl", -1.0),))

    findings = wiggle(robot, clock, CONFIG, ["if_mcp"], ask=ask)
    assert asked == [("ok", 1)]
    assert findings[0].verdict == "moved th_ipl, the other way"
    with pytest.raises(WiggleAborted, match="nobody answered"):
        wiggle(robot, clock, CONFIG, ["if_mcp"], ask=lambda *_: None)
    assert damped_at_the_end(robot)


@pytest.mark.parametrize("joint", ["if_mcp", "rf_rot", "th_axl", "th_ipl"])
def test_motion_of_the_tip_is_mujocos(joint: str) -> None:
    mujoco = pytest.importorskip("mujoco")
    from robot_rl_sim.models import load_model

    model = load_model(LEAP_HAND.name)
    data = mujoco.MjData(model)
    places = []
    chain, motion = tip_motion_m(LEAP_HAND, joint, 0.2)
    for angle in (0.0, 0.2):
        for j in LEAP_HAND.joints:
            data.qpos[model.joint(j.name).qposadr[0]] = j.default_pos_rad + (angle if j.name == joint else 0.0)
        mujoco.mj_forward(model, data)
        link = next(c for c in LEAP_HAND.chains if c.name == chain).links[-1].joint
        body = int(model.joint(link).bodyid[0])
        tip = next(c for c in LEAP_HAND.chains if c.name == chain).tip_pos_m
        root = model.body(LEAP_HAND.root_body).id
        world = data.xpos[body] + data.xmat[body].reshape(3, 3) @ np.array(tip)
        places.append(data.xmat[root].reshape(3, 3).T @ (world - data.xpos[root]))
    # Both descriptions of the hand give lengths in steps of 0.01 mm.
    np.testing.assert_allclose(motion, places[1] - places[0], atol=1e-5)


@pytest.mark.slow
def test_a_simulated_hand_under_gravity() -> None:
    """Weak joints, friction, noise, and fingers that sag: still every joint that is tried answers for itself."""
    sim_robot = pytest.importorskip("robot_rl_sim.sim_robot")
    clock = FakeClock()
    robot = sim_robot.SimRobot(LEAP_HAND, clock=clock)
    robot.connect()
    findings = wiggle(robot, clock, CONFIG, ["if_mcp", "th_ipl"])
    assert [f.ok for f in findings] == [True, True]
    assert robot.damping


def test_the_verb(tmp_path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GAIN_S", "MOVE_S", "DWELL_S"):
        monkeypatch.setattr(f"robot_rl.runtime.wiggle.{name}", 0.15)
    assert main(["wiggle", "--robot", "leap_hand", "--joints", "if_mcp", "--json", str(tmp_path / "r.json")]) == 0
    assert "if_mcp       ok" in capsys.readouterr().out
    log = tmp_path / "w.npz"
    assert main(["wiggle", "--robot", "leap_hand", "--joints", "if_rot", "--log", str(log)]) == 0
    with np.load(log, allow_pickle=False) as arrays:
        joint, others = NAMES.index("if_rot"), np.arange(len(NAMES)) != NAMES.index("if_rot")
        assert np.ptp(arrays["position"][:, joint]) == pytest.approx(CONFIG.amplitude_rad, abs=1e-3)
        # Zero while all is damped, and then where they were.
        assert len(np.unique(arrays["position"][:, others], axis=0)) <= 2
        # At 50 Hz, as without a log, no two commands would be so close.
        assert np.diff(arrays["command_s"]).min() < 0.015
    assert main(["wiggle", "--robot", "leap_hand", "--log", "w.mcap"]) == 2
    assert "--log must end with .npz" in capsys.readouterr().err
    assert main(["wiggle"]) == 2
    assert "name the robot" in capsys.readouterr().err
    assert main(["wiggle", "--robot", "leap_hand", "--joints", "thumb"]) == 2
    assert "unknown joint 'thumb'; valid: if_mcp" in capsys.readouterr().err
    assert main(["wiggle", "--robot", "leap_hand", "--amplitude", "2"]) == 2
    assert "amplitude_rad must be in [0.02, 0.3], got 2.0" in capsys.readouterr().err


def test_a_real_robot_does_not_move_unconfirmed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robot_rl.commands import drivers
    from robot_rl.commands.wiggle import WiggleArgs, run

    monkeypatch.setattr(drivers, "driver_names", lambda: ["mock", "real"])
    monkeypatch.setattr(drivers, "connect", lambda *_: pytest.fail("connected"))
    (tmp_path / "u.yaml").write_text("serial: u\nrobot: leap_hand\ndriver: {name: real}\n")
    monkeypatch.setattr(sys, "stdin", (tmp_path / "u.yaml").open())
    with pytest.raises(ConfigError, match="not confirmed"):
        run(WiggleArgs(unit=tmp_path / "u.yaml"))
