"""SafetyLimits: every bound that the safety filter applies, as arrays made once from robot, contract and loop rate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import OBJECT_FIELDS, Contract, EpisodeSpec, JointSpec
from robot_rl.errors import ConfigError, ContractError
from robot_rl.robots import BackupTier, RobotSpec, SafetyProfile
from robot_rl.runtime import braking
from robot_rl.runtime.object_pose import ObjectLimits
from robot_rl.runtime.self_collision import SelfCollision
from robot_rl.runtime.workspace import Workspace

Array = NDArray[np.float64]

# Largest physically possible magnitude of a field, where the contract states no bounds of its own: SI units.
_PHYSICAL = {
    "joint_pos": 12.6,
    "joint_vel": 100.0,
    "joint_effort": 500.0,
    "imu_quat_wxyz": 1.05,
    "imu_ang_vel_b": 50.0,
    "imu_lin_acc_b": 400.0,
}
_FAR_RAD = 1e6
_FIELD_SIZE = {"imu_quat_wxyz": 4, "imu_ang_vel_b": 3, "imu_lin_acc_b": 3}
"""Fields that are not one number per joint."""

# Which way is stricter, for each field of SafetyProfile that a user may change.
_STRICTER = {
    "target_rate_limit_rad_s": "lower",
    "joint_vel_trip_rad_s": "lower",
    "state_hold_s": "lower",
    "state_damp_s": "lower",
    "soft_margin": "higher",
    "hard_margin_rad": "lower",
    "joint_pos_error_rad": "lower",
    "joint_vel_at_rest_rad_s": "lower",
    "tilt_trip_rad": "lower",
    "attitude_error_rad": "lower",
    "base_ang_vel_trip_rad_s": "lower",
    "base_ang_vel_trip_s": "lower",
    "hold_limit_s": "lower",
    "stand_duration_s": "higher",
    "stand_error_rad": "lower",
    "soft_start_s": "higher",
    "deadman_s": "lower",
    "overrun_warn_periods": "lower",
    "overrun_hold_periods": "lower",
    "tilt_warn_share": "lower",
    "effort_trip_share": "lower",
    "effort_trip_s": "lower",
    "motor_temperature_trip_c": "lower",
    "winding_temperature_trip_c": "lower",
    "battery_trip_share": "higher",
    "lost_packets_trip": "lower",
    "health_age_s": "lower",
    "policy_age_periods": "lower",
    "obs_z_trip": "lower",
    "obs_trip_s": "lower",
    "workspace_low_m": "higher",
    "workspace_high_m": "lower",
    "self_collision_margin_m": "higher",
    "residual_bound_rad": "lower",
    "joint_inertia_kg_m2": "higher",
    "joint_load_nm": "higher",
    "brake_effort_share": "lower",
    "effort_clamp_share": "lower",
}
_OPTIONAL = frozenset(f.name for f in dataclasses.fields(SafetyProfile) if "None" in str(f.type))
"""Fields that None switches off."""


def apply_overrides(
    profile: SafetyProfile, overrides: Mapping[str, Any], *, may_widen: bool, source: str
) -> tuple[SafetyProfile, tuple[str, ...]]:
    """The profile with `overrides` (field -> value; for a field of one entry per joint also one number for all).

    Stricter values are always taken; wider ones only if `may_widen`, which is for a file about one unit of a robot.
    Returns the profile and one line for the log per value that was changed, naming `source`. Raises ConfigError naming
    the field and the values for a field that does not exist, a value of the wrong kind, or a wider value where none is
    allowed.
    """
    fields = tuple(f.name for f in dataclasses.fields(profile))
    unknown = sorted(set(overrides) - set(fields))
    if unknown:
        raise ConfigError(
            f"{source}: unknown safety limits {', '.join(map(repr, unknown))}; valid: {', '.join(fields)}"
        )
    changes, lines = {}, []
    for name, given in overrides.items():
        current = getattr(profile, name)
        value = None if given is None and name in _OPTIONAL else _like(given, current, f"{source}: {name}")
        if value == current:
            continue
        wider = not _is_tighter(name, current, value)
        if wider and not may_widen:
            raise ConfigError(f"{source}: safety limit {name} may only be tightened: {value} is wider than {current}")
        changes[name] = value
        lines.append(f"{source}: safety limit {name} {'WIDENED' if wider else 'tightened'} from {current} to {value}")
    try:
        return dataclasses.replace(profile, **changes), tuple(lines)
    except ContractError as error:
        raise ConfigError(f"{source}: {error}") from error


def _like(value: Any, current: Any, where: str) -> Any:
    """`value` in the form of `current`; what only a text file or a shell makes different is forgiven."""
    if isinstance(current, (bool, str)):
        good = type(value) is type(current)
    elif isinstance(current, tuple) and current and isinstance(current[0], str):
        good = isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
        value = tuple(value) if good else value
    elif isinstance(current, tuple):
        if _is_number(value) and current:
            value = (value,) * len(current)
        good = isinstance(value, (list, tuple)) and all(_is_number(v) for v in value)
        good = good and (not current or len(value) == len(current))
        value = tuple(float(v) for v in value) if good else value
    else:
        good = _is_number(value)
        value = float(value) if good and not isinstance(current, int) else value
    if not good:
        wanted = type(current).__name__
        if isinstance(current, tuple) and current and not isinstance(current[0], str):
            wanted = f"{len(current)} numbers"
        raise ConfigError(f"{where} is {value!r}; must be like {current!r} ({wanted})")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_tighter(name: str, current: Any, value: Any) -> bool:
    if name == "backup":
        return set(value) <= set(current)
    if name == "deadman":
        return bool(value) or not current
    return name in _STRICTER and _is_stricter(_STRICTER[name], current, value)


def tighten(profile: SafetyProfile, **changes: Any) -> SafetyProfile:
    """The profile with stricter values. Raises ConfigError naming the field and both values where one is wider."""
    for name, value in changes.items():
        current = getattr(profile, name, None)
        if name not in (*_STRICTER, "backup", "deadman"):
            raise ConfigError(f"{name!r} cannot be tightened; valid: {', '.join((*_STRICTER, 'backup', 'deadman'))}")
        if not _is_tighter(name, current, value):
            raise ConfigError(f"safety limit {name} may only be tightened: {value} is wider than {current}")
    return dataclasses.replace(profile, **changes)


def _is_stricter(direction: str, current: Any, value: Any) -> bool:
    if current is None or (isinstance(current, tuple) and not current):
        return True
    if value is None or np.shape(value) != np.shape(current):
        return False
    new, old = np.asarray(value, np.float64), np.asarray(current, np.float64)
    return bool(np.all(new <= old) if direction == "lower" else np.all(new >= old))


@dataclass(frozen=True, slots=True)
class SafetyLimits:
    """Bounds in joint order, SI units; arrays are (n_joints,). Build with `make`."""

    profile: SafetyProfile
    n_joints: int
    loop_period_s: float
    control_period_s: float
    lower: Array
    """Hard limits: the narrower of robot and contract."""
    upper: Array
    soft_lower: Array
    """Hard limits drawn in by the profile's soft margin: no target leaves them."""
    soft_upper: Array
    action_low: Array
    """What the policy was trained to ask for."""
    action_high: Array
    low_pass_hz: float | None
    """Cut-off of the filter of first order on a policy's targets, if it was trained behind one."""
    max_step: Array
    """Largest change of a target in one loop tick, rad."""
    vel_trip: Array
    kp: Array
    kd: Array
    damping_kd: Array
    effort: Array
    """N m, what each motor can give."""
    inertia: Array | None
    """kg m², the profile's; None: unknown, and no braking bound."""
    brake_accel: Array | None
    """rad/s², what braking counts on: the profile's share of the effort, less the load, on the inertia."""
    brake_lower: Array
    """Where joints must have stopped: the hard limits; far away for those that the braking bound leaves alone."""
    brake_upper: Array
    default_pos: Array
    stand_pos: Array
    """(n_joints,) rad, in which the robot waits for the policy: where its episodes begin, else the default pose."""
    object: ObjectLimits | None
    """Of the object whose pose the policy reads; None: it reads none."""
    workspace: Workspace | None
    self_collision: SelfCollision | None
    state_hold_s: float
    state_damp_s: float
    time_to_live_s: float
    """A command expires this long after the observation that it rests on."""
    command_max_age_s: float | None
    """Age at which the operator's command counts as zero; None: it may be of any age."""
    state_fields: tuple[str, ...]
    """RobotState fields of the robot's own sensors that must be there and sane."""
    state_spans: tuple[slice, ...]
    """Where each of them is in the arrays below."""
    state_low: Array
    """Bounds of the fields above, concatenated."""
    state_high: Array
    floating_base: bool
    backup: tuple[BackupTier, ...]
    """The profile's tiers that there are: a recovery policy may be missing."""

    @staticmethod
    def make(
        robot: RobotSpec,
        contract: Contract,
        loop_period_s: float,
        profile: SafetyProfile | None = None,
        *,
        recovery: bool = False,
        low_pass_hz: float | None = None,
        episode: EpisodeSpec | None = None,
    ) -> SafetyLimits:
        """Limits for a policy of `contract` on `robot`; `profile` may be the robot's own, tightened.

        `recovery` tells whether there is a recovery policy, `low_pass_hz` behind what filter the policy was trained,
        and `episode` how its episodes begin.

        Raises ConfigError if the loop is too slow for the state age at which the robot must damp, or if the pose to
        stand in lies outside the soft limits.
        """
        profile = tighten(robot.safety, **_differences(robot.safety, profile)) if profile else robot.safety
        lower = np.maximum(_column(robot, "lower_rad"), _column(contract, "lower_rad"))
        upper = np.minimum(_column(robot, "upper_rad"), _column(contract, "upper_rad"))
        margin = profile.soft_margin * (upper - lower)
        soft_lower, soft_upper = lower + margin, upper - margin
        default = _column(contract, "default_pos_rad")
        stand = default if episode is None else np.array(episode.joint_pos_rad, np.float64)
        outside = [
            f"{j.name} ({value}, soft limits [{low:.4g}, {high:.4g}])"
            for j, value, low, high in zip(contract.joints, stand.tolist(), soft_lower, soft_upper, strict=True)
            if not low <= value <= high
        ]
        if outside:
            pose = "default pose" if episode is None else "pose in which episodes begin"
            raise ConfigError(f"{pose} is outside the soft limits: {', '.join(outside)}")
        own = [t for t in contract.inputs if t.source == "state" and t.name not in OBJECT_FIELDS]
        state_damp_s = min([profile.state_damp_s, *(t.max_age_s for t in own if t.max_age_s is not None)])
        if 2 * loop_period_s > state_damp_s * (1 + 1e-9):
            raise ConfigError(
                f"loop period {loop_period_s} s is too slow: a command lives {state_damp_s} s, which must be at least "
                "two periods; run the loop several times per policy step"
            )
        effort = np.minimum(_column(robot, "effort_limit_nm"), _column(contract, "effort_limit_nm"))
        inertia, brake_accel = braking.counted_on(robot, profile, effort)
        braked = ~braking.carries(robot, contract, inertia)
        fields, spans, low, high = _state_bounds(contract, profile, len(robot.joints))
        return SafetyLimits(
            profile=profile,
            n_joints=len(robot.joints),
            loop_period_s=loop_period_s,
            control_period_s=contract.control_period_s,
            lower=lower,
            upper=upper,
            soft_lower=soft_lower,
            soft_upper=soft_upper,
            action_low=np.asarray(contract.action.low_rad, np.float64),
            action_high=np.asarray(contract.action.high_rad, np.float64),
            low_pass_hz=low_pass_hz,
            max_step=np.asarray(profile.target_rate_limit_rad_s, np.float64) * loop_period_s,
            vel_trip=np.asarray(profile.joint_vel_trip_rad_s, np.float64),
            kp=_column(contract, "kp_nm_rad"),
            kd=_column(contract, "kd_nms_rad"),
            damping_kd=np.asarray(profile.damping_kd_nms_rad, np.float64),
            effort=effort,
            inertia=inertia,
            brake_accel=brake_accel,
            brake_lower=np.where(braked, lower, -_FAR_RAD),
            brake_upper=np.where(braked, upper, _FAR_RAD),
            default_pos=default,
            stand_pos=stand,
            object=ObjectLimits.make(contract, episode),
            workspace=Workspace(robot, profile.workspace_low_m, profile.workspace_high_m)
            if profile.workspace_low_m
            else None,
            self_collision=SelfCollision(robot, profile.self_collision_margin_m)
            if profile.self_collision_margin_m is not None
            else None,
            state_hold_s=min(profile.state_hold_s, state_damp_s),
            state_damp_s=state_damp_s,
            time_to_live_s=state_damp_s,
            command_max_age_s=None if contract.command is None else contract.command.max_age_s,
            state_fields=fields,
            state_spans=spans,
            state_low=low,
            state_high=high,
            floating_base=robot.floating_base,
            backup=tuple(t for t in profile.backup if recovery or t != "recovery"),
        )


