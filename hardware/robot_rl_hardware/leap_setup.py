"""What is done to a line of Dynamixel servos before and after it drives a robot: find, prepare, switch off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from robot_rl_hardware import dynamixel_x as dxl
from robot_rl_hardware.dynamixel_bus import BusError, DynamixelBus, LineLostError
from robot_rl_hardware.leap_options import LeapOptions

ATTEMPTS = 3

_log = logging.getLogger(__name__)

T = TypeVar("T")


def find(bus: DynamixelBus, names: Mapping[int, str], options: LeapOptions) -> None:
    """Check that every servo of `names` (id -> joint) is there, and of a known model. Raises BusError naming joints."""
    found: dict[int, int] = {}
    for servo in names:
        try:
            found[servo] = _patiently(lambda servo=servo: bus.ping(servo))
        except BusError as error:
            _log.debug("%s", error)
    if not found:
        raise BusError(f"no servo answers on {options.port} at {options.baud} baud: check power, cable and baud rate")
    if missing := [f"{name} (id {i})" for i, name in names.items() if i not in found]:
        raise BusError(f"no answer from {', '.join(missing)}; {len(found)} of {len(names)} servos answer")
    if wrong := [f"{names[i]} (id {i}) is model {m}" for i, m in found.items() if m not in dxl.MODELS]:
        valid = ", ".join(f"{number} {name}" for number, name in dxl.MODELS.items())
        raise BusError(f"{', '.join(wrong)}; this driver knows {valid}")


def prepare(bus: DynamixelBus, names: Mapping[int, str], options: LeapOptions) -> None:
    """Torque off, no errors, right mode, quick answers, watchdog cleared. Raises BusError naming the joint."""
    for servo, name in names.items():
        try:
            _prepare(bus, servo, options)
        except BusError as error:
            raise BusError(f"{name} (id {servo}): {error}") from error


def _prepare(bus: DynamixelBus, servo: int, options: LeapOptions) -> None:
    def get(register: tuple[int, int]) -> int:
        return int.from_bytes(_patiently(lambda: bus.read(servo, *register))[0], "little")

    def put(register: tuple[int, int], value: int) -> None:
        _patiently(lambda: bus.write(servo, register[0], value.to_bytes(register[1], "little")))

    # First of all: nothing else may be set while it moves.
    put(dxl.TORQUE_ENABLE, 0)
    if error := get(dxl.HARDWARE_ERROR_STATUS):
        raise BusError(f"{dxl.error_words(error)}; switch its power off and on")
    supply, low, high = (dxl.VOLTAGE_V * get(r) for r in (dxl.PRESENT_VOLTAGE, dxl.MIN_VOLTAGE, dxl.MAX_VOLTAGE))
    if not low <= supply <= high:
        raise BusError(f"supply of {supply:.1f} V is outside its limits [{low:.1f}, {high:.1f}] V")
    if get(dxl.CURRENT_LIMIT) < options.current_limit_ma:
        raise BusError(
            f"its current limit is {get(dxl.CURRENT_LIMIT)} mA; the unit asks for {options.current_limit_ma}"
        )
    if get(dxl.DRIVE_MODE) & dxl.TORQUE_ON_BY_GOAL:
        raise BusError("its drive mode (address 10) lets any goal switch torque on; clear bit 3")
    for register, value in ((dxl.OPERATING_MODE, dxl.CURRENT_BASED_POSITION), (dxl.RETURN_DELAY, 0)):
        # In memory that wears: written only where it differs.
        if get(register) != value:
            put(register, value)
    for register, value in (
        (dxl.STATUS_RETURN_LEVEL, 2),
        (dxl.BUS_WATCHDOG, 0),
        (dxl.PROFILE, 0),
        (dxl.FEED_FORWARD, 0),
    ):
        put(register, value)


def _patiently(exchange: Callable[[], T]) -> T:
    """In up to ATTEMPTS: before anything moves, one lost packet is no reason to refuse."""
    for _ in range(ATTEMPTS - 1):
        try:
            return exchange()
        except LineLostError:
            raise
        except BusError as error:
            _log.debug("%s", error)
    return exchange()


def switch_off(bus: DynamixelBus, names: Mapping[int, str], options: LeapOptions) -> None:
    """Torque off until every servo says that it is, then close the port. Raises nothing; logs who did not answer."""
    ids, problem = tuple(names), ""
    on = set(ids)
    for _ in range(ATTEMPTS):
        try:
            bus.sync_write(dxl.TORQUE_ENABLE[0], dict.fromkeys(ids, b"\0"))
            answers = bus.sync_read(ids, *dxl.TORQUE_ENABLE)
            on = {i for i in ids if i not in answers or answers[i][0] != b"\0"}
            problem = "no confirmation"
        except Exception as error:  # a dead port raises many things, and none may keep the others from being tried
            problem = str(error)
        if not on:
            break
    bus.close()
    if on:
        _log.error(
            "torque may still be on at %s (%s): after %.2g s without packets these servos stop and hold with at most "
            "%d mA; cut their power",
            ", ".join(names[i] for i in sorted(on)),
            problem,
            options.watchdog_s,
            options.current_limit_ma,
        )
