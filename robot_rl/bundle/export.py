"""From a trained policy to a bundle: one ONNX graph, golden rows computed by training's own code, and a card.

The graph is compared with training's modules in closed loop before the bundle is written, so that a bundle which exists
has been shown to compute what was trained.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robot_rl.contract import Contract
from robot_rl.env import RobotVecEnv
from robot_rl.networks.policy_io import PolicyGraph, PolicyIO

OPSET = 20
METADATA_PREFIX = "robot_rl"


@dataclass(frozen=True)
class ClosedLoop:
    """What a rollout under the torch policy yielded."""

    inputs: dict[str, NDArray[np.float32]]
    """Named graph inputs, (rows, ...)."""
    outputs: dict[str, NDArray[np.float32]]
    """What the torch graph computed from them, (rows, ...)."""
    max_error: float
    """Largest difference between torch and ONNX in any output over all steps, in each output's own unit."""
    steps: int


def to_onnx(graph: PolicyGraph, run_path: str = "") -> bytes:
    """One self-contained ONNX file with named inputs and outputs, a free batch dimension, and metadata."""
    contract = graph.io.contract
    graph = graph.eval()
    # Two rows: an example of one row would make the exporter take the batch size for a constant.
    example = tuple(torch.zeros(2, *spec.shape) for spec in contract.inputs)
    batch = torch.export.Dim("n")
    with warnings.catch_warnings(), _quiet("torch.onnx"):
        warnings.simplefilter("ignore")  # about torchvision, which no policy uses
        program = torch.onnx.export(
            graph,
            example,
            input_names=[spec.name for spec in contract.inputs],
            output_names=list(contract.output_names),
            dynamic_shapes={"inputs": tuple({0: batch} for _ in example)},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # with dynamo=True the exporter returns a program
    model = program.model_proto
    del model.metadata_props[:]  # replaced, never appended to: a key must not appear twice
    onnx.helper.set_model_props(model, metadata(contract, run_path))
    for node in model.graph.node:
        # The exporter's notes on each node hold source paths and stack traces of the machine that trained.
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    buffer = io.BytesIO()
    onnx.save_model(model, buffer)
    return buffer.getvalue()


def metadata(contract: Contract, run_path: str = "") -> dict[str, str]:
    """The keys that mjlab and legged_control2 read, at full precision, and our contract under its own prefix."""

    def numbers(values: list[float]) -> str:
        return ",".join(repr(float(v)) for v in values)

    command = contract.command
    return {
        "run_path": run_path,
        "joint_names": ",".join(contract.joint_names),
        "joint_stiffness": numbers([j.kp_nm_rad for j in contract.joints]),
        "joint_damping": numbers([j.kd_nms_rad for j in contract.joints]),
        "default_joint_pos": numbers([j.default_pos_rad for j in contract.joints]),
        "command_names": command.name if command else "",
        "observation_names": ",".join(name for name, _ in contract.observation_terms),
        "action_scale": numbers(list(contract.action.scale_rad)),
        f"{METADATA_PREFIX}.contract": contract.to_json(),
        f"{METADATA_PREFIX}.contract_sha256": contract.digest(),
    }


@torch.no_grad()
def closed_loop(env: RobotVecEnv, normalizer: nn.Module, actor: nn.Module, model: bytes, steps: int) -> ClosedLoop:
    """Drive `env` with the torch policy for `steps` steps and run the ONNX graph beside it.

    Both see the same sensors and command. The ONNX graph runs on its *own* memory, so that an error in what it feeds
    back grows instead of being corrected at every step; memory restarts with the episode, as on the robot.
    """
    policy_io: PolicyIO = env.policy_io
    graph = PolicyGraph(policy_io, normalizer, actor).eval()
    specs, names = policy_io.contract.inputs, policy_io.contract.output_names
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    env.reset(seed=0)
    memory: dict[str, Tensor] = {}
    rows: dict[str, list[Tensor]] = {f"in/{s.name}": [] for s in specs} | {f"out/{n}": [] for n in names}
    max_error = 0.0
    restarted = torch.ones(env.num_envs, dtype=torch.bool)
    for _ in range(steps):
        inputs = {name: value.clone() for name, value in env.policy_inputs().items()}
        outputs = dict(zip(names, graph(*(inputs[s.name] for s in specs)), strict=True))
        fed = {n: torch.where(restarted[:, None], inputs[n], memory.get(n, inputs[n])) for n in policy_io.memory_names}
        computed = session.run(list(names), {s.name: ({**inputs, **fed})[s.name].numpy() for s in specs})
        onnx_outputs = {n: torch.from_numpy(np.asarray(v)) for n, v in zip(names, computed, strict=True)}
        max_error = max(max_error, *(float((onnx_outputs[n] - outputs[n]).abs().max()) for n in names))
        memory = {n: onnx_outputs[f"next_{n}"] for n in policy_io.memory_names}
        for name, value in inputs.items():
            rows[f"in/{name}"].append(value)
        for name, value in outputs.items():
            rows[f"out/{name}"].append(value)
        step = env.step(outputs["action"])
        restarted = step.terminated | step.truncated
    stacked = {name: torch.cat(values).numpy() for name, values in rows.items()}
    return ClosedLoop(
        inputs={s.name: stacked[f"in/{s.name}"] for s in specs},
        outputs={n: stacked[f"out/{n}"] for n in names},
        max_error=max_error,
        steps=steps,
    )


def golden_rows(rollout: ClosedLoop, rows: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """A random choice of `rows` rows of the rollout, keyed "in/<name>" and "out/<name>"."""
    total = len(next(iter(rollout.inputs.values())))
    chosen = np.sort(np.random.default_rng(seed).choice(total, size=min(rows, total), replace=False))
    golden: dict[str, NDArray[np.float32]] = {f"in/{n}": v[chosen] for n, v in rollout.inputs.items()}
    return golden | {f"out/{n}": v[chosen] for n, v in rollout.outputs.items()}


def card(contract: Contract, facts: Mapping[str, object], evaluation: Mapping[str, object]) -> str:
    """CARD.md: what the policy is for, what it needs, how it was trained, how it did, and what nobody checked."""
    lines = [f"# {facts.get('task', 'policy')}: {contract.robot} ({contract.variant})", ""]
    lines += ["## Provenance", ""] + [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", "## Evaluation in simulation", ""]
    lines += [f"- {key}: {value}" for key, value in evaluation.items()] or ["- none recorded"]
    lines += ["", "## Runs at", "", f"- {1 / contract.control_period_s:g} Hz, period {contract.control_period_s} s"]
    lines += ["", "## Inputs", "", "| name | source | shape | unit | frame |", "|---|---|---|---|---|"]
    lines += [f"| {t.name} | {t.source} | {t.shape} | {t.unit} | {t.frame} |" for t in contract.inputs]
    action = contract.action
    lines += ["", "## Action", "", f"{action.kind}, clipped to the limits below.", ""]
    lines += ["| joint | low rad | high rad | scale rad | kp N m/rad | kd N m s/rad |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {j.name} | {low:g} | {high:g} | {scale:g} | {j.kp_nm_rad:g} | {j.kd_nms_rad:g} |"
        for j, low, high, scale in zip(contract.joints, action.low_rad, action.high_rad, action.scale_rad, strict=True)
    ]
    lines += ["", "## Not checked", "", "Anything outside the evaluation above, and every real robot.", ""]
    return "\n".join(lines)


class _quiet:
    """Silence a logger inside a with block."""

    def __init__(self, name: str) -> None:
        self.logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)