def _differences(base: SafetyProfile, changed: SafetyProfile) -> dict[str, Any]:
    return {
        f.name: getattr(changed, f.name)
        for f in dataclasses.fields(base)
        if getattr(changed, f.name) != getattr(base, f.name)
    }


def _column(source: RobotSpec | Contract, field: str) -> Array:
    joints: tuple[JointSpec, ...] = source.joints
    return np.array([getattr(j, field) for j in joints], np.float64)


def _state_bounds(
    contract: Contract, profile: SafetyProfile, n_joints: int
) -> tuple[tuple[str, ...], tuple[slice, ...], Array, Array]:
    specs = {t.name: t for t in contract.inputs if t.source == "state" and t.name not in OBJECT_FIELDS}
    needed = {"joint_pos", "joint_vel"} | set(specs)
    if profile.tilt_trip_rad is not None:
        needed.add("imu_quat_wxyz")
    if profile.base_ang_vel_trip_rad_s is not None:
        needed.add("imu_ang_vel_b")
    fields = tuple(name for name in _PHYSICAL if name in needed)
    low, high, spans = [], [], []
    for name in fields:
        spec, size = specs.get(name), _FIELD_SIZE.get(name, n_joints)
        spans.append(slice(len(low), len(low) + size))
        low += [-_PHYSICAL[name] if spec is None or spec.low is None else spec.low] * size
        high += [_PHYSICAL[name] if spec is None or spec.high is None else spec.high] * size
    return fields, tuple(spans), np.array(low, np.float64), np.array(high, np.float64)
