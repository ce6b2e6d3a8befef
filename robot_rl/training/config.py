"""What a training run is: task, algorithm and amounts. Saved with the run as config.json."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from robot_rl.algorithms.algorithm import AlgorithmConfig, get_algorithm
from robot_rl.algorithms.sac import SACConfig
from robot_rl.env import Task, get_task
from robot_rl.errors import ConfigError


@dataclass(frozen=True)
class TrainConfig:
    """One run. Amounts count environment steps: one step of one environment each, however many run in parallel."""

    task: str
    """Task name (see `robot-rl list`), or gym:<Gymnasium id>."""
    algo: str = "sac"
    """Algorithm name (see `robot-rl list`)."""
    algorithm: AlgorithmConfig = field(default_factory=SACConfig)
    """Hyperparameters of the algorithm."""
    num_envs: int = 1
    """Environments stepped together."""
    total_env_steps: int = 1_000_000
    """When to stop."""
    warmup_env_steps: int = 5_000
    """No updates until here; actions come from `warmup_policy`."""
    warmup_policy: Literal["uniform", "initial"] = "uniform"
    """During warm-up, uniformly random actions or samples of the policy as it was initialised."""
    updates_per_env_step: float = 1.0
    """Gradient updates per environment step (UTD), whatever num_envs; fractions are carried over."""
    lr_decay: bool = False
    """Lower the learning rate in a straight line, from its full value at the first step to zero at the last."""
    buffer_size: int = 1_000_000
    """Transitions that the replay buffer holds."""
    replay_storage: Literal["memory", "mapped"] = "memory"
    """Where they lie: in the memory of `device`, or in a file of the run folder that is mapped into memory, for more
    than memory holds."""
    n_step: int = 1
    """Steps whose rewards are summed before the critic's estimate is added, discounted by the algorithm's gamma."""
    demos: Path | None = None
    """Transitions to learn from besides, in any format of `robot-rl data`; they must not change during a run."""
    demo_share: float = 0.5
    """Share of every batch that is drawn from `demos`."""
    start_from: Path | None = None
    """Begin with the networks, normaliser and optimisers of another run's newest checkpoint, such as one of the same
    task under other conditions. Same algorithm and shapes; the replay begins empty."""
    symmetry: bool = False
    """Learn from every batch and its mirror image at once, where the task is the same with left and right exchanged."""
    evaluate_every: int = 10_000
    """Environment steps between evaluations; 0: only at the end."""
    evaluate_episodes: int = 20
    """Episodes of each evaluation."""
    stop_at_success: float | None = None
    """Stop once an evaluation's success rate reaches this."""
    checkpoint_every: int = 50_000
    """Environment steps between checkpoints; 0: only at the end."""
    video_every: int = 0
    """Environment steps between videos of the policy, in TensorBoard and in the run folder; 0: none. They need OpenGL,
    and without a GPU each takes seconds."""
    log_every: int = 1_000
    """Environment steps between rows of progress.csv and TensorBoard."""
    randomization: Annotated[Any, tyro.conf.Suppress] = None
    """What differs between episodes, as a configuration of the task's own kind (`Task.randomization`); None: the task's
    default. On the command line: --randomization.<setting>."""
    safety_filter: bool = False
    """Limit targets as the robot's safety filter does when it is deployed, so that the policy learns under it: rates,
    braking before joint limits, soft limits. The simulation must be of a robot."""
    low_pass_hz: float | None = None
    """With `safety_filter`: cut-off of a filter of first order on the targets, in training and wherever the policy is
    deployed."""
    seed: int = 0
    """Seed of everything: weights, actions, replay, environments."""
    device: str = "cpu"
    """Where the networks and the replay buffer live, such as cuda."""
    env_device: str = "cpu"
    """Where the environments run; anything but cpu takes a simulator that can."""
    env_backend: str = "auto"
    """Their physics, such as mujoco or warp; auto: what is fastest on `env_device`."""
    torch_threads: int = 1
    """CPU threads of torch. More than one pays only on idle cores."""
    env_threads: int = 0
    """CPU threads of the simulation; 0: all cores."""
    runs: Path = Path("runs")
    """Folder of all runs; this one goes to <runs>/<task>/<date>[_<name>]."""
    name: str = ""
    """Suffix of the run folder."""

    def __post_init__(self) -> None:
        entry = get_algorithm(self.algo)
        if type(self.algorithm) is not entry.config:
            raise ConfigError(
                f"algo {self.algo!r} takes a {entry.config.__name__}, got a {type(self.algorithm).__name__}"
            )
        if self.low_pass_hz is not None and not (self.safety_filter and self.low_pass_hz > 0):
            raise ConfigError(f"low_pass_hz must be positive and takes safety_filter, got {self.low_pass_hz}")
        for key in (
            "num_envs", "total_env_steps", "buffer_size", "n_step", "evaluate_episodes", "log_every", "torch_threads",
        ):  # fmt: skip
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} must be at least 1, got {getattr(self, key)}")
        for key in (
            "warmup_env_steps", "evaluate_every", "checkpoint_every", "video_every", "env_threads",
            "updates_per_env_step",
        ):  # fmt: skip
            if getattr(self, key) < 0:
                raise ConfigError(f"{key} must not be negative, got {getattr(self, key)}")
        if not 0 < self.demo_share < 1:
            raise ConfigError(f"demo_share must lie in (0, 1), got {self.demo_share}")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, default=str)


