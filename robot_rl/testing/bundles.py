"""A tiny policy as a real bundle, made without training: for tests of whatever loads, verifies or runs bundles.

The graph is written node by node, and its golden rows are computed by a second implementation in numpy, so that a
bundle from here that verifies says something about the reader. Needs the `onnx` package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.metadata import onnx_metadata
from robot_rl.bundle.write import write_bundle
from robot_rl.contract import ActionSpec, Contract, TensorSpec
from robot_rl.robots import RobotSpec

Array = NDArray[np.float32]
OPSET = 20


@dataclass(frozen=True)
class TinyPolicy:
    """frame = (joint_pos - default, gravity if there is an IMU, command, last_action); action = tanh(obs W)."""

    robot: RobotSpec
    control_period_s: float = 0.05
    command_dim: int = 3
    history_length: int = 2
    action_scale_rad: float = 0.1
    weight_scale: float = 0.1
    seed: int = 0

    @property
    def imu(self) -> bool:
        return "imu_quat_wxyz" in self.robot.state_fields

    @property
    def frame_dim(self) -> int:
        return 2 * len(self.robot.joints) + self.command_dim + (3 if self.imu else 0)

    def weight(self) -> Array:
        """(obs_dim, n_joints)."""
        shape = (self.history_length * self.frame_dim, len(self.robot.joints))
        return (self.weight_scale * np.random.default_rng(self.seed).normal(size=shape)).astype(np.float32)

    def contract(self) -> Contract:
        n, joints = len(self.robot.joints), self.robot.joints
        margin = [0.06 * (j.upper_rad - j.lower_rad) for j in joints]
        history = (self.history_length - 1) * self.frame_dim
        inputs = [TensorSpec("joint_pos", (n,), "rad", "state", low=-12.6, high=12.6)]
        if self.imu:
            inputs.append(TensorSpec("imu_quat_wxyz", (4,), "1", "state", "imu body in world", -1.05, 1.05))
        if self.command_dim:
            inputs.append(TensorSpec("velocity", (self.command_dim,), "m/s", "command", max_age_s=0.2))
        inputs += [
            TensorSpec("last_action", (n,), "1", "memory", low=-1.0, high=1.0, start="zero", feedback="policy"),
            TensorSpec("last_target", (n,), "rad", "memory", start="joint_pos", feedback="applied"),
        ]
        if history:
            inputs.append(TensorSpec("history", (history,), "1", "memory", start="observation", feedback="policy"))
        memory = [t for t in inputs if t.source == "memory"]
        return Contract(
            robot=self.robot.name,
            variant=self.robot.variant,
            control_period_s=self.control_period_s,
            joints=joints,
            inputs=tuple(inputs),
            outputs=(
                TensorSpec("joint_target", (n,), "rad"),
                TensorSpec("action", (n,), "1", low=-1.0, high=1.0),
                *(TensorSpec(f"next_{t.name}", t.shape, t.unit) for t in memory),
                TensorSpec("obs", (self.history_length * self.frame_dim,), "1"),
            ),
            action=ActionSpec(
                "position_relative",
                scale_rad=(self.action_scale_rad,) * n,
                offset_rad=tuple(j.default_pos_rad for j in joints),
                low_rad=tuple(j.lower_rad + m for j, m in zip(joints, margin, strict=True)),
                high_rad=tuple(j.upper_rad - m for j, m in zip(joints, margin, strict=True)),
            ),
            observation_terms=(
                ("joint_pos", n),
                *((("projected_gravity", 3),) if self.imu else ()),
                *((("command", self.command_dim),) if self.command_dim else ()),
                ("last_action", n),
            ),
            history_length=self.history_length,
        )

    def evaluate(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """The same policy in numpy, on rows: "<input>" (rows, *shape) -> "<output>" (rows, *shape)."""
        contract = self.contract()
        action_spec = contract.action
        parts = [inputs["joint_pos"] - np.array(action_spec.offset_rad, np.float32)]
        if self.imu:
            w, x, y, z = inputs["imu_quat_wxyz"].T
            parts.append(np.stack((2 * (w * y - x * z), -2 * (y * z + w * x), 2 * (x * x + y * y) - 1), -1))
        if self.command_dim:
            parts.append(inputs["velocity"])
        frame = np.concatenate([*parts, inputs["last_action"]], axis=-1)
        obs = np.concatenate((inputs["history"], frame), axis=-1) if self.history_length > 1 else frame
        action = np.tanh(obs @ self.weight())
        target = np.clip(
            np.array(action_spec.offset_rad, np.float32) + np.float32(self.action_scale_rad) * action,
            np.array(action_spec.low_rad, np.float32),
            np.array(action_spec.high_rad, np.float32),
        )
        outputs = {"joint_target": target, "action": action, "next_last_action": action, "next_last_target": target}
        if self.history_length > 1:
            outputs["next_history"] = obs[:, self.frame_dim :]
        return {name: value.astype(np.float32) for name, value in {**outputs, "obs": obs}.items()}

    def golden(self, rows: int = 8) -> dict[str, Array]:
        """Random inputs and what `evaluate` makes of them, keyed as in a bundle."""
        rng = np.random.default_rng(self.seed + 1)
        inputs = {t.name: rng.normal(size=(rows, *t.shape)).astype(np.float32) for t in self.contract().inputs}
        if self.imu:
            inputs["imu_quat_wxyz"] /= np.linalg.norm(inputs["imu_quat_wxyz"], axis=-1, keepdims=True)
        outputs = self.evaluate(inputs)
        return {f"in/{n}": v for n, v in inputs.items()} | {f"out/{n}": v for n, v in outputs.items()}

    def onnx_bytes(self) -> bytes:
        """The policy as an ONNX file with metadata."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        contract = self.contract()
        spec = contract.action
        constants: dict[str, NDArray[Any]] = {
            "offset": np.array(spec.offset_rad, np.float32),
            "scale": np.array(self.action_scale_rad, np.float32),
            "low": np.array(spec.low_rad, np.float32),
            "high": np.array(spec.high_rad, np.float32),
            "weight": self.weight(),
        }
        nodes: list[Any] = [helper.make_node("Sub", ["joint_pos", "offset"], ["relative"])]
        parts = ["relative"]
        if self.imu:
            constants["two"], constants["one"] = np.array(2, np.float32), np.array(1, np.float32)
            nodes.append(helper.make_node("Split", ["imu_quat_wxyz"], ["w", "x", "y", "z"], axis=1, num_outputs=4))
            for a, b in ("wy", "xz", "yz", "wx", "xx", "yy"):
                nodes.append(helper.make_node("Mul", [a, b], [f"{a}{b}"]))
            nodes += [
                helper.make_node("Sub", ["wy", "xz"], ["gx_half"]),
                helper.make_node("Mul", ["gx_half", "two"], ["gx"]),
                helper.make_node("Add", ["yz", "wx"], ["gy_half"]),
                helper.make_node("Mul", ["gy_half", "two"], ["gy_negative"]),
                helper.make_node("Neg", ["gy_negative"], ["gy"]),
                helper.make_node("Add", ["xx", "yy"], ["gz_half"]),
                helper.make_node("Mul", ["gz_half", "two"], ["gz_one"]),
                helper.make_node("Sub", ["gz_one", "one"], ["gz"]),
                helper.make_node("Concat", ["gx", "gy", "gz"], ["gravity"], axis=1),
            ]
            parts.append("gravity")
        if self.command_dim:
            parts.append("velocity")
        parts.append("last_action")
        if self.history_length > 1:
            parts.insert(0, "history")
            constants["from"] = np.array([self.frame_dim], np.int64)
            constants["to"] = np.array([2**31 - 1], np.int64)
            constants["axis"] = np.array([1], np.int64)
        nodes += [
            helper.make_node("Concat", parts, ["obs"], axis=1),
            helper.make_node("MatMul", ["obs", "weight"], ["summed"]),
            helper.make_node("Tanh", ["summed"], ["action"]),
            helper.make_node("Mul", ["action", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "offset"], ["unclipped"]),
            helper.make_node("Max", ["unclipped", "low"], ["above"]),
            helper.make_node("Min", ["above", "high"], ["joint_target"]),
            helper.make_node("Identity", ["action"], ["next_last_action"]),
            helper.make_node("Identity", ["joint_target"], ["next_last_target"]),
        ]
        if self.history_length > 1:
            nodes.append(helper.make_node("Slice", ["obs", "from", "to", "axis"], ["next_history"]))
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, ["n", *t.shape]) for t in contract.inputs],
            [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, ["n", *t.shape]) for t in contract.outputs],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        helper.set_model_props(model, onnx_metadata(contract))
        return model.SerializeToString()

    def write(self, path: Path | str, **changes: Any) -> Path:
        """Write the bundle; `changes` replace arguments of `write_bundle`, for making broken ones."""
        contract = self.contract()
        arguments: dict[str, Any] = {
            "onnx_bytes": self.onnx_bytes(),
            "golden": self.golden(),
            "card": "# Tiny policy\n\nFor tests.\n",
            "contract": contract,
            "task": "tiny",
            "algorithm": "none",
            "git_revision": "",
            "config": {},
            "seeds": {"weights": self.seed},
            "evaluation": {},
            "obs_mean": [0.0] * contract.observation_dim,
            "obs_std": [1.0] * contract.observation_dim,
            **changes,
        }
        return write_bundle(path, **arguments)
