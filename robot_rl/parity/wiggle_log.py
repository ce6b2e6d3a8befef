"""What `robot-rl wiggle --log` writes: commands to a robot that no policy runs on, and measurements; one .npz file."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.contract import STATE_FIELDS, Contract
from robot_rl.errors import ConfigError, LogError
from robot_rl.parity.flight import COMMAND_FIELDS, WIGGLE, Flight, FlightRecorder
from robot_rl.robots import RobotSpec

SUFFIX = ".npz"


def write_wiggle_log(path: Path, spec: RobotSpec, recorder: FlightRecorder) -> None:
    """Write atomically. Raises ConfigError if nothing was measured or the file cannot be written."""
    about = {"robot": np.array(f"{spec.name}/{spec.variant}"), "joints": np.array(spec.joint_names)}
    arrays: dict[str, Any] = recorder.arrays() | about
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"log {path} cannot be written: {error}") from error


def read_wiggle_log(path: Path, contract: Contract) -> Flight:
    """The flight that such a log holds. Raises LogError if it is none, or of another robot than `contract`'s."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise LogError(f"{path} is no log of wiggled joints: {error}") from error
    missing = sorted({"robot", "joints", "stamp_s", "command_s", *COMMAND_FIELDS, "joint_pos"} - set(arrays))
    if missing:
        raise LogError(f"{path} is no log of wiggled joints: it has no {', '.join(missing)}")
    robot, joints = str(arrays["robot"]), tuple(map(str, arrays["joints"]))
    if (robot, joints) != (f"{contract.robot}/{contract.variant}", contract.joint_names):
        raise LogError(f"{path} is of robot {robot}, not of {contract.robot}/{contract.variant} with the same joints")
    measured = [f for f in STATE_FIELDS if f in arrays]
    sizes = dict.fromkeys((*COMMAND_FIELDS, *(f for f in measured if f.startswith("joint_"))), len(joints))
    for name in ("stamp_s", "command_s", *COMMAND_FIELDS, *measured):
        values, size = arrays[name], sizes.get(name)
        if values.dtype.kind != "f" or values.ndim != (1 if name.endswith("_s") else 2):
            raise LogError(f"{path}: {name} must be a table of numbers, got {values.dtype} of {values.shape}")
        if name not in measured and not np.isfinite(values).all():
            raise LogError(f"{path}: {name} has values that are not finite")
        if size is not None and values.shape[1] != size:
            raise LogError(f"{path}: {name} must have {size} columns, one per joint, got {values.shape[1]}")
    try:
        flight = Flight.of(contract, arrays, np.full(len(arrays["command_s"]), WIGGLE))
    except ConfigError as error:
        raise LogError(f"{path}: {error}") from error
    # A sensor may fail for a moment; what it said then is no measurement.
    sound = np.logical_and.reduce([np.isfinite(values).all(1) for values in flight.state.values()])
    state = {name: values[sound] for name, values in flight.state.items()}
    return replace(flight, stamp_s=flight.stamp_s[sound], state=state)
