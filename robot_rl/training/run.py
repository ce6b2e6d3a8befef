"""One run: its parts, its folder, and how both are saved and restored."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robot_rl.algorithms.algorithm import Algorithm, get_algorithm
from robot_rl.data.formats import find_dataset, read_dataset
from robot_rl.env import CompilableVecEnv, RobotVecEnv, Task, VecEnv, limited
from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.replay.dataset import check_transitions, digest, fill_replay
from robot_rl.replay.mirror import Mirror
from robot_rl.replay.mixture import Mixture, Source
from robot_rl.replay.n_step import NStep
from robot_rl.replay.ring_buffer import Batch, RingBuffer
from robot_rl.training.checkpoint import Checkpoint, join, load_config, newest_checkpoint, save_checkpoint, split
from robot_rl.training.collect import privileged_dim, updates_due
from robot_rl.training.config import TrainConfig
from robot_rl.training.evaluate import Evaluation, evaluate, uniform_actions
from robot_rl.training.files import write_json, write_text
from robot_rl.training.segments import read_segments
from robot_rl.training.video import RolloutVideo


@dataclass
class Run:
    """Everything that a run consists of. What changes while training is in `save`, so that a restored run goes on as if
    it had never stopped."""

    config: TrainConfig
    run_dir: Path
    env: VecEnv
    eval_env: VecEnv
    algorithm: Algorithm
    replay: RingBuffer
    """What was collected."""
    demos: RingBuffer | None
    """What `config.demos` holds; it never changes."""
    generator: torch.Generator
    """Draws the warm-up actions."""
    obs: Tensor
    """(n_envs, obs_dim): what the next action is for."""
    eval_seed: int
    env_steps: int = 0
    updates: int = 0
    wall_s: float = 0.0
    saved_at: int = -1
    """env_steps of the last checkpoint, written or restored."""
    saved: Path | None = None
    """That checkpoint's folder."""
    video: RolloutVideo | None = None

    def __post_init__(self) -> None:
        self.source: RingBuffer | Mixture = self.replay
        if self.demos is not None:
            share = self.config.demo_share
            sources = {"online": Source(self.replay, 1 - share), "demos": Source(self.demos, share, demonstration=True)}
            self.source = Mixture(sources)
        self.mirror: Mirror | None = None
        if self.config.symmetry:
            mirror: Mirror | None = getattr(self.env, "mirror", None)
            if mirror is None:
                raise ConfigError(f"symmetry: task {self.config.task!r} is not the same with left and right exchanged")
            self.mirror = mirror.to(self.replay.device)
        self.demos_sha256 = None if self.config.demos is None else digest(find_dataset(self.config.demos)[1])

    def act(self) -> Tensor:
        """Exploring actions for the current observations: the policy's samples, but for a uniform warm-up."""
        if self.env_steps < self.config.warmup_env_steps and self.config.warmup_policy == "uniform":
            return uniform_actions(self.env, self.generator).to(self.env.device)
        return self.policy_action(self.obs, deterministic=False)

    def policy_action(self, obs: Tensor, deterministic: bool) -> Tensor:
        """The policy's action, computed where its networks are and returned to where the environments are."""
        return self.algorithm.act(obs.to(self.config.device), deterministic).to(self.env.device)

    def observe(self) -> None:
        """Take the current observations into the normaliser."""
        self.algorithm.observe(self.obs.to(self.config.device))

    def updates_due(self) -> int:
        """Updates to make now."""
        learning_steps = self.env_steps - self.config.warmup_env_steps
        return updates_due(learning_steps, self.config.updates_per_env_step, self.updates)

    def sample(self) -> Batch:
        """The batch of the next update."""
        batch = self.source.sample(self.config.algorithm.batch_size)
        return batch if self.mirror is None else self.mirror.double(batch)

    def largest_reward(self) -> float:
        """The largest |reward| that batches are drawn from."""
        return max(replay.largest_reward() for replay in (self.replay, self.demos) if replay is not None)

    def lr_scale(self) -> float:
        """What to multiply the learning rate with now."""
        return 1.0 - self.env_steps / self.config.total_env_steps if self.config.lr_decay else 1.0

    def crossed(self, every: int) -> bool:
        """Whether the last step of all environments reached or passed a multiple of `every` environment steps."""
        before = self.env_steps - self.config.num_envs
        return every > 0 and self.env_steps // every > before // every

    def evaluate(self) -> Evaluation:
        """The deterministic policy, always on the same start states; written to evaluation.json."""
        evaluation = evaluate(
            self.eval_env,
            lambda obs: self.policy_action(obs, deterministic=True),
            self.config.evaluate_episodes,
            self.eval_seed,
        )
        write_json(self.run_dir / "evaluation.json", {"step": self.env_steps, **asdict(evaluation)})
        return evaluation

    def film(self) -> bytes | None:
        """A video of the deterministic policy, where one can be had."""
        if self.video is None:
            return None
        return self.video.film(lambda obs: self.policy_action(obs, deterministic=True), self.env_steps)

    def save(self) -> Path:
        """Write a checkpoint."""
        generators = {"actions": self.generator, "replay": self.replay.generator}
        if self.demos is not None:
            generators["demos"] = self.demos.generator
        model = join(
            {
                "algorithm": self.algorithm.state_dict(),
                "env": self.env.state_dict(),
                "run": {"obs": self.obs},
                "generators": {name: generator.get_state() for name, generator in generators.items()},
            }
        )
        state = {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "wall_s": self.wall_s,
            "obs_dim": self.env.obs_dim,
            "action_dim": self.env.action_dim,
            "privileged_dim": privileged_dim(self.env),
            "demos_sha256": self.demos_sha256,
        }
        self.saved = save_checkpoint(self.run_dir, self.env_steps, {"model": model}, self.replay, state, self.saved)
        self.saved_at = self.env_steps
        return self.saved

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on exactly from the checkpoint."""
        state = checkpoint.state
        _check_dims(checkpoint, self.env, self.config)
        if state.get("demos_sha256") != self.demos_sha256:
            raise CheckpointError(f"{self.config.demos} is not the file that {self.run_dir} was trained with")
        model = checkpoint.load("model")
        self.algorithm.load_state_dict(split(model, "algorithm"))
        self.env.load_state_dict(split(model, "env"))
        read_segments(checkpoint.path, self.replay)
        self.obs = split(model, "run")["obs"].to(self.obs.device)
        generators = split(model, "generators")
        self.generator.set_state(generators["actions"])
        self.replay.generator.set_state(generators["replay"])
        if self.demos is not None:
            self.demos.generator.set_state(generators["demos"])
        self.env_steps, self.updates, self.wall_s = state["env_steps"], state["updates"], state["wall_s"]
        self.saved_at, self.saved = self.env_steps, checkpoint.path

    def close(self) -> None:
        self.env.close()
        self.eval_env.close()
        if self.video is not None:
            self.video.close()


def make_run(config: TrainConfig, task: Task, run_dir: Path) -> Run:
    """Build all parts. Each random stream has its own seed, drawn from the run's. Raises ConfigError for a device that
    this torch does not have."""
    _check_device(config.device)
    env_seed, eval_seed, algorithm_seed, replay_seed, action_seed, demos_seed = (
        int(s) for s in np.random.SeedSequence(config.seed).generate_state(6)
    )

    def make_env(*, num_envs: int, seed: int) -> VecEnv:
        env = task.make_env(
            num_envs=num_envs,
            seed=seed,
            randomize=True if config.randomization is None else config.randomization,
            device=config.env_device,
            num_threads=config.env_threads,
            backend=config.env_backend,
        )
        return limited(env, task.name, config.low_pass_hz) if config.safety_filter else env

    env = make_env(num_envs=config.num_envs, seed=env_seed)
    if getattr(config.algorithm, "compile", False) and isinstance(env, CompilableVecEnv):
        env.compile()
    eval_envs = min(config.evaluate_episodes, max(config.num_envs, 8))
    eval_env = make_env(num_envs=eval_envs, seed=eval_seed)
    # Environments whose native action range is not [-1, 1] state it, for entropy_units="environment".
    half_range: Tensor | None = getattr(env, "action_half_range", None)
    algorithm = get_algorithm(config.algo).make(
        config.algorithm, env.obs_dim, env.action_dim, algorithm_seed, config.device, half_range, privileged_dim(env)
    )
    if config.start_from is not None:
        _start_from(config.start_from, algorithm, env, config)
    dims = (env.obs_dim + privileged_dim(env), env.action_dim)
    replay = RingBuffer(
        config.buffer_size, *dims, replay_seed, config.device, _n_step(config, config.num_envs),
        file=run_dir / "replay.rows" if config.replay_storage == "mapped" else None,
    )  # fmt: skip
    demos = config.demos and _read_demos(config.demos, config, dims, demos_seed)
    generator = torch.Generator().manual_seed(action_seed)
    video = None
    if config.video_every:
        video = RolloutVideo(partial(make_env, num_envs=1, seed=eval_seed), eval_seed, run_dir)
    obs = env.reset()
    return Run(config, run_dir, env, eval_env, algorithm, replay, demos, generator, obs, eval_seed, video=video)


def _start_from(run_dir: Path, algorithm: Algorithm, env: VecEnv, config: TrainConfig) -> None:
    """Give `algorithm` what another run has learned. Raises CheckpointError for one that does not fit."""
    earlier, checkpoint = load_config(run_dir), newest_checkpoint(run_dir)
    if earlier.algo != config.algo:
        raise CheckpointError(f"start_from {run_dir} was trained with {earlier.algo!r}, this run with {config.algo!r}")
    _check_dims(checkpoint, env, config)
    algorithm.load_state_dict(split(checkpoint.load("model"), "algorithm"))


def _check_dims(checkpoint: Checkpoint, env: VecEnv, config: TrainConfig) -> None:
    state = checkpoint.state
    dims = (state["obs_dim"], state.get("privileged_dim", 0), state["action_dim"])
    own = (env.obs_dim, privileged_dim(env), env.action_dim)
    if dims != own:
        names = "{} observations, {} privileged ones and {} actions"
        raise CheckpointError(
            f"{checkpoint.path} is of a task with {names.format(*dims)}; {config.task!r} has {names.format(*own)}"
        )


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        valid = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {device!r} cannot be used; valid here: {', '.join(valid)} ({reason})") from error


def _read_demos(source: Path, config: TrainConfig, dims: tuple[int, int], seed: int) -> RingBuffer:
    """A dataset of any format as a replay that never changes."""
    dataset = read_dataset(source)
    check_transitions(dataset.transitions, str(source))
    for note in dataset.notes:
        print(f"{source}: {note}", file=sys.stderr)
    return fill_replay(dataset.transitions, str(source), *dims, seed, config.device, _n_step(config, num_envs=1))


def _n_step(config: TrainConfig, num_envs: int) -> NStep | None:
    return NStep(config.n_step, config.algorithm.gamma, num_envs) if config.n_step > 1 else None


def make_run_dir(config: TrainConfig) -> Path:
    """Create <runs>/<task>/<date>[_<name>], which did not exist before."""
    stem = datetime.now().strftime("%Y-%m-%d_%H-%M-%S") + (f"_{config.name}" if config.name else "")
    parent = config.runs / config.task.replace(":", "-").replace("/", "-")
    parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1000):
        run_dir = parent / (stem if attempt == 0 else f"{stem}_{attempt + 1}")
        try:
            run_dir.mkdir()
            return run_dir
        except FileExistsError:  # another run of this second
            time.sleep(0)
    raise CheckpointError(f"cannot create a run folder {parent / stem}")


def describe_run(run: Run) -> None:
    """Write config.json and, for a robot task, contract.json."""
    write_text(run.run_dir / "config.json", run.config.to_json() + "\n")
    if isinstance(run.env, RobotVecEnv):
        write_text(run.run_dir / "contract.json", run.env.policy_io.contract.to_json() + "\n")
