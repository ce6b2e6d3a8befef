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
from robot_rl.robots import RobotSpec, SafetyProfile
from robot_rl.runtime.checks import Cause
from robot_rl.runtime.controller import Request
from robot_rl.runtime.limits import SafetyLimits
from robot_rl_sim.faults import expect as e
from robot_rl_sim.faults import fault as f
from robot_rl_sim.faults.expect import Expect
from robot_rl_sim.faults.fault import BodyFault, CommandFault, Fault, PolicyFault, ProcessFault
from robot_rl_sim.faults.state import make_state_fault, spoils_imu, spoils_object

PUSHES_M_S = (0.5, 1.0, 1.5, 2.0, 3.0)
THROWS_M_S = (1.5, 3.0)
TILT_PUSHES = (1.0, 2.0, 3.0, 4.5, 8.0)
SHOVES = (0.5, 1.0, 2.0)
"""Shares of the speed at which a joint trips."""
UNSEEN = 1e4
"""Added to an observation, whose entries are of order one."""
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
    """"imu", "floating_base", "deadman", "command", "object": what the robot or the policy must have."""

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
        "object": bundle.contract.reads_object,
    }
    cases = tuple(c for c in FAULTS if has[c.needs])
    found = tuple(c for c in cases if not patterns or any(fnmatch(c.name, p) or c.kind == p for p in patterns))
    if not found:
        raise ConfigError(f"no fault matches {', '.join(patterns)}; valid: {', '.join(c.name for c in cases)}")
    return found


def _state(kind: str, severity: str, expect: Expect | None, reason: str = "") -> Case:
    name = f"{kind}/{severity}"
    needs = "imu" if spoils_imu(name) else "object" if spoils_object(name) else ""
    return Case(kind, severity, lambda spec, lim: Fault(state=make_state_fault(name, spec)), expect, reason, needs)


def _policy(
    kind: str, severity: str, make: Callable[[SafetyLimits], PolicyFault], expect: Expect | None, reason: str = ""
) -> Case:
    return Case(kind, severity, lambda spec, lim: Fault(policy=make(lim)), expect, reason)


def _command(
    kind: str, severity: str, make: Callable[[SafetyLimits], CommandFault], expect: Expect | None, reason: str = ""
) -> Case:
    return Case(kind, severity, lambda spec, lim: Fault(command=make(lim)), expect, reason)


def _process(
    kind: str, severity: str, make: Callable[[SafetyLimits], ProcessFault], expect: Expect | None, reason: str = ""
) -> Case:
    return Case(kind, severity, lambda spec, lim: Fault(process=make(lim)), expect, reason)


def _clock(severity: str, jump_s: Callable[[SafetyLimits], float], expect: Expect | None, reason: str = "") -> Case:
    return Case("clock_jump", severity, lambda spec, lim: Fault(clock_jump_s=jump_s(lim)), expect, reason)


def _health(
    kind: str, severity: str, field: str, value: Callable[[SafetyLimits], Any], expect: Expect | None, reason: str = ""
) -> Case:
    return Case(kind, severity, lambda spec, lim: Fault(health={field: value(lim)}), expect, reason)


def _command_of(severity: str, value: float, expect: Expect | None, reason: str) -> Case:
    return Case("bad_command", severity, lambda spec, lim: Fault(said=f.say(value)), expect, reason, "command")


def _body(kind: str, severity: str, make: Callable[[SafetyLimits], BodyFault], expect: Expect, needs: str = "") -> Case:
    return Case(kind, severity, lambda spec, lim: Fault(body=make(lim)), expect, "", needs)


def _first(lim: SafetyLimits) -> Array:
    """(n_joints,) one motor of all."""
    return np.eye(1, lim.n_joints)[0]


def _hot(lim: SafetyLimits, part: str) -> Array:
    return _first(lim) * (getattr(lim.profile, f"{part}_temperature_trip_c") + OVERHEATED_C)


def _empty(profile: SafetyProfile) -> float:
    return 0.95 * profile.battery_trip_share


_nan = f.spoil("joint_target", lambda value: value * np.nan)
_unseen = f.spoil("obs", lambda value: value + UNSEEN)
_INVALID = e.evaluations(Cause.POLICY_INVALID)
_TEMPERATURE, _COMM_LOSS = e.noticed(Cause.TEMPERATURE), e.noticed(Cause.COMM_LOSS)
_YOUNG = "younger than the age at which to hold"
_FEW = "fewer than the threshold"
_WARNS = "an overrun warns; one at a time does no harm"
_LATE = f"{_WARNS}; a humanoid may lose its balance, which is noticed"
_LIVES = "the one before still lives"

