"""FAULTS: every fault by kind and severity, what must be noticed of it within what time, or why it is tolerated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.load import Bundle
from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec
from robot_rl.runtime.checks import CHECKS, Cause, Severity, ticks_to_trip
from robot_rl.runtime.controller import Request
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.measurement import JOINT_JUMP_RAD
from robot_rl_sim.faults import fault as f
from robot_rl_sim.faults.fault import BodyFault, CommandFault, Fault, PolicyFault, ProcessFault
from robot_rl_sim.faults.state import make_state_fault, spoils_imu
from robot_rl_sim.faults.trial import Expect, Sight

PUSHES_M_S = (0.5, 1.0, 1.5, 2.0, 3.0)
TILT_PUSHES_RAD_S = (1.0, 2.0, 3.0, 4.5, 8.0)
SHOVES = (0.5, 1.0, 2.0)
"""Shares of the speed at which a joint trips."""
JUMP_S, STOPPED_S = 0.5, 1.0
OVERHEATED_C = 5.0
"""Beyond the threshold."""

Array = NDArray[np.float64]
Make = Callable[[RobotSpec, SafetyLimits], Fault]


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    kind: str
    severity: str
    make: Make
    expect: Expect | None
    """None: tolerated."""
    reason: str = ""
    """Why it is tolerated, or noticed only by its consequences."""
    needs: str = ""
    """"imu", "floating_base", "deadman", "command": what the robot or the policy must have."""

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.severity}"


def select(bundle: Bundle, spec: RobotSpec, patterns: tuple[str, ...] = ()) -> tuple[Case, ...]:
    """The cases that this robot and policy can meet, of these shell-style patterns. Raises ConfigError if none."""
    has = {
        "": True,
        "imu": "imu_quat_wxyz" in spec.state_fields,
        "floating_base": spec.floating_base,
        "deadman": spec.safety.deadman,
        "command": bundle.contract.command is not None,
    }
    cases = tuple(c for c in FAULTS if has[c.needs])
    found = tuple(c for c in cases if not patterns or any(fnmatch(c.name, p) or c.kind == p for p in patterns))
    if not found:
        raise ConfigError(f"no fault matches {', '.join(patterns)}; valid: {', '.join(c.name for c in cases)}")
    return found


def _ticks(cause: Cause, severity: Severity, limits: SafetyLimits) -> int:
    """Bad ticks until the first line of CHECKS trips."""
    return min(ticks_to_trip(c, limits) for c in CHECKS if c.cause == cause and c.severity >= severity)


def debounce(cause: Cause, severity: Severity = Severity.HOLD) -> Callable[[SafetyLimits], float]:
    """From the first bad tick to the one that trips."""
    return lambda limits: (_ticks(cause, severity, limits) - 1) * limits.loop_period_s


def _too_long(limits: SafetyLimits) -> float:
    """How long a process is stopped, or an evaluation takes, that is too long for one tick."""
    return (limits.profile.overrun_hold_periods + 1) * limits.loop_period_s


def _noticed(cause: Cause, severity: Severity = Severity.HOLD) -> Expect:
    return Expect((cause,), severity, debounce(cause, severity))


def _evaluations(cause: Cause) -> Expect:
    """Counted in evaluations of the policy; the first one may be a whole period away."""
    return Expect(
        (cause,), Severity.HOLD, lambda limits: _ticks(cause, Severity.HOLD, limits) * limits.control_period_s
    )


_STALE = Expect((Cause.STATE_STALE,), Severity.HOLD, lambda limits: limits.state_hold_s)
_EXPIRED = Expect((), Severity.DAMP, lambda limits: limits.time_to_live_s, by="robot")
_UNANSWERED = Expect((), Severity.DAMP, lambda limits: limits.control_period_s + limits.time_to_live_s, by="robot")
_WOKEN = Expect((Cause.OVERRUN,), Severity.HOLD, _too_long)
_TOO_SLOW = Expect((Cause.OVERRUN,), Severity.HOLD, lambda limits: limits.control_period_s + _too_long(limits))
_RELEASED = Expect((Cause.DEADMAN_LOST,), Severity.DAMP, lambda limits: limits.profile.deadman_s)
# A button that was held before the jump was held long ago.
_JUMPED = Expect((Cause.OVERRUN, Cause.DEADMAN_LOST), Severity.HOLD, debounce(Cause.OVERRUN))
_DAMPED_OUT = Expect((), Severity.DAMP, lambda limits: 0.0, by="robot")
_BOUNDED = Expect((), Severity.OK, lambda limits: limits.control_period_s, by="filter")
_BODY = (Cause.TILT, Cause.BASE_ANG_VEL, Cause.JOINT_VEL, Cause.JOINT_LIMIT, Cause.STATE_JUMP, Cause.JOINT_EFFORT)


def _old(sight: Sight) -> bool:
    return sight.age_s > sight.limits.state_hold_s


def _tipped(sight: Sight) -> bool:
    """Measured to lean further, or to turn faster, than the profile allows."""
    tilt, turn = sight.limits.profile.tilt_trip_rad, sight.limits.profile.base_ang_vel_trip_rad_s
    quat, rate = sight.state.imu_quat_wxyz, sight.state.imu_ang_vel_b
    leans = tilt is not None and quat is not None and 1 - 2 * float(quat[0, 1] ** 2 + quat[0, 2] ** 2) < np.cos(tilt)
    return leans or (turn is not None and rate is not None and float(np.linalg.norm(rate)) > turn)


def _too_fast(sight: Sight) -> bool:
    return bool((np.abs(sight.state.joint_vel[0]) > sight.limits.vel_trip).any())


def _past_the_limit(sight: Sight) -> bool:
    q, margin = sight.state.joint_pos[0], sight.limits.profile.hard_margin_rad
    return bool((np.maximum(sight.limits.lower - q, q - sight.limits.upper) > margin).any())


def _misread(sight: Sight) -> bool:
    return abs(float(sight.state.joint_pos[0, 0] - sight.joint_pos[0])) > JOINT_JUMP_RAD


_OLD = Expect((Cause.STATE_STALE,), Severity.HOLD, debounce(Cause.STATE_STALE), due=_old)
_FALL = Expect(_BODY, Severity.DAMP, debounce(Cause.TILT, Severity.DAMP), due=_tipped)
_SHOVED = Expect(_BODY, Severity.HOLD, debounce(Cause.JOINT_VEL), due=_too_fast)
_DRIFTED = Expect(_BODY, Severity.DAMP, debounce(Cause.JOINT_LIMIT), due=_past_the_limit)


def _state(kind: str, severity: str, expect: Expect | None, reason: str = "") -> Case:
    name = f"{kind}/{severity}"
    needs = "imu" if spoils_imu(name) else ""
    return Case(kind, severity, lambda spec, limits: Fault(state=make_state_fault(name, spec)), expect, reason, needs)


def _policy(
    kind: str, severity: str, make: Callable[[SafetyLimits], PolicyFault], expect: Expect | None, reason: str = ""
) -> Case:
    return Case(kind, severity, lambda spec, limits: Fault(policy=make(limits)), expect, reason)


def _command(
    kind: str, severity: str, make: Callable[[SafetyLimits], CommandFault], expect: Expect | None, reason: str = ""
) -> Case:
    return Case(kind, severity, lambda spec, limits: Fault(command=make(limits)), expect, reason)


def _process(
    kind: str, severity: str, make: Callable[[SafetyLimits], ProcessFault], expect: Expect | None, reason: str = ""
) -> Case:
    return Case(kind, severity, lambda spec, limits: Fault(process=make(limits)), expect, reason)


def _clock(severity: str, jump_s: Callable[[SafetyLimits], float], expect: Expect | None, reason: str = "") -> Case:
    return Case("clock_jump", severity, lambda spec, limits: Fault(clock_jump_s=jump_s(limits)), expect, reason)


def _health(
    kind: str, severity: str, make: Callable[[SafetyLimits], dict[str, Any]], expect: Expect | None, reason: str = ""
) -> Case:
    return Case(kind, severity, lambda spec, limits: Fault(health=make(limits)), expect, reason)


def _body(kind: str, severity: str, make: Callable[[SafetyLimits], BodyFault], expect: Expect, needs: str = "") -> Case:
    return Case(kind, severity, lambda spec, limits: Fault(body=make(limits)), expect, "", needs)


FAULTS: tuple[Case, ...] = (
    Case("none", "none", lambda spec, limits: Fault(), None, "nothing is broken"),
    # States
    _state("drop_state", "one", None, "younger than the age at which to hold"),
    _state("drop_state", "burst", None, "younger than the age at which to hold"),
    _state("drop_state", "lasting", _STALE),
    _state("delay", "short", None, "younger than the age at which to hold"),
    _state("delay", "long", _STALE),
    _state("delay", "lasting", _STALE),
    _state("duplicate", "each", None, "the same reading says the same"),
    _state("duplicate", "lasting", _STALE),
    _state("reorder", "neighbours", None, "younger than the age at which to hold"),
    _state("reorder", "lasting", _OLD),
    _state("nan", "one", None, "one unusable reading is left out"),
    _state("nan", "velocity", _noticed(Cause.STATE_INVALID)),
    _state("nan", "imu", _noticed(Cause.STATE_INVALID)),
    _state("nan", "infinite", _noticed(Cause.STATE_INVALID)),
    _state("nan", "lasting", _noticed(Cause.STATE_INVALID)),
    _state("spike", "small", None, "no more than noise and resolution"),
    _state("spike", "one", None, "one impossible reading is left out"),
    _state("spike", "offset", _noticed(Cause.STATE_JUMP)),
    _state("spike", "lasting", _noticed(Cause.STATE_JUMP)),
    _state("encoder_drift", "lasting", _DRIFTED),
    _state("freeze_joint", "position", Expect(_BODY, Severity.DAMP, debounce(Cause.TILT, Severity.DAMP), due=_misread)),
    _state("freeze_joint", "lasting", _FALL, "cannot be told from a joint that is held; only its consequences can"),
    _state("freeze_imu", "lasting", _FALL),
    _state("velocity_spike", "one", None, "one reading is less than the debounce"),
    _state("velocity_spike", "lasting", _noticed(Cause.JOINT_VEL)),
    _state("gyro_spike", "lasting", _noticed(Cause.BASE_ANG_VEL)),
    _state("quat_flip", "sign", None, "q and -q are the same orientation"),
    _state("quat_flip", "one", None, "one impossible reading is left out"),
    _state("quat_flip", "norm", _noticed(Cause.STATE_INVALID)),
    _state("quat_flip", "order", _noticed(Cause.STATE_JUMP)),
    _state("quat_flip", "lasting", _noticed(Cause.STATE_JUMP)),
    # Policy
    _policy("policy_raises", "one", lambda _: f.once(f.fail), _evaluations(Cause.POLICY_ERROR)),
    _policy("policy_raises", "lasting", lambda _: f.fail, _evaluations(Cause.POLICY_ERROR)),
    _policy(
        "policy_nan", "one", lambda _: f.once(f.spoil_target(lambda t: t * np.nan)), None, "the last target is kept"
    ),
    _policy(
        "policy_nan", "lasting", lambda _: f.spoil_target(lambda t: t * np.nan), _evaluations(Cause.POLICY_INVALID)
    ),
    _policy(
        "policy_nan", "infinite", lambda _: f.spoil_target(lambda t: t + np.inf), _evaluations(Cause.POLICY_INVALID)
    ),
    _policy("policy_nan", "shape", lambda _: f.spoil_target(lambda t: t[:, 1:]), _evaluations(Cause.POLICY_INVALID)),
    _policy("policy_step", "one", lambda limits: f.once(f.bang_bang(limits.lower, limits.upper)), _BOUNDED),
    _policy("policy_step", "lasting", lambda limits: f.bang_bang(limits.lower, limits.upper), _BOUNDED),
    _policy(
        "policy_slow", "short", lambda limits: f.slow(0.9 * limits.loop_period_s), None, "the tick is over in time"
    ),
    _policy(
        "policy_slow",
        "late",
        lambda limits: f.slow(2.5 * limits.loop_period_s),
        None,
        "an overrun warns; few of them do no harm",
    ),
    _policy("policy_slow", "lasting", lambda limits: f.slow(_too_long(limits)), _TOO_SLOW),
    _policy("policy_hangs", "long", lambda limits: f.slow(STOPPED_S), _UNANSWERED),
    _policy("policy_hangs", "lasting", lambda limits: f.hang, _UNANSWERED),
    # The way to the motors, and the process
    _command("command_lost", "one", lambda limits: f.lose(1), None, "the one before still lives"),
    _command(
        "command_lost",
        "burst",
        lambda limits: f.lose(for_s=0.5 * limits.time_to_live_s),
        None,
        "the one before still lives",
    ),
    _command("command_lost", "lasting", lambda limits: f.lose(), _EXPIRED),
    _command("command_late", "short", lambda limits: f.late(limits.loop_period_s), None, "it arrives alive"),
    _command("command_late", "lasting", lambda limits: f.late(1.5 * limits.time_to_live_s), _EXPIRED),
    _command("driver_error", "write", lambda limits: f.break_wire, _EXPIRED),
    _process("driver_error", "read", lambda limits: f.raise_in_loop, _DAMPED_OUT),
    _process(
        "process_stopped",
        "short",
        lambda limits: f.stop_process(2.5 * limits.loop_period_s),
        None,
        "one overrun only warns",
    ),
    _process("process_stopped", "long", lambda limits: f.stop_process(_too_long(limits)), _WOKEN),
    _process("process_stopped", "lasting", lambda limits: f.stop_process(STOPPED_S), _EXPIRED),
    _process("process_killed", "lasting", lambda limits: f.kill_process, _EXPIRED),
    _clock("forward_short", lambda limits: 1.5 * limits.loop_period_s, None, "one overrun only warns"),
    _clock("forward", lambda limits: JUMP_S, _JUMPED),
    _clock("back_short", lambda limits: -0.5 * limits.loop_period_s, None, "time still goes on from tick to tick"),
    _clock("back", lambda limits: -JUMP_S, _noticed(Cause.CLOCK)),
    # What the robot says of itself
    _health(
        "battery",
        "low",
        lambda limits: {"battery_share": limits.profile.battery_trip_share - 0.01},
        _noticed(Cause.BATTERY),
    ),
    _health(
        "temperature",
        "case",
        lambda limits: {"motor_temperature_c": _hot(limits, limits.profile.motor_temperature_trip_c)},
        _noticed(Cause.TEMPERATURE),
    ),
    _health(
        "temperature",
        "winding",
        lambda limits: {"winding_temperature_c": _hot(limits, limits.profile.winding_temperature_trip_c)},
        _noticed(Cause.TEMPERATURE),
    ),
    _health(
        "motor_error",
        "one",
        lambda limits: {"motor_errors": np.eye(1, limits.n_joints, dtype=np.int64)[0]},
        _noticed(Cause.MOTOR_ERROR),
    ),
    _health(
        "bus_errors",
        "few",
        lambda limits: {"lost_packets": limits.profile.lost_packets_trip // 2},
        None,
        "fewer than the threshold",
    ),
    _health(
        "bus_errors",
        "lasting",
        lambda limits: {"lost_packets": limits.profile.lost_packets_trip + 1},
        _noticed(Cause.COMM_LOSS),
    ),
    # Operator
    Case("estop", "pressed", lambda spec, limits: Fault(request=Request.ESTOP), _noticed(Cause.OPERATOR_STOP)),
    Case("deadman", "released", lambda spec, limits: Fault(deadman_released=True), _RELEASED, needs="deadman"),
    Case(
        "bad_command",
        "nan",
        lambda spec, limits: Fault(said=f.say(np.nan)),
        None,
        "the last good one is kept",
        "command",
    ),
    Case(
        "bad_command",
        "huge",
        lambda spec, limits: Fault(said=f.say(1e6)),
        None,
        "clipped to the contract's bounds",
        "command",
    ),
    # Body
    *(_body("push", f"{v:g}_m_s", lambda limits, v=v: f.push(v), _FALL, "floating_base") for v in PUSHES_M_S),
    *(
        _body("tilt_push", f"{v:g}_rad_s", lambda limits, v=v: f.tilt_push(v), _FALL, "floating_base")
        for v in TILT_PUSHES_RAD_S
    ),
    *(
        _body("shove_joint", f"{v:g}x", lambda limits, v=v: f.shove_joint(v * limits.vel_trip[0]), _SHOVED)
        for v in SHOVES
    ),
)
"""In the order of the report."""


def _hot(limits: SafetyLimits, trip_c: float) -> Array:
    """One motor beyond the threshold."""
    return np.eye(1, limits.n_joints)[0] * (trip_c + OVERHEATED_C)
