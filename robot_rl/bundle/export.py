"""From a trained policy to a bundle: one ONNX graph, golden rows computed by training's own code, and a card.

The graph is compared with training's modules in closed loop, and timed against the control period, before the bundle is
written: a bundle which exists has been shown to compute what was trained, and in time.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from robot_rl.bundle.amend import EPISODE_TITLE, episode_text
from robot_rl.bundle.latency import Latency, measure_latency
from robot_rl.bundle.metadata import onnx_metadata
from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.bundle.write import write_bundle
from robot_rl.contract import Contract, EpisodeSpec
from robot_rl.env import EpisodicVecEnv, RobotVecEnv
from robot_rl.errors import BundleError, ConfigError
from robot_rl.networks.policy_io import PolicyGraph

OPSET = 20
CLOSED_LOOP_STEPS = 1000
CLOSED_LOOP_TOLERANCE = 1e-5
GOLDEN_ROWS = 64


@dataclass(frozen=True)
class ClosedLoop:
    """What a rollout under the exported policy yielded."""

    inputs: dict[str, NDArray[np.float32]]
    """Named graph inputs, (rows, ...)."""
    outputs: dict[str, NDArray[np.float32]]
    """What the torch graph computed from them, (rows, ...)."""
    max_error: float
    """Largest difference between torch and ONNX in any output over all steps, in each output's own unit."""
    steps: int
    latency: Latency | None = None
    """Of the exported policy, where it was measured: afterwards, undisturbed by torch and the simulation."""


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
    onnx.helper.set_model_props(model, onnx_metadata(contract, run_path))
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


@dataclass(frozen=True)
class Provenance:
    """Where a policy comes from, as its bundle will say."""

    task: str
    algorithm: str
    git_revision: str
    run: str
    config: Mapping[str, Any]
    seeds: Mapping[str, int]
    evaluation: Mapping[str, Any]


def export_policy(
    env: RobotVecEnv, normalizer: nn.Module, actor: nn.Module, path: Path, provenance: Provenance, *, overwrite: bool
) -> ClosedLoop:
    """Export, compare with torch over CLOSED_LOOP_STEPS steps of `env` (one environment), and write the bundle.

    `normalizer` maps obs to obs and `actor` obs to actions in [-1, 1]. Raises BundleError, and writes nothing, if the
    exported graph and training's modules differ by more than CLOSED_LOOP_TOLERANCE, or if the graph takes longer than
    the control period.
    """
    contract = env.policy_io.contract
    graph = PolicyGraph(env.policy_io, normalizer, actor).eval()
    model = to_onnx(graph, provenance.run)
    policy = OnnxPolicy(model, contract)
    loop = closed_loop(env, graph, policy, CLOSED_LOOP_STEPS)
    if not loop.max_error <= CLOSED_LOOP_TOLERANCE:
        raise BundleError(
            f"the exported graph differs from training by {loop.max_error:.3g} within {loop.steps} closed-loop steps; "
            f"at most {CLOSED_LOOP_TOLERANCE:g} is accepted"
        )
    latency = measure_latency(policy, loop.inputs)
    latency.check(contract.control_period_s)
    obs = loop.outputs["obs"]
    episode = env.episode if isinstance(env, EpisodicVecEnv) else None
    write_bundle(
        path,
        onnx_bytes=model,
        golden=golden_rows(loop, GOLDEN_ROWS),
        card=card(contract, provenance, episode),
        contract=contract,
        task=provenance.task,
        algorithm=provenance.algorithm,
        git_revision=provenance.git_revision,
        config=provenance.config,
        seeds=provenance.seeds,
        evaluation=provenance.evaluation,
        obs_mean=obs.mean(0, dtype=np.float64).tolist(),
        obs_std=obs.std(0, dtype=np.float64).tolist(),
        episode=episode,
        overwrite=overwrite,
    )
    return replace(loop, latency=latency)


@torch.no_grad()
def closed_loop(env: RobotVecEnv, graph: PolicyGraph, policy: OnnxPolicy, steps: int) -> ClosedLoop:
    """Let the exported policy drive one environment for `steps` steps, and have torch compute each step beside it.

    Both get the same inputs, memory included, and every output is compared, the next memory too: by induction the two
    then stay together. Were each to run on its own memory, the figure would measure how a policy amplifies rounding
    (an untrained one by a fifth per step) instead of whether the export is right.
    """
    if env.num_envs != 1:
        raise ConfigError(f"the closed loop takes one environment, got {env.num_envs}")
    contract = graph.io.contract
    names_in, names_out = [t.name for t in contract.inputs], contract.output_names
    rows: dict[str, list[NDArray[np.float32]]] = {n: [] for n in (*names_in, *(f"out/{n}" for n in names_out))}
    max_error = 0.0
    env.reset(seed=0)
    for _ in range(steps):
        inputs = env.policy_inputs()
        trained = dict(zip(names_out, (t.numpy() for t in graph(*(inputs[n] for n in names_in))), strict=True))
        exported = policy.run({n: inputs[n].numpy() for n in names_in})
        errors = [float(np.abs(exported[n] - trained[n]).max()) for n in names_out]
        max_error = float(np.max([max_error, *errors]))  # NaN stays NaN
        for name in names_in:
            rows[name].append(inputs[name].numpy())
        for name in names_out:
            rows[f"out/{name}"].append(trained[name])
        env.step(torch.from_numpy(exported["action"]))
    return ClosedLoop(
        inputs={n: np.concatenate(rows[n]) for n in names_in},
        outputs={n: np.concatenate(rows[f"out/{n}"]) for n in names_out},
        max_error=max_error,
        steps=steps,
    )


def golden_rows(rollout: ClosedLoop, rows: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """A random choice of `rows` rows of the rollout, keyed "in/<name>" and "out/<name>"."""
    total = len(next(iter(rollout.inputs.values())))
    chosen = np.sort(np.random.default_rng(seed).choice(total, size=min(rows, total), replace=False))
    golden: dict[str, NDArray[np.float32]] = {f"in/{n}": v[chosen] for n, v in rollout.inputs.items()}
    return golden | {f"out/{n}": v[chosen] for n, v in rollout.outputs.items()}


def card(contract: Contract, provenance: Provenance, episode: EpisodeSpec | None = None) -> str:
    """CARD.md: what the policy is for, what it needs, how it was trained, how it did, and what nobody checked."""
    lines = [f"# {provenance.task}: {contract.robot} ({contract.variant})", "", "## Provenance", ""]
    lines += [
        f"- algorithm: {provenance.algorithm}",
        f"- run: {provenance.run}",
        f"- code revision: {provenance.git_revision or 'unknown'}",
        f"- seeds: {', '.join(f'{name} {seed}' for name, seed in provenance.seeds.items()) or 'unknown'}",
        f"- contract: sha256 {contract.digest()}",
    ]
    lines += ["", "## Evaluation in simulation", ""]
    figures = {k: v for k, v in provenance.evaluation.items() if isinstance(v, (int, float, str))}
    lines += [f"- {key}: {value}" for key, value in figures.items()] or ["- none recorded"]
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
    if episode is not None:
        lines += ["", f"## {EPISODE_TITLE}", "", episode_text(episode, contract)]
    lines += ["", "## Not checked", "", "Anything outside the evaluation above, and every real robot.", ""]
    return "\n".join(lines)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a logger."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