FAULTS: tuple[Case, ...] = (
    Case("none", "none", lambda spec, lim: Fault(), None, "nothing is broken"),
    # States
    _state("drop_state", "one", None, _YOUNG),
    _state("drop_state", "burst", None, _YOUNG),
    _state("drop_state", "lasting", e.STALE),
    _state("delay", "short", None, _YOUNG),
    _state("delay", "long", e.STALE),
    _state("delay", "lasting", e.STALE),
    _state("duplicate", "each", None, "the same reading says the same"),
    _state("duplicate", "lasting", e.STALE),
    _state("reorder", "neighbours", None, _YOUNG),
    _state("reorder", "lasting", e.OLD),
    _state("nan", "one", None, "one unusable reading is left out"),
    _state("nan", "velocity", e.noticed(Cause.STATE_INVALID)),
    _state("nan", "imu", e.noticed(Cause.STATE_INVALID)),
    _state("nan", "infinite", e.noticed(Cause.STATE_INVALID)),
    _state("nan", "lasting", e.noticed(Cause.STATE_INVALID)),
    _state("spike", "small", None, "no more than noise and resolution"),
    _state("spike", "one", None, "one impossible reading is left out"),
    _state("spike", "offset", e.noticed(Cause.STATE_JUMP)),
    _state("spike", "lasting", e.noticed(Cause.STATE_JUMP)),
    _state("encoder_drift", "lasting", e.DRIFTED),
    _state("freeze_joint", "position", e.MISREAD),
    _state("freeze_joint", "lasting", e.FALL, "a joint at rest looks the same; motion and falls show"),
    _state("freeze_imu", "lasting", e.FROZEN),
    _state("velocity_spike", "one", None, "one reading is less than the debounce"),
    _state("velocity_spike", "lasting", e.noticed(Cause.JOINT_VEL)),
    _state("gyro_spike", "lasting", e.noticed(Cause.BASE_ANG_VEL)),
    _state("quat_flip", "sign", None, "q and -q are the same orientation"),
    _state("quat_flip", "one", None, "one impossible reading is left out"),
    _state("quat_flip", "norm", e.noticed(Cause.STATE_INVALID)),
    _state("quat_flip", "order", e.noticed(Cause.STATE_JUMP)),
    _state("quat_flip", "lasting", e.noticed(Cause.STATE_JUMP)),
    _state("object_unseen", "one", None, "one picture is missed now and then"),
    _state("object_unseen", "lasting", e.UNSEEN_OBJECT),
    _state("object_late", "lasting", e.UNSEEN_OBJECT),
    _state("object_nan", "one", None, "one unusable picture is left out"),
    _state("object_nan", "lasting", e.UNBELIEVED_OBJECT),
    _state("object_jump", "one", None, "one impossible picture is left out"),
    _state("object_jump", "lasting", e.UNBELIEVED_OBJECT),
    _state("object_face", "one", None, "one impossible picture is left out"),
    _state("object_face", "lasting", e.UNBELIEVED_OBJECT),
    _state("object_freeze", "lasting", e.STUCK, "an object at rest looks the same; only that no goal is reached shows"),
    # Policy
    _policy("policy_raises", "one", lambda _: f.once(f.fail), e.evaluations(Cause.POLICY_ERROR)),
    _policy("policy_raises", "lasting", lambda _: f.fail, e.evaluations(Cause.POLICY_ERROR)),
    _policy("policy_nan", "one", lambda _: f.once(_nan), None, "the last target is kept"),
    _policy("policy_nan", "lasting", lambda _: _nan, e.evaluations(Cause.POLICY_INVALID)),
    _policy("policy_nan", "infinite", lambda _: f.spoil("joint_target", lambda v: v + np.inf), _INVALID),
    _policy("policy_nan", "shape", lambda _: f.spoil("joint_target", lambda v: v[:, 1:]), _INVALID),
    _policy("policy_step", "one", lambda lim: f.once(f.bang_bang(lim.lower, lim.upper)), e.BOUNDED),
    _policy("policy_step", "lasting", lambda lim: f.bang_bang(lim.lower, lim.upper), e.BOUNDED),
    _policy("policy_slow", "short", lambda lim: f.slow(0.9 * lim.loop_period_s), None, "the tick is over in time"),
    _policy("policy_slow", "late", lambda lim: f.slow(2.5 * lim.loop_period_s), e.FALL, _LATE),
    _policy("policy_slow", "lasting", lambda lim: f.slow(e.too_long(lim)), e.TOO_SLOW),
    _policy("policy_hangs", "long", lambda _: f.slow(STOPPED_S), e.UNANSWERED),
    _policy("policy_hangs", "lasting", lambda _: f.hang, e.UNANSWERED),
    _policy("unseen_obs", "one", lambda _: f.once(_unseen), None, "one observation is less than the debounce"),
    _policy("unseen_obs", "lasting", lambda _: _unseen, e.UNSEEN),
    # The way to the motors, and the process
    _command("command_lost", "one", lambda _: f.lose(1), None, _LIVES),
    _command("command_lost", "burst", lambda lim: f.lose(for_s=0.5 * lim.time_to_live_s), None, _LIVES),
    _command("command_lost", "lasting", lambda _: f.lose(), e.EXPIRED),
    _command("command_late", "short", lambda lim: f.late(lim.loop_period_s), None, "it arrives alive"),
    _command("command_late", "lasting", lambda lim: f.late(1.5 * lim.time_to_live_s), e.EXPIRED),
    _command("driver_error", "write", lambda _: f.break_wire, e.EXPIRED),
    _process("driver_error", "read", lambda _: f.raise_in_loop, e.DAMPED_OUT),
    _process("process_stopped", "short", lambda lim: f.stop_process(2.5 * lim.loop_period_s), None, _WARNS),
    _process("process_stopped", "long", lambda lim: f.stop_process(e.too_long(lim)), e.WOKEN),
    _process("process_stopped", "lasting", lambda _: f.stop_process(STOPPED_S), e.EXPIRED),
    _process("process_killed", "lasting", lambda _: f.kill_process, e.EXPIRED),
    _clock("forward_short", lambda lim: 1.5 * lim.loop_period_s, None, _WARNS),
    _clock("forward", lambda _: JUMP_S, e.JUMPED),
    _clock("back_short", lambda lim: -0.5 * lim.loop_period_s, None, "time still goes on from tick to tick"),
    _clock("back", lambda _: -JUMP_S, e.noticed(Cause.CLOCK)),
    # What the robot says of itself
    _health("battery", "low", "battery_share", lambda lim: _empty(lim.profile), e.noticed(Cause.BATTERY)),
    _health("temperature", "case", "motor_temperature_c", lambda lim: _hot(lim, "motor"), _TEMPERATURE),
    _health("temperature", "winding", "winding_temperature_c", lambda lim: _hot(lim, "winding"), _TEMPERATURE),
    _health("motor_error", "one", "motor_errors", lambda lim: _first(lim).astype(int), e.noticed(Cause.MOTOR_ERROR)),
    _health("bus_errors", "few", "lost_packets", lambda lim: lim.profile.lost_packets_trip // 2, None, _FEW),
    _health("bus_errors", "lasting", "lost_packets", lambda lim: 1 + lim.profile.lost_packets_trip, _COMM_LOSS),
    # Operator
    Case("estop", "pressed", lambda spec, lim: Fault(request=Request.ESTOP), e.noticed(Cause.OPERATOR_STOP)),
    Case("deadman", "released", lambda spec, lim: Fault(deadman_released=True), e.RELEASED, needs="deadman"),
    _command_of("nan", np.nan, None, "the last good one is kept"),
    _command_of("huge", 1e6, e.STRANGE, "clipped to its bounds; if training never saw that, the observation tells"),
    # Body
    *(_body("push", f"{v:g}_m_s", lambda _, v=v: f.push(v), e.FALL, "floating_base") for v in PUSHES_M_S),
    *(_body("object_thrown", f"{v:g}_m_s", lambda _, v=v: f.throw_object(v), e.DROPPED, "object") for v in THROWS_M_S),
    *(_body("tilt_push", f"{v:g}_rad_s", lambda _, v=v: f.tilt_push(v), e.FALL, "floating_base") for v in TILT_PUSHES),
    *(_body("shove_joint", f"{v:g}x", lambda lim, v=v: f.shove_joint(v * lim.vel_trip[0]), e.SHOVED) for v in SHOVES),
)  # fmt: skip
"""In the order of the report."""
