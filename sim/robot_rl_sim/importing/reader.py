"""A model file as an MjSpec: read, compiled, and refused with words that say what to mend."""

from __future__ import annotations

from pathlib import Path

import mujoco

from robot_rl.errors import ConfigError
from robot_rl_sim.importing.findings import Findings

# Part of MuJoCo's message -> what the person with the file can do about it.
_ADVICE = {
    "mass and inertia of moving bodies": "every link that moves needs mass: an <inertial>, or a geometry with volume",
    "inertia must satisfy A + B >= C": "no real body has these principal moments; correct them, or "
    'have MuJoCo do so: <compiler balanceinertia="true"/>',
    "repeated name": "names must be unique: rename one of the two",
    "unknown default class": "define the class in <default>, or include the file that does",
    "XML_ERROR": "the file is not well-formed XML",
    "Error opening file": "the file named there is missing",
    "Unrecognized XML model type": "the root must be <mujoco> or, with --urdf, <robot>",
}


def read_mjcf(path: Path) -> mujoco.MjSpec:
    """The model as its file has it. Raises ConfigError."""
    require_file(path)
    try:
        return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise ConfigError(f"{path}: {explain(error)}") from error


def compile_spec(spec: mujoco.MjSpec, path: Path) -> mujoco.MjModel:
    """The compiled model. Raises ConfigError naming the element at fault."""
    try:
        return spec.compile()
    except ValueError as error:
        raise ConfigError(f"{path}: {explain(error)}") from error


def explain(error: ValueError) -> str:
    """MuJoCo's message on one line, with advice where we have some."""
    text = " ".join(str(error).removeprefix("XML ").removeprefix("Error: ").split())
    advice = next((advice for part, advice in _ADVICE.items() if part in text), "")
    return f"{text} ({advice})" if advice else text


def require_file(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")


def name_parts(spec: mujoco.MjSpec, findings: Findings) -> None:
    """Give names to bodies, joints and actuators that have none: everything later goes by name."""
    bodies = {b.name for b in spec.bodies if b.name}
    for body in spec.bodies:
        body.name = body.name or _unused("robot" if body.parent.name == "world" else "body", bodies)
    joints = {j.name for j in spec.joints if j.name}
    for joint in spec.joints:
        if not joint.name:
            joint.name = _unused(f"{joint.parent.name}_joint", joints)
            if int(joint.type) != int(mujoco.mjtJoint.mjJNT_FREE):
                findings.add("joint without a name, named after its body", joint.name)
    unnamed = [a for a in spec.actuators if not a.name]
    if unnamed:
        findings.add(f"{len(unnamed)} actuators without names, called by what they drive")
    taken = {a.name for a in spec.actuators if a.name}
    for actuator in unnamed:
        actuator.name = _unused(actuator.target or "actuator", taken)


def _unused(name: str, taken: set[str]) -> str:
    """`name`, or with a number behind it; marked as taken."""
    candidate, n = name, 2
    while candidate in taken:
        candidate, n = f"{name}_{n}", n + 1
    taken.add(candidate)
    return candidate
