"""The environment protocol that every learner sees, and the task table that names environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from robot_rl.contract import EpisodeSpec
    from robot_rl.networks.policy_io import PolicyIO


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of all environments returned. Finished environments have already been reset."""

    obs: torch.Tensor
    """(n_envs, obs_dim) after the reset, where there was one: act on this."""
    reward: torch.Tensor
    """(n_envs,)."""
    terminated: torch.Tensor
    """(n_envs,) bool: the MDP ended; its value is zero from here."""
    truncated: torch.Tensor
    """(n_envs,) bool: the clock ended it; a learner bootstraps from `final_obs`. Never true where terminated is."""
    final_obs: torch.Tensor
    """(n_envs, obs_dim) before any reset: the true successor of the previous observation. Store this. The same
    tensor as `obs` where nothing ended."""
    info: dict[str, torch.Tensor] = field(default_factory=dict)
    """Per-env scalars, (n_envs,): "episode_return", "episode_length" and "success" are valid where an episode ended;
    "reward/<term>" are the terms of this step's reward; "diverged" marks an episode that physics failed. Any other name
    is what a task counts or measures of an episode, as it stands after this step."""
    final_privileged: torch.Tensor | None = None
    """(n_envs, privileged_dim) beside `final_obs`, from a PrivilegedVecEnv."""


@runtime_checkable
class VecEnv(Protocol):
    """A batch of environments, stepped together, resetting each one as it ends. Actions are in [-1, 1]."""

    num_envs: int
    obs_dim: int
    action_dim: int
    max_episode_steps: int
    device: torch.device

    def reset(self, seed: int | None = None) -> torch.Tensor:
        """Start every environment anew; returns obs (n_envs, obs_dim)."""
        ...

    def step(self, action: torch.Tensor) -> Step:
        """Advance one control period with action (n_envs, action_dim) in [-1, 1]."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on exactly from here: physics, memory, command, clocks, random generators."""
        ...

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class RobotVecEnv(VecEnv, Protocol):
    """A VecEnv of a robot: its observations and actions go through a PolicyIO, so its policies can be exported."""

    policy_io: PolicyIO

    def policy_inputs(self) -> dict[str, torch.Tensor]:
        """The named inputs (contract order: state, command, memory) from which the current obs was encoded."""
        ...


@runtime_checkable
class EpisodicVecEnv(RobotVecEnv, Protocol):
    """A RobotVecEnv that can say what a robot must be brought to before its policies may take over."""

    @property
    def episode(self) -> EpisodeSpec | None:
        """None: to its default pose, with nothing around it."""
        ...


@runtime_checkable
class PrivilegedVecEnv(VecEnv, Protocol):
    """A VecEnv that also tells what no robot measures. Critics see it behind the observation; the actor never does."""

    privileged_dim: int

    def privileged(self) -> torch.Tensor:
        """(n_envs, privileged_dim) of the current states, of order one: it is not normalised any further."""
        ...


@runtime_checkable
class DumpingVecEnv(VecEnv, Protocol):
    """A VecEnv that can keep what went wrong in it, such as worlds whose physics diverged, to be looked at later."""

    def dump_failures(self, folder: Path, task: str, seed: int, backend: str) -> list[Path]:
        """Write what has failed since the last call; `task`, `seed` and `backend` say where. Returns the files."""
        ...


@runtime_checkable
class CompilableVecEnv(VecEnv, Protocol):
    """A VecEnv whose steps can be made faster by torch.compile."""

    def compile(self) -> None:
        """From now on, run what surrounds the physics compiled: the next step takes long, those after it less time than
        before. Raises ConfigError without the C++ compiler that this takes on a CPU."""
        ...


@runtime_checkable
class LimitedVecEnv(VecEnv, Protocol):
    """A VecEnv of a robot, which can have its safety filter between policy and robot."""

    def limit_targets(self, low_pass_hz: float | None = None) -> None:
        """From the next step on, limit targets as the robot's safety filter does, behind a filter of first order with
        this cut-off. What is sent is what a policy sees as its last target."""
        ...


