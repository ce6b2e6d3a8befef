"""Metadata inside the ONNX file: the keys that mjlab, whole_body_tracking and legged_control2 read, plus our contract.

Their readers split on commas, so lists are comma-separated; floats are written with `repr`, which loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robot_rl.contract import Contract

CONTRACT_KEY = "robot_rl.contract"


def onnx_metadata(contract: Contract, run_path: str = "") -> dict[str, str]:
    """Key -> value for `metadata_props`. An exporter must replace existing keys, never append to them."""
    joints = contract.joints
    return {
        "run_path": run_path,
        "joint_names": _words(contract.joint_names),
        "joint_stiffness": _numbers([j.kp_nm_rad for j in joints]),
        "joint_damping": _numbers([j.kd_nms_rad for j in joints]),
        "default_joint_pos": _numbers([j.default_pos_rad for j in joints]),
        "command_names": contract.command.name if contract.command is not None else "",
        "observation_names": _words([name for name, _ in contract.observation_terms]),
        "action_scale": _numbers(contract.action.scale_rad),
        CONTRACT_KEY: contract.to_json(),
    }


def metadata_problems(metadata: Mapping[str, str], contract: Contract) -> list[str]:
    """What in an ONNX file's metadata is missing or disagrees with the contract; empty if nothing."""
    problems = []
    for key, expected in onnx_metadata(contract).items():
        if key not in metadata:
            problems.append(f"ONNX metadata lacks {key!r}")
        # The path of a run says nothing about the policy.
        elif key != "run_path" and metadata[key] != expected:
            problems.append(f"ONNX metadata {key!r} is {_short(metadata[key])}, the contract says {_short(expected)}")
    return problems


def _words(names: Sequence[str]) -> str:
    return ",".join(names)


def _numbers(values: Sequence[float]) -> str:
    return ",".join(repr(float(v)) for v in values)


def _short(text: str, length: int = 200) -> str:
    return repr(text if len(text) <= length else f"{text[:length]}...")
