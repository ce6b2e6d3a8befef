"""`robot-rl bench servos`: what one cycle of a LEAP hand's control takes on its line, measured on emulated servos."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from robot_rl.commands.result import Result, Row
from robot_rl.contract import JointCommand
from robot_rl.robots import LEAP_HAND
from robot_rl.robots.unit import JointWiring, UnitConfig
from robot_rl_hardware.leap_hand import LeapHand

CYCLES, PAUSE_S = 500, 0.005
PERIOD_MS = 50.0
"""Control period of the hand's policies."""
# A synchronous read of 21 bytes and its 16 answers, one servo's condition of 35 bytes, and synchronous writes of 4, 6
# and 2 bytes. An instruction is 10 bytes around its parameters, an answer 11.
WIRE_BYTES = (14 + 16) + 16 * (11 + 21) + 14 + (11 + 35) + sum(14 + 16 * (1 + size) for size in (4, 6, 2))
WIRE_MS = WIRE_BYTES * 10 / 4e6 * 1e3


def benchmark() -> Result:
    """Read and command 16 servos, CYCLES times."""
    with tempfile.TemporaryDirectory() as folder:
        link, unit_file = Path(folder) / "line", Path(folder) / "bench.yaml"
        joints = "".join(
            f"  {n}: {{id: {i}, sign: 1, zero_offset_rad: 3.14}}\n" for i, n in enumerate(LEAP_HAND.joint_names)
        )
        unit_file.write_text(f"serial: bench\nrobot: leap_hand\ndriver: {{name: leap_hand}}\njoints:\n{joints}")
        unit = UnitConfig(
            "bench", "leap_hand", "leap_hand", {"port": str(link)}, tuple(JointWiring(i, 1, 3.14) for i in range(16))
        )
        command = [sys.executable, "-m", "robot_rl_hardware.dynamixel_emulator", "--unit", unit_file, "--link", link]
        servos = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert servos.stdout is not None
            servos.stdout.readline()
            with LeapHand(LEAP_HAND, unit) as hand:
                times, lost = _cycles(hand)
        finally:
            servos.terminate()
            servos.communicate()
    return Result(ok=True, rows=(*_rows(times), Row("wire", WIRE_MS, "ms"), Row("lost readings", lost)))


def _cycles(hand: LeapHand) -> tuple[np.ndarray, int]:
    """(CYCLES, 3) ms of reading, writing and own computing; and how many readings failed."""
    state = hand.read()
    assert state is not None
    zero = np.zeros(16)
    kp = np.array([j.kp_nm_rad for j in LEAP_HAND.joints])
    template = JointCommand(state.joint_pos[0], zero, zero, kp, zero, 0.0, 0.0)
    rows, lost = [], 0
    for _ in range(CYCLES):
        start_s, cpu_s = time.monotonic(), time.process_time()
        hand.read()
        read_s = time.monotonic()
        hand.write(dataclasses.replace(template, stamp_s=read_s, expires_s=read_s + 1.0))
        rows.append((read_s - start_s, time.monotonic() - read_s, time.process_time() - cpu_s))
        health = hand.health()
        lost += health is None or health.lost_packets > 0
        time.sleep(PAUSE_S)
    return 1e3 * np.array(rows), lost


def _rows(times: np.ndarray) -> list[Row]:
    columns = {"read": times[:, 0], "write": times[:, 1], "cycle": times[:, :2].sum(1), "own computing": times[:, 2]}
    rows = []
    for name, values in columns.items():
        for quantile in (50, 99):
            value = float(np.percentile(values, quantile))
            rows.append(Row(f"{name}/p{quantile}", value, "ms", "control period", value / PERIOD_MS))
    return rows