@runtime_checkable
class RenderedVecEnv(VecEnv, Protocol):
    """A VecEnv that can be looked at."""

    def render(self, env: int = 0) -> NDArray[np.uint8]:
        """(height, width, 3) RGB of one environment as it is now. Raises MissingDependencyError without OpenGL."""
        ...


class EnvFactory(Protocol):
    def __call__(
        self,
        *,
        num_envs: int,
        seed: int,
        randomize: Any = True,
        device: str = "cpu",
        num_threads: int = 0,
        backend: str = "auto",
    ) -> VecEnv:
        """Build the environments. `randomize=False` gives the nominal dynamics, and a configuration such as the task's
        `randomization` its own ranges; `num_threads` 0 means all cores.

        `backend` names the physics, where a task has a choice; auto takes what is fastest on `device`.
        """
        ...


def limited(env: VecEnv, task: str, low_pass_hz: float | None = None) -> VecEnv:
    """`env`, with the robot's safety filter between policy and robot; see LimitedVecEnv.

    Raises ConfigError where there is no robot.
    """
    if not isinstance(env, LimitedVecEnv):
        raise ConfigError(f"the environments of task {task!r} are of no robot that has a safety filter")
    env.limit_targets(low_pass_hz)
    return env


def refuse_backend(backend: str) -> None:
    """For environments whose physics is not a matter of choice: raises ConfigError unless `backend` is auto."""
    if backend != "auto":
        raise ConfigError(f"these environments have no choice of physics, got backend {backend!r}; valid: auto")


@dataclass(frozen=True)
class Task:
    """A named environment and the training presets that were measured on it."""

    name: str
    summary: str
    robot: str | None
    make_env: EnvFactory
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Algorithm name -> overrides of its training configuration."""
    randomization: Callable[[], Any] | None = None
    """The default of what differs between episodes: a frozen dataclass, that `make_env` takes as `randomize` and a run
    keeps with its settings. None: there is no choice."""
    scripted: Callable[[VecEnv], Callable[[torch.Tensor], torch.Tensor]] | None = None
    """A hand-written policy (obs -> action) of these environments, for what it is worth; it may look at the physics."""


TaskTable = Mapping[str, Task]


def load_tasks() -> dict[str, Task]:
    """All tasks of the installed parts: the test task, and the tables that the entry points `robot_rl.tasks` name."""
    from robot_rl.testing.point_mass import POINT_MASS

    tasks = {POINT_MASS.name: POINT_MASS}
    for entry in sorted(entry_points(group="robot_rl.tasks"), key=lambda e: e.name):
        table: TaskTable = entry.load()
        tasks.update(table)
    return tasks


@dataclass(frozen=True)
class TaskFamily:
    """Tasks that exist for anything of a kind, named FAMILY:ARGUMENT."""

    argument: str
    """What the argument is, such as "<robot>"."""
    summary: str
    make: Callable[[str], Task]
    """The task of an argument. Raises ConfigError for an argument that has none."""


def load_families() -> dict[str, TaskFamily]:
    """All families of the installed parts: gym, and what the entry points `robot_rl.task_families` name."""
    entries = sorted(entry_points(group="robot_rl.task_families"), key=lambda e: e.name)
    return {"gym": _GYM} | {entry.name: entry.load() for entry in entries}


def get_task(name: str) -> Task:
    """Task by name, of a table or a family. Raises ConfigError listing the valid names."""
    kind, colon, argument = name.partition(":")
    families = load_families()
    if colon and kind in families:
        return families[kind].make(argument)
    tasks = load_tasks()
    if name not in tasks:
        valid = ", ".join([*sorted(tasks), *(f"{kind}:{family.argument}" for kind, family in families.items())])
        raise ConfigError(f"unknown task {name!r}; valid: {valid}")
    return tasks[name]


def _gymnasium_task(env_id: str) -> Task:
    from robot_rl.interop.gymnasium import gymnasium_task

    return gymnasium_task(env_id)


_GYM = TaskFamily("<id>", "any Gymnasium environment with box observations and actions", _gymnasium_task)
