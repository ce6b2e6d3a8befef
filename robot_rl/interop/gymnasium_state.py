"""Saving and restoring single Gymnasium environments, which offer no way of their own.

Known are MuJoCo environments (integration state and the derived quantities that observations read before the next step)
and those that keep everything in an array `state`, as the classic-control ones do. No simulator is imported.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

# Fields of MjData: the integration state, warm start of the solver included, and what was derived from it.
_MUJOCO_FIELDS = (
    "qpos", "qvel", "act", "ctrl", "qacc_warmstart", "mocap_pos", "mocap_quat", "xpos", "xquat", "xipos", "ximat",
    "site_xpos", "geom_xpos", "cinert", "cvel", "cfrc_ext", "qfrc_actuator", "actuator_force", "sensordata",
)  # fmt: skip


def save_env_state(env: gym.Env) -> dict[str, Tensor]:
    """Physics, clock and random generator of one environment; empty if its kind is not known."""
    inner: Any = env.unwrapped
    if hasattr(inner, "data") and hasattr(inner.data, "qpos"):
        state = {f"mujoco/{name}": torch.from_numpy(np.array(getattr(inner.data, name))) for name in _MUJOCO_FIELDS}
        state["mujoco/time"] = torch.tensor(inner.data.time, dtype=torch.float64)
    elif isinstance(getattr(inner, "state", None), np.ndarray):
        state = {"state": torch.from_numpy(inner.state.copy())}
    else:
        return {}
    clock = _time_limit(env)
    state["elapsed"] = torch.tensor(-1 if clock is None else clock._elapsed_steps)
    state["random"] = torch.tensor(list(json.dumps(inner.np_random.bit_generator.state).encode()), dtype=torch.uint8)
    return state


def load_env_state(env: gym.Env, state: Mapping[str, Tensor]) -> bool:
    """Undo `save_env_state`, in an environment that was reset once. False, with a warning, if there is no state."""
    inner: Any = env.unwrapped
    if not state:
        warnings.warn(
            f"{env.spec.id if env.spec else env} cannot save its state: its episodes start anew", stacklevel=2
        )
        return False
    if "state" in state:
        inner.state = state["state"].numpy().copy()
    else:
        for name in _MUJOCO_FIELDS:
            getattr(inner.data, name)[...] = state[f"mujoco/{name}"].numpy()
        inner.data.time = state["mujoco/time"].item()
    clock = _time_limit(env)
    if clock is not None:
        clock._elapsed_steps = int(state["elapsed"])
    inner.np_random.bit_generator.state = json.loads(bytes(state["random"].tolist()).decode())
    return True


def _time_limit(env: gym.Env) -> gym.wrappers.TimeLimit | None:
    """The wrapper that counts the episode's steps."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            return env
        env = env.env
    return None
