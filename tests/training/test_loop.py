import csv
import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from robot_rl.env import Task
from robot_rl.errors import CheckpointError, ConfigError, TrainingError
from robot_rl.testing.point_mass import POINT_MASS, PointMassEnv
from robot_rl.training import loop, run
from robot_rl.training.checkpoint import load_policy, newest_checkpoint
from robot_rl.training.config import make_config
from robot_rl.training.evaluate import evaluate
from robot_rl.training.loop import resume, train

TINY = {
    "num_envs": 3, "total_env_steps": 600, "warmup_env_steps": 90, "updates_per_env_step": 0.25, "buffer_size": 400,
    "evaluate_every": 200, "evaluate_episodes": 4, "checkpoint_every": 150, "log_every": 60, "batch_size": 16,
    "actor_hidden": (8,), "critic_hidden": (8,), "normalize_obs": True,
}  # fmt: skip


def tiny(tmp_path, **changes):
    return make_config(POINT_MASS, **{**TINY, "runs": tmp_path, **changes})


def rows(run_dir):
    with (run_dir / "progress.csv").open() as file:
        return list(csv.DictReader(file))


def test_sac_comes_within_five_percent_of_the_analytic_optimum(tmp_path):
    result = train(make_config(POINT_MASS, runs=tmp_path, total_env_steps=8_000))
    normalizer, actor, config = load_policy(result.run_dir)
    gain = PointMassEnv.optimal_gain(config.algorithm.gamma).float()
    env = PointMassEnv(500)
    learned = evaluate(env, torch.nn.Sequential(normalizer, actor), 500, seed=3)
    optimal = evaluate(env, lambda obs: -(obs @ gain).unsqueeze(-1), 500, seed=3)  # from the same starts
    assert learned.return_mean > 1.05 * optimal.return_mean
    assert learned.success_rate > 0.95


def test_the_learning_rate_falls_in_a_straight_line_to_zero(tmp_path, monkeypatch):
    scales: list[tuple[int, float]] = []
    make = run.make_run

    def recording(*args, **kwargs):
        made = make(*args, **kwargs)
        update = made.algorithm.update
        made.algorithm.update = lambda b, lr_scale: (scales.append((made.env_steps, lr_scale)), update(b, lr_scale))[1]
        return made

    monkeypatch.setattr(loop, "make_run", recording)
    train(tiny(tmp_path, lr_decay=True))
    assert len(scales) == int((600 - 90) * 0.25)
    assert scales[-1][1] == 0.0
    for step, scale in scales:
        assert scale == pytest.approx(1 - step / 600)


@pytest.mark.parametrize("changes", [{}, {"algo": "dsact", "delay": 5}])  # stopped between two steps of the policy
def test_a_resumed_run_equals_one_that_never_stopped_bit_for_bit(tmp_path, changes):
    whole = train(tiny(tmp_path, **changes))
    first = train(tiny(tmp_path, total_env_steps=300, **changes))
    second = resume(first.run_dir, total_env_steps=600)
    assert second.run_dir == first.run_dir
    assert (second.env_steps, second.updates) == (whole.env_steps, whole.updates)
    assert second.evaluation == whole.evaluation
    for name in ("model", "replay"):
        one, two = (load_file(newest_checkpoint(r.run_dir).path / f"{name}.safetensors") for r in (whole, second))
        assert one.keys() == two.keys()
        different = [key for key in one if not torch.equal(one[key], two[key])]
        assert not different
    for a, b in zip(rows(whole.run_dir)[5:], rows(second.run_dir)[5:], strict=True):  # those after step 300
        for key in ("step", "updates", "eval_return", "eval_success", "critic_loss", "alpha"):
            assert a[key] == b[key]


def test_rows_after_the_checkpoint_are_dropped_on_resume(tmp_path):
    result = train(tiny(tmp_path, total_env_steps=300))
    with (result.run_dir / "progress.csv").open("a") as file:
        file.write("360,1.0,67" + "," * 12 + "\n" + "36")  # written after the checkpoint, the last one half
    resume(result.run_dir, total_env_steps=420)
    steps = [int(row["step"]) for row in rows(result.run_dir)]
    assert steps == [60, 120, 180, 240, 300, 360, 420]


