"""RobotSpec: what a robot is, as pure data. One literal per robot; no file is read, no simulator asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from robot_rl.contract import Contract, JointSpec
from robot_rl.contract.state import STATE_FIELDS
from robot_rl.errors import ContractError
from robot_rl.robots.collision import CollisionModel

BackupTier = Literal["recovery", "home", "hold", "damp"]
"""What takes over from a policy, from the one that needs to trust most to the one that needs nothing; see
robot_rl.runtime.backups."""

BACKUPS: dict[str, tuple[BackupTier, ...]] = {
    "fixed_base": ("hold", "damp"),
    # Motors hold at their torque limit; damping opens the hand.
    "hand": ("hold", "damp"),
    # With a low default pose it lies down first, and drops from there.
    "quadruped": ("home", "damp"),
    # Holding still mid-stride is a fall: a verified policy that recovers, or else damping at once.
    "biped": ("recovery", "damp"),
    # Once it is damped, its brakes or the drives' gravity compensation must bear the load.
    "arm_with_payload": ("hold", "damp"),
}
"""What a soft trip falls back to, in order of preference, by kind of robot."""


_NOT_NEGATIVE = (
    "hard_margin_rad", "joint_pos_error_rad", "joint_vel_at_rest_rad_s", "attitude_error_rad", "base_ang_vel_trip_s",
    "hold_limit_s", "stand_duration_s", "stand_error_rad", "soft_start_s", "effort_trip_s", "obs_trip_s",
)  # fmt: skip
_POSITIVE_OR_NONE = (
    "tilt_trip_rad", "base_ang_vel_trip_rad_s", "self_collision_margin_m", "residual_bound_rad", "effort_clamp_share",
)  # fmt: skip
_POSITIVE = (
    "deadman_s", "effort_trip_share", "motor_temperature_trip_c", "winding_temperature_trip_c", "lost_packets_trip",
    "health_age_s", "policy_age_periods", "obs_z_trip",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SafetyProfile:
    """Thresholds of the safety filter for one robot. Sources and reasoning are with each robot's literal.

    Per-joint tuples are in joint order. A check whose threshold is None does not apply to this robot.
    """

    damping_kd_nms_rad: tuple[float, ...]
    target_rate_limit_rad_s: tuple[float, ...]
    joint_vel_trip_rad_s: tuple[float, ...]
    state_hold_s: float = 0.05
    """State older than this: hold the measured pose."""
    state_damp_s: float = 0.1
    """State older than this: damp."""
    soft_margin: float = 0.05
    """Targets stay this fraction of the joint's range inside its limits."""
    hard_margin_rad: float = 0.02
    """Position further than this beyond a limit, more than end stops give way, whatever the encoder's error: damp."""
    joint_pos_error_rad: float = 0.03
    """Largest error of a sound encoder, offset of its zero included. Training's sensors err as much (offset 0.02, noise
    0.01), and a joint that leans on its end stop reads so far beyond it."""
    joint_vel_at_rest_rad_s: float = 0.025
    """Largest speed that a joint at rest may read for long: a slower one is no evidence that its position is frozen.
    One unit of a Dynamixel's speed is 0.229 rpm, 0.024 rad/s: the coarsest that we know."""
    tilt_trip_rad: float | None = None
    attitude_error_rad: float = 0.09
    """Largest error of a sound orientation, as an angle: two readings may be twice as far apart at rest. Training's is
    0.05 about each of three axes."""
    base_ang_vel_trip_rad_s: float | None = None
    base_ang_vel_trip_s: float = 0.05
    """A rate of turn beyond the limit for this long: damp. A humanoid whose step catches a push reaches 8 rad/s in
    passing; from upright, 6 rad/s take 0.17 s to a tilt of 1 rad, so that this still comes first."""
    backup: tuple[BackupTier, ...] = ("damp",)
    """What a soft trip falls back to, in order of preference: the first whose information is still trusted, and a
    recovery policy only where there is one. A biped mid-stride must not hold."""
    hold_limit_s: float = 2.0
    """How long a pose is held before the robot is damped."""
    stand_duration_s: float = 2.0
    """Ramp from the measured pose to the default pose."""
    stand_error_rad: float = 0.3
    """Tracking error during the ramp that, kept for 0.3 s, aborts to damping."""
    soft_start_s: float = 0.3
    """Blend from the standing pose to the policy's targets after RUN is entered."""
    deadman: bool = False
    """RUN needs an operator holding a button."""
    deadman_s: float = 0.2
    """A button not confirmed for this long counts as released."""
    overrun_warn_periods: float = 1.5
    """Loop periods between two ticks at which to warn; three such ticks in a row: hold, six: damp."""
    overrun_hold_periods: float = 4.0
    """Loop periods between two ticks at which to hold at once."""
    tilt_warn_share: float = 0.7
    """Share of the tilt trip at which to warn."""
    effort_trip_share: float = 1.1
    """Share of a joint's effort limit that, measured for `effort_trip_s`, means a wrong limit or a collision: hold;
    for twice as long: damp."""
    effort_trip_s: float = 0.2
    motor_temperature_trip_c: float = 85.0
    """Case of a motor: hold."""
    winding_temperature_trip_c: float = 120.0
    battery_trip_share: float = 0.2
    """State of charge below which to hold."""
    lost_packets_trip: int = 10
    """Exchanges with the motors lost in a row: hold."""
    health_age_s: float = 2.0
    """A report of the robot's health older than this: warn."""
    policy_age_periods: float = 2.0
    """A policy that has not answered for this many of its periods: hold."""
    obs_z_trip: float = 10.0
    """Standard deviations from the mean of training beyond which an observation was never seen: warn."""
    obs_trip_s: float = 2.0
    """Observations beyond `obs_z_trip` that exceed the others by this much time: hold. A finger that is caught behind
    another for a second, and frees itself, is no reason to."""
    workspace_low_m: tuple[float, ...] = ()
    """(3,) Corner of the box, in the frame of the robot's root body, that no tip of a chain may leave: hold. Empty:
    no box."""
    workspace_high_m: tuple[float, ...] = ()
    self_collision_margin_m: float | None = None
    """Links that could hit one another (`RobotSpec.collision`) are stopped before they are nearer than this. None: not
    looked at. A hand's fingers touch each other in every grasp, with no more force than that takes."""
    residual_bound_rad: float | None = None
    """Largest difference between a target and the base target that it corrects, where there is one."""
    joint_inertia_kg_m2: tuple[float, ...] = ()
    """Largest inertia that each motor moves, links included: what the braking bound computes with. Empty: no bound."""
    joint_load_nm: tuple[float, ...] = ()
    """Largest static load per joint, such as gravity's, which braking has to carry besides. Empty: none."""
    brake_effort_share: float | None = 0.5
    """Share of the effort limit that the braking bound counts on; None: no bound. What it leaves is for inertia and
    loads that nobody knew of: with all of it, twice the inertia is beyond what the motor can stop."""
    effort_clamp_share: float | None = None
    """Targets may ask for at most this share of the effort limit at the start of a tick; None: the motor's own limit
    is left to it."""

    def __post_init__(self) -> None:
        if not 0 < self.state_hold_s <= self.state_damp_s:
            raise ContractError(f"need 0 < state_hold_s <= state_damp_s, got {self.state_hold_s}, {self.state_damp_s}")
        if not 0 <= self.soft_margin < 0.5:
            raise ContractError(f"soft_margin must be in [0, 0.5), got {self.soft_margin}")
        tiers = [t for t in get_args(BackupTier) if t in self.backup]
        if list(self.backup) != tiers or "damp" not in tiers:
            order = ", ".join(get_args(BackupTier))
            raise ContractError(f"backup {self.backup!r} must be some of {order}, in this order, the last included")
        for name in _NOT_NEGATIVE:
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ContractError(f"{name} must be finite and not negative, got {getattr(self, name)}")
        for name in _POSITIVE:
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ContractError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in _POSITIVE_OR_NONE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ContractError(f"{name} must be positive or None, got {value}")
        for name in ("damping_kd_nms_rad", "target_rate_limit_rad_s", "joint_vel_trip_rad_s", "joint_inertia_kg_m2"):
            if any(not (math.isfinite(v) and v > 0) for v in getattr(self, name)):
                raise ContractError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if any(not (math.isfinite(v) and v >= 0) for v in self.joint_load_nm):
            raise ContractError(f"joint_load_nm must be finite and not negative, got {self.joint_load_nm}")
        for name in ("battery_trip_share", "brake_effort_share", "tilt_warn_share"):
            if not 0 <= (getattr(self, name) or 0.0) <= 1:
                raise ContractError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("overrun_warn_periods", "overrun_hold_periods"):
            if not getattr(self, name) > 1:
                raise ContractError(f"{name} must be above 1, got {getattr(self, name)}")
        low, high = self.workspace_low_m, self.workspace_high_m
        if len(low) != len(high) or len(low) not in (0, 3) or not all(a < b for a, b in zip(low, high, strict=True)):
            raise ContractError(f"workspace_low_m {low} must be three numbers below those of workspace_high_m {high}")


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a serial chain: fixed offset from its parent, then a rotation about `axis` by its joint."""

    joint: str
    pos_m: tuple[float, float, float]
    quat_wxyz: tuple[float, float, float, float]
    axis: tuple[float, float, float] = (0.0, 0.0, -1.0)


@dataclass(frozen=True, slots=True)
class Chain:
    """Serial chain from the robot's root body to a tip point fixed to the last link."""

    name: str
    links: tuple[Link, ...]
    tip_pos_m: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class RobotSpec:
    """One robot: joints in order, root, chains, motor inertia, safety profile."""

    name: str
    variant: str
    joints: tuple[JointSpec, ...]
    armature_kg_m2: tuple[float, ...]
    """Rotor inertia times gear ratio squared, per joint."""
    root_body: str
    floating_base: bool
    safety: SafetyProfile
    state_fields: tuple[str, ...]
    """RobotState fields that this robot measures."""
    chains: tuple[Chain, ...] = ()
    collision: CollisionModel | None = None
    """Its links that could hit one another, where that is known."""
    mirror: tuple[tuple[str, int], ...] = ()
    """Per joint, the joint that takes its place when left and right change sides, and the sign of its angle there;
    empty where a robot has no two like sides."""
    source: str = ""

    def __post_init__(self) -> None:
        n = len(self.joints)
        if n == 0:
            raise ContractError(f"robot {self.name!r} has no joints")
        repeated = sorted({name for name in self.joint_names if self.joint_names.count(name) > 1})
        if repeated:
            raise ContractError(f"robot {self.name!r}: joint names must be unique; repeated: {', '.join(repeated)}")
        unknown = [f for f in self.state_fields if f not in STATE_FIELDS]
        if unknown:
            raise ContractError(
                f"robot {self.name!r}: unknown state fields {unknown}; valid: {', '.join(STATE_FIELDS)}"
            )
        if any(not (math.isfinite(a) and a >= 0) for a in self.armature_kg_m2):
            raise ContractError(
                f"robot {self.name!r}: armature_kg_m2 must be finite and not negative, got {self.armature_kg_m2}"
            )
        sizes = {
            "armature_kg_m2": self.armature_kg_m2,
            "safety.damping_kd_nms_rad": self.safety.damping_kd_nms_rad,
            "safety.target_rate_limit_rad_s": self.safety.target_rate_limit_rad_s,
            "safety.joint_vel_trip_rad_s": self.safety.joint_vel_trip_rad_s,
        }
        optional = ("joint_inertia_kg_m2", "joint_load_nm")
        sizes |= {f"safety.{name}": getattr(self.safety, name) for name in optional if getattr(self.safety, name)}
        for name, values in sizes.items():
            if len(values) != n:
                raise ContractError(f"robot {self.name!r}: {name} has {len(values)} entries for {n} joints")
        if self.mirror:
            other = dict(zip(self.joint_names, self.mirror, strict=True))
            wrong = [n for n, (m, sign) in other.items() if m not in other or other[m] != (n, sign) or abs(sign) != 1]
            if wrong:
                raise ContractError(f"robot {self.name!r}: mirroring twice must change nothing, but does for {wrong}")
        for chain in self.chains:
            unknown = [link.joint for link in chain.links if link.joint not in self.joint_names]
            if unknown:
                raise ContractError(f"robot {self.name!r}: chain {chain.name!r} names unknown joints {unknown}")

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(j.name for j in self.joints)


