"""What an exported policy saw and earned in an environment: one episode per world, all worlds at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.contract import Contract
from robot_rl.env import RobotVecEnv

REPLAY_STEPS = 5
"""Steps over which actions are replayed: enough for a wrong sign or scale of any sensor to show, and too few for small
differences of the physics to have grown."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """n episodes of at most t steps."""

    obs: Tensor
    """(t, n, frame_dim), the newest frame of what the graph observed."""
    valid: Tensor
    """(t, n) bool: within the world's first episode."""
    returns: Tensor
    """(n,) float64."""
    lengths: Tensor
    """(n,)."""
    success: Tensor
    """(n,) bool."""
    first_inputs: dict[str, Tensor]
    """Measured state inputs, (REPLAY_STEPS, n, size) each."""
    first_actions: Tensor
    """(REPLAY_STEPS, n, n_joints)."""
    diverged: int
    """Worlds whose physics failed."""


def frame_terms(contract: Contract) -> list[tuple[str, slice]]:
    """Observation terms and where they lie in one frame."""
    spans, start = [], 0
    for name, size in contract.observation_terms:
        spans.append((name, slice(start, start + size)))
        start += size
    return spans


@torch.no_grad()
def roll_out(env: RobotVecEnv, policy: OnnxPolicy, seed: int, *, zero: bool = False) -> Rollout:
    """One episode of every world under `policy`, or, for `zero`, under the action zero."""
    frame_dim = sum(size for _, size in env.policy_io.contract.observation_terms)
    n = env.num_envs
    alive = torch.ones(n, dtype=torch.bool)
    returns, lengths = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)
    success, diverged = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    obs, valid, inputs, actions = [], [], [], []
    env.reset(seed)
    while alive.any():
        named = env.policy_inputs()
        outputs = policy.run_batch({name: value.cpu().numpy() for name, value in named.items()})
        action = torch.from_numpy(outputs["action"])
        if zero:
            action = torch.zeros_like(action)
        obs.append(torch.from_numpy(outputs["obs"][:, -frame_dim:]))
        valid.append(alive.clone())
        if len(inputs) < REPLAY_STEPS:
            inputs.append(_state(env, named))
            actions.append(action)
        step = env.step(action.to(env.device))
        returns += step.reward.cpu() * alive
        lengths += alive
        done = (step.terminated | step.truncated).cpu() & alive
        if "success" in step.info:
            success |= step.info["success"].cpu() & done
        if "diverged" in step.info:
            diverged |= step.info["diverged"].cpu() & alive
        alive = alive & ~done
    return Rollout(
        obs=torch.stack(obs),
        valid=torch.stack(valid),
        returns=returns,
        lengths=lengths,
        success=success,
        first_inputs=_stack(inputs),
        first_actions=torch.stack(actions),
        diverged=int(diverged.sum()),
    )


@torch.no_grad()
def replay(env: RobotVecEnv, actions: Tensor, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Measured state inputs (steps, n, size) while `actions` (steps, n, n_joints) are played, whatever is observed; and
    (steps, n) bool, whether the world was still in its first episode."""
    env.reset(seed)
    alive = torch.ones(env.num_envs, dtype=torch.bool)
    inputs, valid = [], []
    for action in actions:
        inputs.append(_state(env, env.policy_inputs()))
        valid.append(alive)
        step = env.step(action.to(env.device))
        alive = alive & ~(step.terminated | step.truncated).cpu()
    return _stack(inputs), torch.stack(valid)


def _state(env: RobotVecEnv, named: dict[str, Tensor]) -> dict[str, Tensor]:
    sources = {t.name: t.source for t in env.policy_io.contract.inputs}
    return {name: value.cpu().flatten(1) for name, value in named.items() if sources[name] == "state"}


def _stack(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
