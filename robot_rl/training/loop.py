"""The training loop, and the two ways into it: `train` and `resume`."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from robot_rl.env import DumpingVecEnv, Task, get_task
from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.training.checkpoint import load_config, newest_checkpoint, only_trainer
from robot_rl.training.collect import collect
from robot_rl.training.config import MAY_CHANGE_ON_RESUME, TrainConfig, override
from robot_rl.training.evaluate import Evaluation
from robot_rl.training.metrics import Metrics
from robot_rl.training.progress import Progress, duration
from robot_rl.training.run import Run, describe_run, make_run, make_run_dir
from robot_rl.training.watch import Watch


@dataclass(frozen=True)
class RunResult:
    """What a call of `train` or `resume` did."""

    run_dir: Path
    env_steps: int
    updates: int
    wall_s: float
    evaluation: Evaluation | None
    """The last one, if any was made."""
    interrupted: bool
    """By SIGINT, SIGTERM or SIGHUP. A checkpoint was written and `resume(run_dir)` goes on."""


def train(config: TrainConfig, task: Task | None = None) -> RunResult:
    """Train from scratch in a new run folder. `task` replaces the look-up of `config.task` by name.

    Raises ConfigError for what cannot be built, EnvError for rewards and observations that are not finite,
    TrainingError for a learner that diverges (see watch.py; checkpoints of before are kept), and CheckpointError if the
    last checkpoint cannot be written. One on the way that cannot be written is only a warning: the older ones are
    intact, and the disk may have room again by the next.
    """
    task = task or get_task(config.task)
    torch.set_num_threads(config.torch_threads)
    run_dir = make_run_dir(config)
    with only_trainer(run_dir):
        try:
            run = make_run(config, task, run_dir)
        except Exception:
            with suppress(OSError):  # a run that cannot start leaves no empty folder
                run_dir.rmdir()
            raise
        describe_run(run)
        return _finish(run)


def resume(run_dir: Path | str, task: Task | None = None, **changes: Any) -> RunResult:
    """Go on from the newest complete checkpoint of a run. On a CPU the result is bit for bit that of a run which never
    stopped, provided that the environment restores its own state exactly.

    `changes` may set the fields in MAY_CHANGE_ON_RESUME, such as total_env_steps. Raises CheckpointError if the run has
    no checkpoint, or is still being trained.
    """
    run_dir = Path(run_dir)
    saved = load_config(run_dir)
    config = override(saved, changes)
    check_resumable(saved, config)
    with only_trainer(run_dir):
        checkpoint = newest_checkpoint(run_dir)
        torch.set_num_threads(config.torch_threads)
        run = make_run(config, task or get_task(config.task), run_dir)
        run.restore(checkpoint)
        describe_run(run)
        return _finish(run)


def check_resumable(saved: TrainConfig, config: TrainConfig) -> None:
    """Raise ConfigError naming a setting that a resumed run may not change."""
    changed = [key for key in vars(saved) if getattr(saved, key) != getattr(config, key)]
    refused = sorted(set(changed) - MAY_CHANGE_ON_RESUME)
    if refused:
        valid = ", ".join(sorted(MAY_CHANGE_ON_RESUME))
        raise ConfigError(f"{', '.join(refused)} cannot change when a run is resumed; these can: {valid}")


def _finish(run: Run) -> RunResult:
    """Loop to the end, or to a signal; then evaluate and save."""
    progress, stop = Progress(), StopSignal()
    metrics = Metrics(run.run_dir, run.algorithm.metrics, run.env_steps)
    watch = Watch(
        run.run_dir, run.algorithm.metrics, run.config.algorithm.gamma, run.algorithm.state_dict, run.largest_reward
    )
    progress.note(f"{run.config.task}: {run.config.algo}, {run.config.num_envs} environments -> {run.run_dir}")
    try:
        with stop:
            evaluation = _loop(run, metrics, watch, progress, stop)
            if run.saved_at != run.env_steps:
                watch.check_state(run.updates)
                run.save()
    finally:
        metrics.close()
        run.close()
    if stop.requested:
        progress.note(f"stopped at step {run.env_steps:,}; to go on: robot-rl train --resume {run.run_dir}")
    return RunResult(run.run_dir, run.env_steps, run.updates, run.wall_s, evaluation, stop.requested)


def _loop(run: Run, metrics: Metrics, watch: Watch, progress: Progress, stop: StopSignal) -> Evaluation | None:
    """Act, step, store, update, evaluate, log, save."""
    config, evaluation = run.config, None
    clock = time.monotonic() - run.wall_s
    while run.env_steps < config.total_env_steps and not stop.requested:
        step = collect(run.env, run.replay, run.obs, run.act())
        run.observe()
        run.obs = step.obs
        run.env_steps += config.num_envs
        metrics.add_step(step)
        for _ in range(run.updates_due()):
            batch = run.sample()
            watch.add(batch, metrics.add_update(run.algorithm.update(batch, run.lr_scale())))
            run.updates += 1
        watch.check(run.updates)

        last = run.env_steps >= config.total_env_steps
        if run.crossed(config.evaluate_every) or last:
            evaluation = run.evaluate()
            metrics.add_evaluation(evaluation)
            progress.note(_evaluation_line(run, evaluation))
        if run.crossed(config.video_every) and (gif := run.film()) is not None:
            metrics.add_gif("Rollout", gif, run.env_steps)
        run.wall_s = time.monotonic() - clock
        if run.crossed(config.log_every) or last:
            progress.update(_progress_line(run, metrics.write(run.env_steps, run.wall_s, run.updates)))
            if metrics.problem:
                progress.note(f"warning: {metrics.problem}: curves wait; training goes on")
            _dump_failures(run, progress)
        if run.crossed(config.checkpoint_every):
            watch.check_state(run.updates)
            _save_or_warn(run, progress)
        if _successful(evaluation, config.stop_at_success):
            break
    return evaluation


def _dump_failures(run: Run, progress: Progress) -> None:
    """Worlds that diverged cost an episode each and nothing more; they are kept to find out why."""
    if isinstance(run.env, DumpingVecEnv):
        config = run.config
        try:
            for path in run.env.dump_failures(run.run_dir / "failures", config.task, config.seed, config.env_backend):
                progress.note(f"the physics of a world failed: {path}")
        except OSError as error:
            progress.note(f"warning: the physics of a world failed, and could not be kept: {error}")


def _save_or_warn(run: Run, progress: Progress) -> None:
    """A full disk must not cost the hours trained so far."""
    try:
        run.save()
    except CheckpointError as error:
        progress.note(f"warning: {error}; training goes on, and the previous checkpoint is intact")


def _successful(evaluation: Evaluation | None, threshold: float | None) -> bool:
    if evaluation is None or evaluation.success_rate is None or threshold is None:
        return False
    return evaluation.success_rate >= threshold


def _progress_line(run: Run, row: dict[str, Any]) -> str:
    total = run.config.total_env_steps
    rate = row["env_steps_per_s"]
    parts = [f"{run.env_steps:,}/{total:,} ({run.env_steps / total:.0%})", f"{rate:,.0f} steps/s"]
    parts += [f"{row['updates_per_s']:,.0f} updates/s"]
    parts += [f"{name} {row[key]:.3g}" for name, key in (("return", "episode_return"), ("success", "success"))
              if row[key] is not None]  # fmt: skip
    return "  ".join([*parts, f"ETA {duration((total - run.env_steps) / rate)}"])


def _evaluation_line(run: Run, evaluation: Evaluation) -> str:
    success = "" if evaluation.success_rate is None else f", success {evaluation.success_rate:.1%}"
    return (
        f"step {run.env_steps:,}: return {evaluation.return_mean:.4g} ± {evaluation.return_std:.3g}{success} "
        f"over {evaluation.episodes} episodes"
    )


class StopSignal:
    """Within the context, the first SIGINT or SIGTERM only sets `requested`; a second one does what it always does.

    So does every SIGHUP, for a terminal that is lost sends two: one from its shell and one from the kernel. It stays
    ignored where it was (`nohup`).
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        # Python delivers signals to the main thread only, and lets no other thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore(*self._previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore(signal.SIGINT, signal.SIGTERM)

    def _restore(self, *numbers: int) -> None:
        for number in numbers:
            if number in self._previous:
                signal.signal(number, self._previous.pop(number))
