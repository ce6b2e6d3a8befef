"""Control table of the Dynamixel XL330 and XC330 servos: (address, bytes), units and error bits.

Robotis e-manual, XL330-M288-T and XC330-M288-T.
"""

from __future__ import annotations

import math

import numpy as np

MODELS = {
    1190: "XL330-M077",
    1200: "XL330-M288",
    1210: "XC330-T181",
    1220: "XC330-T288",
    1230: "XC330-M181",
    1240: "XC330-M288",
}
"""Model number -> servo. All share the addresses below."""

# Kept without power; writable while torque is off.
RETURN_DELAY = (9, 1)
DRIVE_MODE = (10, 1)
OPERATING_MODE = (11, 1)
MAX_VOLTAGE = (32, 2)
MIN_VOLTAGE = (34, 2)
CURRENT_LIMIT = (38, 2)
# Lost without power.
TORQUE_ENABLE = (64, 1)
STATUS_RETURN_LEVEL = (68, 1)
HARDWARE_ERROR_STATUS = (70, 1)
GAINS = (80, 6)
"""Position D, I and P gain, two bytes each."""
FEED_FORWARD = (88, 4)
BUS_WATCHDOG = (98, 1)
GOAL_CURRENT = (102, 2)
PROFILE = (108, 8)
"""Acceleration and velocity; zero: no profile."""
GOAL_POSITION = (116, 4)
PRESENT_POSITION = (132, 4)
PRESENT_VOLTAGE = (144, 2)
PRESENT = (126, 21)
"""Everything measured, in one block: see PRESENT_BLOCK."""
CONDITION = (64, 35)
"""Torque enable to bus watchdog: what a servo that restarted or stopped by itself differs in."""

PRESENT_BLOCK = np.dtype(
    [
        ("current", "<i2"),
        ("velocity", "<i4"),
        ("position", "<i4"),
        ("trajectory", "<i4", 2),
        ("voltage", "<u2"),
        ("temperature", "u1"),
    ]
)

CURRENT_BASED_POSITION = 5
TORQUE_ON_BY_GOAL = 0x08
"""Bit of the drive mode with which any goal position switches torque on."""
WATCHDOG_STEP_S = 0.02
WATCHDOG_TRIPPED = 0xFF
MOST_GAIN = 16_383

TICK_RAD = 2 * math.pi / 4096
VELOCITY_RAD_S = 0.229 * 2 * math.pi / 60
VOLTAGE_V = 0.1

RESTARTED, STOPPED = 0x100, 0x200
"""Bits of `Health.motor_errors` above the servo's own hardware error status."""
_ERRORS = {
    0x01: "input voltage",
    0x04: "overheating",
    0x08: "encoder",
    0x10: "electrical shock",
    0x20: "overload",
    RESTARTED: "torque is off though it was switched on",
    STOPPED: "stopped by its bus watchdog",
}


def error_words(error: int) -> str:
    """What the bits of an error mean."""
    return ", ".join(word for bit, word in _ERRORS.items() if error & bit) or f"error {error:#x}"