def check_contract(contract: Contract, robot: RobotSpec) -> None:
    """Raise ContractError, naming every difference, if a policy for `contract` must not run on `robot`."""
    problems: list[str] = []
    if (contract.robot, contract.variant) != (robot.name, robot.variant):
        problems.append(f"policy is for {contract.robot}/{contract.variant}, robot is {robot.name}/{robot.variant}")
    if contract.joint_names != robot.joint_names:
        if sorted(contract.joint_names) == sorted(robot.joint_names):
            problems.append(f"joint order differs: policy {contract.joint_names}, robot {robot.joint_names}")
        else:
            missing = sorted(set(contract.joint_names) - set(robot.joint_names))
            extra = sorted(set(robot.joint_names) - set(contract.joint_names))
            problems.append(f"joint names differ: robot lacks {missing}, policy lacks {extra}")
    else:
        problems += _joint_differences(contract, robot)
    unmeasured = [t.name for t in contract.inputs if t.source == "state" and t.name not in robot.state_fields]
    if unmeasured:
        problems.append(f"robot does not measure {', '.join(unmeasured)}")
    if problems:
        raise ContractError("; ".join(problems))


def _joint_differences(contract: Contract, robot: RobotSpec) -> list[str]:
    """Limits must not be wider than the robot's; gains must not exceed twice the robot's own."""
    problems: list[str] = []
    for trained, real in zip(contract.joints, robot.joints, strict=True):
        if trained.lower_rad < real.lower_rad - 1e-6 or trained.upper_rad > real.upper_rad + 1e-6:
            problems.append(
                f"{real.name}: policy limits [{trained.lower_rad}, {trained.upper_rad}] exceed "
                f"the robot's [{real.lower_rad}, {real.upper_rad}]"
            )
        for gain, limit in (("kp_nm_rad", 2 * real.kp_nm_rad), ("kd_nms_rad", 2 * real.kd_nms_rad)):
            if getattr(trained, gain) > limit:
                problems.append(f"{real.name}: {gain} {getattr(trained, gain)} exceeds the robot's maximum {limit}")
    return problems
