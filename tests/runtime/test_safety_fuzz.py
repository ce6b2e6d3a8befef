"""A long random walk of states, targets, clocks and reports, sane and insane: no command may ever be out of bounds."""

import math

import numpy as np
import pytest

from robot_rl.contract import NumpyState, RobotState
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.runtime.checks import Severity, Target
from robot_rl.runtime.interface import Health
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.safety import SafetyMemory, filter_command
from robot_rl.testing.bundles import TinyPolicy

DT = 0.02
ODD = np.array([math.nan, math.inf, -math.inf, 5e-324, -1e-30, 1.8e308, -1.8e308, 1e30, 0.0, -0.0, 1e3, -12.7])
KINDS = ("policy", "policy", "stand", "hold")


class Fuzz:
    """Ticks of one robot; `insane` is the share of them in which something is."""

    def __init__(self, robot: RobotSpec, seed: int, insane: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.robot = robot
        self.limits = SafetyLimits.make(robot, TinyPolicy(robot, control_period_s=DT).contract(), DT)
        self.insane = insane
        self.memory = SafetyMemory.start(self.limits)
        self.t = 10.0
        self.pos = self.limits.default_pos.copy()
        self.stiff = 0
        """Ticks that commanded a position."""

    def odd(self) -> bool:
        return bool(self.rng.random() < self.insane)

    def number(self, sane: float) -> float:
        return float(self.rng.choice(ODD)) if self.odd() else sane

    def numbers(self, sane: np.ndarray) -> np.ndarray:
        if not self.odd():
            return sane
        values = np.array(sane, np.float64)
        values[self.rng.random(values.shape) < self.rng.choice([0.05, 1.0])] = self.rng.choice(ODD)
        return values if self.rng.random() < 0.8 else values[: self.rng.integers(len(values) + 1)]

    def state(self, t: float) -> NumpyState | None:
        if self.odd() and self.rng.random() < 0.3:
            return None
        n, limits, rng = self.limits.n_joints, self.limits, self.rng
        vel = rng.normal(scale=0.2 * limits.vel_trip)
        self.pos = np.clip(self.pos + vel * DT, limits.lower - 0.01, limits.upper + 0.01)
        fields = {"joint_pos": self.pos, "joint_vel": vel}
        if rng.random() < 0.5:
            fields["joint_effort"] = rng.normal(size=n) * 0.3 * limits.effort
        if "imu_quat_wxyz" in limits.state_fields:
            fields |= {"imu_quat_wxyz": np.array([1.0, 0.0, 0.0, 0.0]), "imu_ang_vel_b": 0.1 * rng.normal(size=3)}
        return RobotState(
            stamp_s=np.array([self.number(t)]), **{name: self.numbers(v)[None] for name, v in fields.items()}
        )

    def target(self) -> Target | None:
        if self.rng.random() < 0.05:
            return None
        limits, rng = self.limits, self.rng
        wish = self.pos + rng.normal(size=limits.n_joints) * rng.choice([0.01, 0.3, 10.0])
        return Target(
            position=self.numbers(wish),
            kind=KINDS[rng.integers(len(KINDS))],
            stiffness=self.number(rng.random()),
            blend=self.number(2.0 * rng.random()),
            blend_from=None if rng.random() < 0.3 else self.numbers(self.pos),
            base=None if rng.random() < 0.7 else self.numbers(self.pos),
            age_s=self.number(0.0),
            fresh=bool(rng.random() < 0.5),
            failed=self.odd(),
            obs_z=None if rng.random() < 0.3 else self.number(3.0),
        )

    def tick(self) -> str:
        """One tick; returns what is wrong with its command, empty if nothing is."""
        limits, n = self.limits, self.limits.n_joints
        # A clock that jumped ahead goes on from there.
        self.t = max(self.t, self.memory.now_s) + DT
        now_s = self.number(self.t)
        health = (
            None if self.rng.random() < 0.9 else Health(now_s, self.numbers(np.full(n, 40.0)), None, self.number(0.9))
        )
        command, verdict, self.memory = filter_command(
            self.state(self.t), self.number(0.005), self.target(), limits, self.memory, now_s,
            stop=bool(self.rng.random() < 0.01), command_age_s=self.number(0.0), health=health,
        )  # fmt: skip
        arrays = (command.position, command.velocity, command.effort, command.kp, command.kd)
        if any(a.shape != (n,) or not np.isfinite(a).all() for a in arrays):
            return f"not finite: {command}"
        if not (math.isfinite(command.stamp_s) and math.isfinite(command.expires_s) and math.isfinite(verdict.margin)):
            return f"times or margin: {command} {verdict}"
        if not command.stamp_s < command.expires_s <= command.stamp_s + limits.time_to_live_s + 1e-6:
            return f"time to live: {command}"
        if (command.kp < 0).any() or (command.kp > limits.kp).any() or command.effort.any() or command.velocity.any():
            return f"gains: {command}"
        if not command.kp.any():
            return "" if (command.kd == limits.damping_kd).all() or not command.kd.any() else self._limp(command.kd)
        self.stiff += 1
        if verdict.severity == Severity.DAMP:
            return f"stiff with a verdict of damp: {verdict}"
        inside = (command.position >= limits.soft_lower) & (command.position <= limits.soft_upper)
        return "" if inside.all() else f"position: {command.position}"

    def _limp(self, kd: np.ndarray) -> str:
        # A target of stiffness 0 is damped with the policy's own gains.
        return "" if (kd == self.limits.kd).all() else f"kd: {kd}"


def violations(robot: RobotSpec, ticks: int, insane: float, seed: int = 0) -> tuple[list[str], float]:
    fuzz = Fuzz(robot, seed, insane)
    with np.errstate(all="ignore"):
        found = [problem for _ in range(ticks) if (problem := fuzz.tick())]
    return found, fuzz.stiff / ticks


@pytest.mark.parametrize(("insane", "least_stiff"), [(0.002, 0.3), (0.1, 0.3)])
@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1])
def test_a_random_walk_stays_in_bounds(robot: RobotSpec, insane: float, least_stiff: float) -> None:
    found, stiff = violations(robot, 1_000, insane)
    assert found == []
    # The walk must get to the commands that can do harm.
    assert stiff > least_stiff


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1])
@pytest.mark.parametrize("insane", [0.0005, 0.002, 0.01, 0.1, 0.5])
def test_a_million_ticks(robot: RobotSpec, insane: float) -> None:
    """Ten runs of 100,000."""
    found, _ = violations(robot, 100_000, insane, seed=1)
    assert found == []
