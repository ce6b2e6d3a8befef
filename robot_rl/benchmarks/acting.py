"""How long an ARSQ policy takes for one action, L * D passes through its networks, against the control period."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from robot_rl.algorithms.arsq import ARSQ, ARSQConfig
from robot_rl.commands.result import Row
from robot_rl.env import RobotVecEnv, get_task


def acting_rows(configs: Mapping[str, ARSQConfig]) -> list[Row]:
    """Rows: median and 99th percentile for the settings of each task, against its control period."""
    rows: list[Row] = []
    for task, config in configs.items():
        env = get_task(task).make_env(num_envs=1, seed=1)
        if isinstance(env, RobotVecEnv):
            period_s = env.policy_io.contract.control_period_s
        else:
            import gymnasium

            single: Any = gymnasium.make(task.removeprefix("gym:")).unwrapped
            period_s = float(single.dt)
        seconds = acting_seconds(ARSQ(config, env.obs_dim, env.action_dim).actor(), env.obs_dim)
        env.close()
        for share in (50, 99):
            value = 1e3 * float(np.percentile(seconds, share))
            name = f"learning/arsq-acting/{task}/p{share}"
            rows.append(Row(name, value, "ms", f"control period {1e3 * period_s:g} ms", value / (1e3 * period_s)))
    return rows


def acting_seconds(actor: nn.Module, obs_dim: int, runs: int = 1_000) -> NDArray[np.float64]:
    """Wall times (runs,) of one action of the exported actor: onnxruntime, batch 1, one thread, after a warm-up."""
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # about torchvision, which no policy uses
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            actor.eval(), (torch.zeros(1, obs_dim),), dynamo=True, verbose=False, opset_version=20
        )
    assert program is not None  # with dynamo=True the exporter returns a program
    model = program.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    obs = np.random.default_rng(0).standard_normal((runs + 50, 1, obs_dim)).astype(np.float32)
    seconds = np.empty(len(obs))
    for i, row in enumerate(obs):
        start = time.perf_counter()
        session.run(None, {name: row})
        seconds[i] = time.perf_counter() - start
    return seconds[50:]