def test_a_run_folder_holds_what_is_documented(tmp_path):
    result = train(tiny(tmp_path, name="first"))
    assert result.run_dir.parent == tmp_path / "point-mass"
    assert result.run_dir.name.endswith("_first")
    assert json.loads((result.run_dir / "config.json").read_text())["algorithm"]["batch_size"] == 16
    assert json.loads((result.run_dir / "evaluation.json").read_text())["return_mean"] == result.evaluation.return_mean
    assert result.updates == int((600 - 90) * 0.25)
    last = rows(result.run_dir)[-1]
    assert (last["step"], last["updates"]) == ("600", str(result.updates))
    assert float(last["critic_loss"]) > 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(result.run_dir))
    events.Reload()
    tags = events.Tags()["scalars"]
    for tag in ("Train/mean_reward", "Train/mean_episode_length", "Perf/total_fps", "Loss/critic", "Policy/alpha",
                "Eval/mean_reward", "Episode_Reward/total"):  # fmt: skip
        assert tag in tags
    assert [e.step for e in events.Scalars("Eval/mean_reward")] == [240, 420, 600]


def test_warm_up_actions_are_uniform_or_of_the_initial_policy(tmp_path):
    def make(warmup_policy):
        return run.make_run(tiny(tmp_path, warmup_policy=warmup_policy), POINT_MASS, tmp_path)

    uniform, initial, reference = make("uniform"), make("initial"), make("initial")
    assert torch.equal(uniform.act(), 2 * torch.rand(3, 1, generator=reference.generator) - 1)
    assert torch.equal(initial.act(), reference.algorithm.act(reference.obs))


def test_stops_at_the_success_asked_for(tmp_path):
    result = train(tiny(tmp_path, stop_at_success=0.0))
    assert result.env_steps == 201
    assert newest_checkpoint(result.run_dir).state["env_steps"] == 201


def test_settings_that_would_change_what_was_learned_cannot_change_on_resume(tmp_path):
    result = train(tiny(tmp_path, total_env_steps=150))
    with pytest.raises(ConfigError, match="algorithm cannot change"):
        resume(result.run_dir, gamma=0.5)
    with pytest.raises(ConfigError, match=r"num_envs cannot change.*total_env_steps"):
        resume(result.run_dir, num_envs=5)


def test_a_loss_that_is_not_finite_is_named_and_the_checkpoint_of_before_kept(tmp_path, monkeypatch):
    from robot_rl.algorithms import sac

    calls, original = [], sac.critic_loss

    def poisoned(q, target):
        calls.append(1)
        return original(q, target) * (float("nan") if len(calls) == 60 else 1.0)

    monkeypatch.setattr(sac, "critic_loss", poisoned)
    with pytest.raises(TrainingError, match=r"critic_loss is nan.* at update 60;"):
        train(tiny(tmp_path))
    (run_dir,) = (tmp_path / "point-mass").iterdir()
    assert newest_checkpoint(run_dir).state["env_steps"] == 300
    assert all(p.isfinite().all() for p in load_policy(run_dir)[1].parameters())


def test_a_disk_full_for_a_while_costs_nothing_and_one_full_at_the_end_is_an_error(tmp_path, monkeypatch, capsys):
    original, attempts = run.save_checkpoint, []

    def full_disk(*arguments):
        attempts.append(arguments[1])
        if arguments[1] == broken:
            raise CheckpointError("cannot write x: no space left")
        return original(*arguments)

    monkeypatch.setattr(run, "save_checkpoint", full_disk)
    broken = 300
    result = train(tiny(tmp_path))
    assert attempts == [150, 300, 450, 600]
    assert "warning: cannot write x: no space left; training goes on" in capsys.readouterr().err
    assert newest_checkpoint(result.run_dir).state["env_steps"] == 600
    broken = 600
    with pytest.raises(CheckpointError, match="no space left"):
        train(tiny(tmp_path, name="second"))
    (run_dir,) = (tmp_path / "point-mass").glob("*_second")
    assert newest_checkpoint(run_dir).state["env_steps"] == 450


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_saves(tmp_path, number, capsys):
    handler = signal.getsignal(number)

    class Interrupting(PointMassEnv):
        def step(self, action):
            if self._steps[0] == 12 and self.num_envs == 3:
                os.kill(os.getpid(), number)
            return super().step(action)

    task = Task("point-mass", "", None, lambda *, num_envs, seed, **_: Interrupting(num_envs, seed))
    result = train(tiny(tmp_path), task)
    assert result.interrupted
    assert result.env_steps == 39
    assert newest_checkpoint(result.run_dir).state["env_steps"] == 39
    assert f"robot-rl train --resume {result.run_dir}" in capsys.readouterr().err
    assert signal.getsignal(number) is handler
    assert loop.resume(result.run_dir).env_steps == 600