MAY_CHANGE_ON_RESUME = frozenset(
    {
        "total_env_steps", "evaluate_every", "evaluate_episodes", "stop_at_success", "checkpoint_every", "log_every",
        "video_every", "torch_threads", "env_threads", "runs", "name", "replay_storage", "demos",
    }
)  # fmt: skip
"""The rest decides what was learned so far, or the shape of what is in the checkpoint. `demos` may move; a checkpoint
knows what it held."""


def make_config(task: Task, algo: str = "sac", **overrides: Any) -> TrainConfig:
    """Defaults, then the task's preset for the algorithm, then `overrides`: fields of TrainConfig or of the algorithm.

    Raises ConfigError for a key that is neither.
    """
    ranges = task.randomization() if task.randomization else None
    config = TrainConfig(task=task.name, algo=algo, algorithm=get_algorithm(algo).config(), randomization=ranges)
    return override(override(config, task.presets.get(algo, {})), overrides)


def override(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Copy with some fields replaced, each key being a field of TrainConfig or of its algorithm's configuration."""
    run_keys = {f.name for f in dataclasses.fields(TrainConfig)}
    algorithm_keys = {f.name for f in dataclasses.fields(config.algorithm)}
    unknown = sorted(set(values) - run_keys - algorithm_keys)
    if unknown:
        valid = ", ".join(sorted(run_keys | algorithm_keys))
        raise ConfigError(f"unknown training setting {', '.join(unknown)}; valid: {valid}")
    own = {k: v for k, v in values.items() if k in run_keys}
    algorithm = own.pop("algorithm", config.algorithm)
    algorithm = dataclasses.replace(algorithm, **{k: v for k, v in values.items() if k in algorithm_keys})
    return dataclasses.replace(config, **own, algorithm=algorithm)


def config_from_json(text: str) -> TrainConfig:
    """Inverse of `TrainConfig.to_json`. Raises ConfigError naming an unknown, missing or ill-typed entry."""
    try:
        data = json.loads(text)
        algorithm = get_algorithm(data["algo"]).config
        data["algorithm"] = _from_dict(algorithm, data["algorithm"], "algorithm.")
        if data.get("randomization") is not None:
            data["randomization"] = override_randomization(get_task(data["task"]), data["randomization"])
        return _from_dict(TrainConfig, data, "")
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ConfigError(f"not a training configuration: {error!r}") from error


def override_randomization(task: Task, values: Mapping[str, Any]) -> Any:
    """The task's randomisation with some settings replaced, nested as in JSON; ConfigError for an unknown one."""
    if task.randomization is None:
        raise ConfigError(f"task {task.name!r} has nothing to randomise, got {', '.join(values)}")
    return _with_values(task.randomization(), values, "randomization.")


def read_randomization(task: Task, path: Path) -> Any:
    """`override_randomization` with the settings in a JSON file."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read randomisation settings from {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a JSON object of randomisation settings, got {type(values).__name__}")
    return override_randomization(task, values)


def _with_values(config: Any, values: Mapping[str, Any], where: str) -> Any:
    """A frozen dataclass with the fields that `values` names replaced, also in those that it consists of."""
    hints = typing.get_type_hints(type(config))
    changed = {}
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(f"unknown entry {where}{key}; valid: {', '.join(hints)}")
        own = getattr(config, key)
        if dataclasses.is_dataclass(own) and isinstance(value, Mapping):
            changed[key] = _with_values(own, value, f"{where}{key}.")
        else:
            changed[key] = _typed(hints[key], value, where + key)
    return dataclasses.replace(config, **changed)


def _from_dict(kind: type, data: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ConfigError(f"unknown entry {where}{unknown[0]} in the configuration; valid: {', '.join(hints)}")
    return kind(**{key: _typed(hints[key], value, where + key) for key, value in data.items()})


def _typed(hint: Any, value: Any, where: str) -> Any:
    """A JSON value as the type of a field: str, int, float, Path, Literal, tuple[int, ...], X | None or a dataclass."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
        origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) or hint is Any:
        return value
    if hint is Path:
        return Path(value)
    if origin is tuple and isinstance(value, list):
        kinds = [kind for kind in typing.get_args(hint) if kind is not Ellipsis]
        return tuple(_typed(kinds[min(i, len(kinds) - 1)], entry, where) for i, entry in enumerate(value))
    valid = (
        value in typing.get_args(hint)
        if origin is Literal
        else isinstance(value, (int, float)) if hint is float else type(value) is hint
    )  # fmt: skip
    if not valid:
        raise ConfigError(f"{where} must be {getattr(hint, '__name__', hint)}, got {value!r}")
    return value
