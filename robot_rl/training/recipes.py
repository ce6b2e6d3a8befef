"""Named settings of published methods that are an algorithm of ours with other hyperparameters: `--recipe NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robot_rl.errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    algo: str
    summary: str
    settings: Mapping[str, Any]
    """Fields of TrainConfig or of the algorithm's configuration."""


RECIPES: dict[str, Recipe] = {
    "rlpd": Recipe(
        "sac",
        "RLPD (arXiv 2302.02948): every batch half demonstrations (--demos), ten critics with layer normalisation, "
        "minimum of a random two, 20 updates per step",
        {
            "updates_per_env_step": 20.0,
            "policy_delay": 20,
            "warmup_env_steps": 5_000,
            "n_critics": 10,
            "target_critics": 2,
            "actor_critic": "mean",
            "critic_layer_norm": True,
            "demo_share": 0.5,
        },
    ),
    "fastsac": Recipe(
        "sac",
        "FastSAC (arXiv 2512.01996): thousands of environments, large batches, distributional critics that each learn "
        "from their own target, a first policy of deviation 0.08; for a GPU",
        {
            "num_envs": 4096,
            "updates_per_env_step": 8 / 4096,
            "warmup_env_steps": 40_960,
            "buffer_size": 1024 * 4096,
            "batch_size": 8192,
            "gamma": 0.97,
            "tau": 0.125,
            "actor_hidden": (512, 256, 128),
            "critic_hidden": (768, 384, 192),
            "activation": "silu",
            "actor_layer_norm": True,
            "critic_layer_norm": True,
            "critic_head": "categorical",
            "atoms": (-20.0, 20.0, 101),
            "own_target": True,
            "actor_critic": "mean",
            "policy_delay": 4,
            "initial_std": 0.08,
            "initial_alpha": 0.001,
            "target_entropy": 0.0,
            "normalize_obs": True,
            "compile": True,
        },
    ),
}


def get_recipe(name: str) -> Recipe:
    """Raises ConfigError listing the valid names."""
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; valid: {', '.join(RECIPES)}")
    return RECIPES[name]
