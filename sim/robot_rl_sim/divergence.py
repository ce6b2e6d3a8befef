"""Divergence: the last good state of a world whose physics then failed, and what it was told: to see it again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl_sim.backends.batch_sim import BatchSim


@dataclass(frozen=True, slots=True)
class Divergence:
    """One control period that one world did not survive."""

    world: int
    episode_step: int
    qpos: Tensor
    """(nq,) before the period."""
    qvel: Tensor
    """(nv,)."""
    ctrl: Tensor
    """(n_joints,) rad, or (substeps, n_joints)."""
    model: dict[str, Tensor]
    """Model field -> its value in this world."""


def record(
    sim: BatchSim, worlds: Tensor, episode_steps: Tensor, qpos: Tensor, qvel: Tensor, ctrl: Tensor
) -> list[Divergence]:
    """Of `worlds` (k,); the others are of all worlds, as they were when the period began."""
    fields = {n.removeprefix("model/"): v for n, v in sim.state_dict().items() if n.startswith("model/")}
    return [
        Divergence(
            world=world,
            episode_step=int(episode_steps[world]),
            qpos=qpos[world].cpu().clone(),
            qvel=qvel[world].cpu().clone(),
            ctrl=ctrl[world].cpu().clone(),
            model={name: value[world].cpu().clone() for name, value in fields.items()},
        )
        for world in worlds.tolist()
    ]


@dataclass(frozen=True, slots=True)
class Origin:
    """Which run a divergence comes from."""

    task: str
    seed: int
    backend: str


def write(path: Path, divergence: Divergence, origin: Origin) -> None:
    """One safetensors file, written atomically."""
    tensors = {name: getattr(divergence, name).contiguous() for name in ("qpos", "qvel", "ctrl")}
    tensors |= {f"model/{name}": value.contiguous() for name, value in divergence.model.items()}
    facts = {name: getattr(origin, name) for name in Origin.__slots__}
    facts |= {"world": divergence.world, "episode_step": divergence.episode_step}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, {name: str(value) for name, value in facts.items()})
    os.replace(temporary, path)


def read(path: Path) -> tuple[Divergence, Origin]:
    """What `write` wrote. Raises ConfigError for another file."""
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        model = {n.removeprefix("model/"): value for n, value in tensors.items() if n.startswith("model/")}
        divergence = Divergence(
            int(facts["world"]), int(facts["episode_step"]), tensors["qpos"], tensors["qvel"], tensors["ctrl"], model
        )
        return divergence, Origin(facts["task"], int(facts["seed"]), facts["backend"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(f"{path} is not the dump of a divergence: {error!r}") from error
