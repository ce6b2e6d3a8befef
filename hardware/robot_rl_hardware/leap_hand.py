"""LEAP hand: sixteen Dynamixel XL330 or XC330 servos in current-based position mode, as RobotInterface.

A position servo takes no N m/rad, and has no damping mode. What the commands of the control loop become:

- **stiff** (kp > 0): goal position; gain registers `p_gain`, `d_gain` scaled by kp and kd as shares of the robot's own;
  goal current `current_limit_ma`, which bounds the torque. Velocity and feed-forward effort cannot be sent.
- **damp** (kp 0): P and I gain 0, so that no position pulls; the D gain, which opposes motion, stays; goal current
  `damp_current_ma`. A finger that is pushed gives way against a small bounded torque and the friction of a 288:1 gear.
  It is not switched off, because fingers that hold something would drop it in one tick; but it needs nothing else.
- **release** (`stop`, or a second after the last command): torque off.

A thread here damps when commands expire. What no process survives (kill -9, a dead host) is left to the servos: after
`watchdog_s` without any packet each **stops and holds** where it is, within its goal current, and refuses new goals
until its watchdog is cleared. They do not go limp: then only cutting their power does that.

Robotis e-manual, control tables of XL330-M288-T and XC330-M288-T. Figures of the hand: leap-hand/LEAP_Hand_API.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import threading
import time
import weakref
from contextlib import suppress
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import JointCommand, NumpyState, RobotState
from robot_rl.errors import ConfigError, ContractError
from robot_rl.robots import RobotSpec
from robot_rl.robots.unit import UnitConfig
from robot_rl.runtime.interface import Health
from robot_rl_hardware import dynamixel_x as dxl
from robot_rl_hardware.dynamixel_bus import ALERT, BusError, DynamixelBus
from robot_rl_hardware.leap_options import options_of
from robot_rl_hardware.leap_setup import find, prepare, switch_off

TORQUE_NM_A = 0.366
"""As in `robot_rl.robots.leap_hand`."""
RELEASE_S = 1.0
"""A robot that nobody commands is damped for this long, then released."""

_log = logging.getLogger(__name__)

Array = NDArray[np.float64]


class LeapHand:
    """The hand of one unit file. Torque is off until a command with gains arrives, and off again however this ends."""

    def __init__(self, spec: RobotSpec, unit: UnitConfig) -> None:
        if unit.robot != spec.name:
            raise ConfigError(f"unit {unit.serial!r} is a {unit.robot}, not a {spec.name}")
        if len(unit.joints) != len(spec.joints):
            raise ConfigError(f"unit {unit.serial!r} has no joints; this driver needs the servo of each")
        if (worst := max(j.id for j in unit.joints)) > 252:
            raise ConfigError(f"unit {unit.serial!r}: servo ids go up to 252, got {worst}")
        self.spec = spec
        self.options = options_of(unit)
        self.exchange_s = 0.0
        """Duration of the last complete reading."""
        self.voltage_v: Array | None = None
        """(n_joints,) supply voltage at the servos."""
        self._ids = tuple(j.id for j in unit.joints)
        self._names = dict(zip(self._ids, spec.joint_names, strict=True))
        self._sign = np.array([j.sign for j in unit.joints], np.float64)
        self._zero_rad = np.array([j.zero_offset_rad for j in unit.joints])
        self._kp = np.array([j.kp_nm_rad for j in spec.joints])
        self._kd = np.array([j.kd_nms_rad for j in spec.joints])
        self._lower = np.array([j.lower_rad for j in spec.joints])
        self._upper = np.array([j.upper_rad for j in spec.joints])
        self._bus = DynamixelBus(self.options.port, self.options.baud, self.options.reply_timeout_s)
        self._torque = False
        self._release: weakref.finalize[Any, Any] | None = None
        self._closed = threading.Event()
        self._forget()

    def _forget(self) -> None:
        self._state: NumpyState | None = None
        self._health: Health | None = None
        self._temperature_c: Array | None = None
        self._errors = np.zeros(len(self._ids), np.int64)
        self._lost = self._looked = 0
        self._expires_s = math.inf
        self._spoke_s, self._suspect = time.monotonic(), False

    def connect(self) -> None:
        """Open the line, find every servo, prepare it with torque off. Raises BusError naming joints; moves nothing."""
        if self._release is not None:
            return
        self._forget()
        self._bus.open()
        # From here on torque is switched off whatever happens: stop, garbage collection, or the interpreter's end.
        self._release = weakref.finalize(self, switch_off, self._bus, self._names, self.options)
        try:
            find(self._bus, self._names, self.options)
            prepare(self._bus, self._names, self.options)
            self._soften(0)
            present = self._present()
            if silent := self._silent(present):
                raise BusError(f"no sound reading of {', '.join(silent)}")
            self._unwind(self._block(present)["position"])
            self._accept(present, time.monotonic())
        except BaseException:
            self.stop()
            raise
        self._closed = threading.Event()
        expiry = threading.Thread(target=_expire, args=(weakref.ref(self), self._closed), name="expiry", daemon=True)
        expiry.start()
        _exit_on_signals()

    def _soften(self, current_ma: int) -> None:
        """P and I gain 0, D gain kept, goal current `current_ma`: whatever the goal position, nothing pulls."""
        gains = np.array([self.options.d_gain, 0, 0], "<u2").tobytes()
        with self._bus.lock:
            self._bus.sync_write(dxl.GAINS[0], dict.fromkeys(self._ids, gains))
            self._bus.sync_write(dxl.GOAL_CURRENT[0], dict.fromkeys(self._ids, current_ma.to_bytes(2, "little")))

    def _unwind(self, ticks: Array) -> None:
        """Servos count turns from where they woke up: move each zero by turns, so that the joint is near its range."""
        angle = self._sign * (ticks * dxl.TICK_RAD - self._zero_rad)
        turns = np.round((angle - 0.5 * (self._lower + self._upper)) / (2 * math.pi))
        self._zero_rad += self._sign * 2 * math.pi * turns

    def _switch_on(self) -> None:
        """Torque on at the measured pose, without gain. Raises BusError naming the servos that did not follow."""
        with self._bus.lock:
            present = self._present()
            # One damaged answer must not cost the session.
            if self._silent(present) and (silent := self._silent(present := self._present())):
                raise BusError(f"torque stays off: no sound answer from {', '.join(silent)}")
            self._bus.sync_write(dxl.BUS_WATCHDOG[0], dict.fromkeys(self._ids, b"\0"))
            self._soften(self.options.damp_current_ma)
            self._bus.sync_write(dxl.GOAL_POSITION[0], {i: present[i][0][6:10] for i in self._ids})
            ticks = round(self.options.watchdog_s / dxl.WATCHDOG_STEP_S)
            self._bus.sync_write(dxl.BUS_WATCHDOG[0], dict.fromkeys(self._ids, bytes([ticks])))
            self._torque = True
            self._bus.sync_write(dxl.TORQUE_ENABLE[0], dict.fromkeys(self._ids, b"\1"))
            condition = self._bus.sync_read(self._ids, *dxl.CONDITION)
            wrong = [self._names[i] for i in self._ids if i not in condition or not _is_on(condition[i][0], ticks)]
            if wrong:
                raise BusError(f"torque or watchdog could not be switched on: {', '.join(wrong)}")
            self._errors &= ~(dxl.RESTARTED | dxl.STOPPED)

    def read(self) -> NumpyState | None:
        """Ask every servo; the state is renewed only if all of them answer soundly, and ages otherwise."""
        start_s = time.monotonic()
        try:
            present, problem = self._present(), ""
        except BusError as error:
            present, problem = {}, str(error)
        if silent := self._silent(present):
            self._lost += 1
            if self._lost == 1:
                _log.warning("%s", problem or f"no sound answer from {', '.join(silent)}")
        else:
            # Dated by the question: no servo measured before it.
            self._accept(present, start_s)
        self._notice_gap()
        with suppress(BusError):
            self._look_closer(present)
        self._report()
        self.exchange_s = time.monotonic() - start_s
        return self._state

    def _silent(self, present: dict[int, tuple[bytes, int]]) -> list[str]:
        return [self._names[i] for i in self._ids if i not in present]

    def _block(self, present: dict[int, tuple[bytes, int]]) -> NDArray[Any]:
        return np.frombuffer(b"".join(present[i][0] for i in self._ids), dxl.PRESENT_BLOCK)

    def _present(self) -> dict[int, tuple[bytes, int]]:
        return self._bus.sync_read(self._ids, *dxl.PRESENT)

    def _notice_gap(self) -> None:
        """Whether this process was kept from speaking for so long that the servos have stopped."""
        now_s = time.monotonic()
        self._suspect = self._suspect or (self._torque and now_s - self._spoke_s > self.options.watchdog_s)
        self._spoke_s = now_s

    def _look_closer(self, present: dict[int, tuple[bytes, int]]) -> None:
        """The condition of every servo that raises an alert, and of one more, in turn; of all after a gap."""
        alerts = [k for k, i in enumerate(self._ids) if i in present and present[i][1] & ALERT]
        self._looked = (self._looked + 1) % len(self._ids)
        suspects = range(len(self._ids)) if self._suspect else {*alerts, self._looked}
        for k in suspects:
            data, _ = self._bus.read(self._ids[k], *dxl.CONDITION)
            error = data[dxl.HARDWARE_ERROR_STATUS[0] - dxl.CONDITION[0]]
            if self._torque:
                error |= 0 if data[0] else dxl.RESTARTED
                error |= dxl.STOPPED if data[dxl.BUS_WATCHDOG[0] - dxl.CONDITION[0]] == dxl.WATCHDOG_TRIPPED else 0
            if error and error != self._errors[k]:
                _log.error("%s: %s", self._names[self._ids[k]], dxl.error_words(error))
            self._errors[k] = error
        self._suspect = False

    def _accept(self, present: dict[int, tuple[bytes, int]], stamp_s: float) -> None:
        block, sign = self._block(present), self._sign
        self._lost = 0
        self._temperature_c = block["temperature"].astype(np.float64)
        self.voltage_v = block["voltage"] * dxl.VOLTAGE_V
        self._state = RobotState(
            stamp_s=np.array([stamp_s]),
            joint_pos=(sign * (block["position"] * dxl.TICK_RAD - self._zero_rad))[None],
            joint_vel=(sign * block["velocity"] * dxl.VELOCITY_RAD_S)[None],
            joint_effort=(sign * block["current"] * (TORQUE_NM_A / 1e3))[None],
        )
        self._report()

    def _report(self) -> None:
        stamp_s = time.monotonic() if self._state is None else float(self._state.stamp_s[0])
        self._health = Health(
            stamp_s=stamp_s,
            motor_temperature_c=self._temperature_c,
            motor_errors=self._errors.copy(),
            lost_packets=self._lost,
        )

    def health(self) -> Health | None:
        """As of the last `read`."""
        return self._health

    def write(self, command: JointCommand) -> JointCommand:
        """Send one command; see the module for what becomes of it. Returns what was sent, in the servos' resolution.

        Raises ContractError for a command that no robot should get, and BusError where the line or a servo fails to
        take it.
        """
        n = len(self._ids)
        for name in ("position", "velocity", "effort", "kp", "kd"):
            values = getattr(command, name)
            if np.shape(values) != (n,) or not np.isfinite(values).all():
                raise ContractError(f"joint command: {name} must be {n} finite numbers, got {values}")
        zero = np.zeros(n)
        with self._bus.lock:
            if not (command.kp.any() or command.kd.any()):
                self._switch_off()
                return dataclasses.replace(command, position=zero, velocity=zero, effort=zero)
            if not self._torque:
                self._switch_on()
            self._expires_s = command.expires_s
            if not command.kp.any() or time.monotonic() >= command.expires_s:
                self._soften(self.options.damp_current_ma)
                sent = dataclasses.replace(command, position=zero, velocity=zero, effort=zero, kp=zero, kd=self._kd)
            else:
                sent = self._drive(command)
            self._notice_gap()
        return sent

    def _drive(self, command: JointCommand) -> JointCommand:
        ticks = np.round(
            (self._sign * np.clip(command.position, self._lower, self._upper) + self._zero_rad) / dxl.TICK_RAD
        )
        p = np.clip(np.round(self.options.p_gain * command.kp / self._kp), 0, dxl.MOST_GAIN)
        d = np.clip(np.round(self.options.d_gain * command.kd / self._kd), 0, dxl.MOST_GAIN)
        gains = np.stack((d, np.zeros_like(d), p), axis=1).astype("<u2")
        current = self.options.current_limit_ma.to_bytes(2, "little")
        # All of it every time: a packet that a servo missed is mended by the next, without anybody having noticed.
        self._bus.sync_write(dxl.GOAL_POSITION[0], _per_servo(self._ids, ticks.astype("<i4")))
        self._bus.sync_write(dxl.GAINS[0], _per_servo(self._ids, gains))
        self._bus.sync_write(dxl.GOAL_CURRENT[0], dict.fromkeys(self._ids, current))
        zero = np.zeros_like(p)
        return dataclasses.replace(
            command,
            position=self._sign * (ticks * dxl.TICK_RAD - self._zero_rad),
            velocity=zero,
            effort=zero,
            kp=p * self._kp / self.options.p_gain,
            kd=d * self._kd / max(1, self.options.d_gain),
        )

    def _switch_off(self) -> None:
        """Sent again at each call: cheaper than knowing whether it arrived."""
        self._bus.sync_write(dxl.TORQUE_ENABLE[0], dict.fromkeys(self._ids, b"\0"))
        self._torque = False
        self._expires_s = math.inf

    def expire(self, now_s: float) -> None:
        """Damp if the last command has expired, and release RELEASE_S later. A thread calls this all the time."""
        with self._bus.lock:
            if not self._torque or now_s < self._expires_s:
                return
            try:
                if now_s < self._expires_s + RELEASE_S:
                    self._soften(self.options.damp_current_ma)
                else:
                    self._switch_off()
            except BusError as error:
                _log.debug("%s", error)

    def stop(self) -> None:
        """Torque off, read back, and the port closed."""
        release, self._release = self._release, None
        self._closed.set()
        self._torque = False
        if release is not None:
            release()

    def __enter__(self) -> LeapHand:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _per_servo(ids: tuple[int, ...], values: NDArray[Any]) -> dict[int, bytes]:
    return {i: row.tobytes() for i, row in zip(ids, values, strict=True)}


def _is_on(condition: bytes, watchdog_ticks: int) -> bool:
    return condition[0] == 1 and condition[dxl.BUS_WATCHDOG[0] - dxl.CONDITION[0]] == watchdog_ticks


def _expire(hand: weakref.ref[LeapHand], closed: threading.Event) -> None:
    """Thread: holds no reference while it waits, so that a forgotten hand is collected, and released."""
    while not closed.wait(0.02):
        alive = hand()
        if alive is None:
            return
        alive.expire(time.monotonic())
        del alive


def _exit_on_signals() -> None:
    """Make SIGTERM, SIGHUP and SIGQUIT end Python in order, torque off included, where nobody else handles them."""
    if threading.current_thread() is not threading.main_thread():
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, leave)


def connect(spec: RobotSpec, unit: UnitConfig | None = None) -> LeapHand:
    """Driver entry point: the hand of `unit`, connected, torque off."""
    if unit is None:
        raise ConfigError("interface 'leap_hand' needs --unit FILE; see hardware/units/leap-example.yaml")
    hand = LeapHand(spec, unit)
    hand.connect()
    return hand
