import csv
import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from robot_rl.env import Task
from robot_rl.errors import CheckpointError, ConfigError, TrainingError
from robot_rl.replay.dataset import read_transitions, write_transitions
from robot_rl.replay.mirror import Mirror
from robot_rl.replay.ring_buffer import Batch
from robot_rl.testing.point_mass import POINT_MASS, PointMassEnv
from robot_rl.training import loop, run, segments
from robot_rl.training.checkpoint import load_policy, load_transitions, newest_checkpoint
from robot_rl.training.collect import collect
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


# At a constant learning rate DSAC-T ends within 6 % (seeds 0 to 13), as it falls to zero within 1 % (seeds 0 to 4).
@pytest.mark.parametrize(("algo", "lr_decay"), [("sac", False), ("dsact", True)])
def test_comes_within_five_percent_of_the_analytic_optimum(tmp_path, algo, lr_decay):
    result = train(make_config(POINT_MASS, algo, runs=tmp_path, total_env_steps=8_000, lr_decay=lr_decay))
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


def demos(path):
    """Random transitions in the shape of a dataset."""
    g = torch.Generator().manual_seed(0)
    obs, flags = torch.rand(50, 2, generator=g), torch.zeros(50)
    write_transitions(path, Batch(obs[:-1], 2 * obs[:-1, :1] - 1, obs[:-1, 0], flags[1:], flags[1:], obs[1:]))
    return path


@pytest.mark.parametrize("kind", ["plain", "n-step and demonstrations", "mapped", "dsact"])
def test_a_resumed_run_equals_one_that_never_stopped_bit_for_bit(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1000)
    changes = {
        "plain": {},
        "n-step and demonstrations": {"n_step": 3, "demos": demos(tmp_path / "demos.safetensors"), "demo_share": 0.25},
        "mapped": {"replay_storage": "mapped"},
        "dsact": {"algo": "dsact", "delay": 5},  # stopped between two steps of the policy
    }[kind]
    whole = train(tiny(tmp_path, **changes))
    first = train(tiny(tmp_path, total_env_steps=300, **changes))
    second = resume(first.run_dir, total_env_steps=600)
    assert second.run_dir == first.run_dir
    assert (second.env_steps, second.updates) == (whole.env_steps, whole.updates)
    assert second.evaluation == whole.evaluation
    one, two = (newest_checkpoint(r.run_dir).path for r in (whole, second))
    names = sorted(path.name for path in one.glob("*.safetensors"))
    assert names == sorted(path.name for path in two.glob("*.safetensors"))
    assert len(names) > 10
    for name in names:
        a, b = load_file(one / name), load_file(two / name)
        assert a.keys() == b.keys()
        different = [key for key in a if not torch.equal(a[key], b[key])]
        assert not different
    for a, b in zip(rows(whole.run_dir)[5:], rows(second.run_dir)[5:], strict=True):  # those after step 300
        for key in ("step", "updates", "eval_return", "eval_success", "critic_loss", "alpha"):
            assert a[key] == b[key]
    assert not (whole.run_dir / "replay.rows").exists()


def test_batches_are_what_the_settings_say(tmp_path):
    config = tiny(tmp_path, n_step=2, demos=demos(tmp_path / "demos.safetensors"), demo_share=0.25)
    made = run.make_run(config, POINT_MASS, tmp_path)
    env = made.env
    for _ in range(4):
        collect(env, made.replay, made.obs, torch.zeros(3, 1))
    batch = made.sample()
    assert batch.demonstration.tolist() == [0.0] * 12 + [1.0] * 4
    gamma = config.algorithm.gamma
    assert torch.tensor([[gamma], [gamma**2]]).isclose(batch.discount).any(0).all()
    plain = run.make_run(tiny(tmp_path), POINT_MASS, tmp_path)
    collect(plain.env, plain.replay, plain.obs, torch.zeros(3, 1))
    assert plain.sample().discount is None
    assert plain.sample().demonstration is None


def test_symmetry_doubles_batches_where_the_task_has_it(tmp_path):
    """The point mass is the same with left and right exchanged."""
    with pytest.raises(ConfigError, match="'point-mass' is not the same with left and right"):
        train(tiny(tmp_path, symmetry=True))

    class Symmetric(PointMassEnv):
        mirror = Mirror(obs=[(0, -1), (1, -1)], action=[(0, -1)])

    task = Task("point-mass", "", None, lambda *, num_envs, seed, **_: Symmetric(num_envs, seed))
    made = run.make_run(tiny(tmp_path, symmetry=True), task, tmp_path)
    collect(made.env, made.replay, made.obs, torch.ones(3, 1))
    batch = made.sample()
    assert torch.equal(batch.obs[:16], -batch.obs[16:])
    assert torch.equal(batch.action[:16], -batch.action[16:])
    assert train(tiny(tmp_path, symmetry=True), task).updates == int((600 - 90) * 0.25)


def test_a_replay_becomes_demonstrations_of_another_run(tmp_path):
    """Episodes are whole and in order: n-step returns refuse anything else."""
    result = train(tiny(tmp_path))
    batch = load_transitions(result.run_dir)
    assert batch.obs.shape == (400, 2)
    goes_on = (batch.next_obs[:-1] == batch.obs[1:]).all(-1)
    assert torch.equal(~goes_on, (batch.terminated + batch.truncated)[:-1] > 0)
    write_transitions(tmp_path / "demos.safetensors", batch)
    assert train(tiny(tmp_path, demos=tmp_path / "demos.safetensors", n_step=3, name="next")).updates == result.updates


def test_demonstrations_may_move_but_not_change(tmp_path):
    path = demos(tmp_path / "demos.safetensors")
    result = train(tiny(tmp_path, total_env_steps=150, demos=path))
    path = path.rename(tmp_path / "moved.safetensors")
    with pytest.raises(ConfigError, match=r"demos\.safetensors cannot be read"):
        resume(result.run_dir, total_env_steps=300)
    resume(result.run_dir, total_env_steps=300, demos=path)
    write_transitions(path, replace(read_transitions(path), reward=torch.zeros(49)))
    with pytest.raises(CheckpointError, match=r"moved\.safetensors is not the file"):
        resume(result.run_dir, total_env_steps=450)


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
    """One batch among the healthy ones is poisoned; updates come in bursts of several."""
    made, original = [], run.Run.sample

    def poisoned(self):
        batch = original(self)
        made.append(batch)
        return replace(batch, reward=batch.reward * float("nan")) if len(made) == 60 else batch

    monkeypatch.setattr(run.Run, "sample", poisoned)
    with pytest.raises(TrainingError, match=r"critic_loss is nan.* at update 60; reward, .* not finite; .*divergence;"):
        train(tiny(tmp_path, updates_per_env_step=2.0, evaluate_every=0, checkpoint_every=30))
    (run_dir,) = (tmp_path / "point-mass").iterdir()
    assert newest_checkpoint(run_dir).state["updates"] < 60
    assert all(p.isfinite().all() for p in load_policy(run_dir)[1].parameters())
    saved = load_file(run_dir / "divergence" / "batch.safetensors")
    assert torch.equal(saved["obs"], made[59].obs)
    assert saved["reward"].isnan().all()
    report = json.loads((run_dir / "divergence" / "report.json").read_text())
    assert any(name.startswith("critic") for name in report["state"])
    assert report["batch"]["reward"]["not_finite"] == 16
    assert resume(run_dir, total_env_steps=120, checkpoint_every=0).env_steps == 120


def test_an_exploding_critic_is_caught_before_it_overflows(tmp_path, monkeypatch):
    """A Bellman operator that expands instead of contracting: values grow without end, finite for long."""
    original = run.Run.sample
    monkeypatch.setattr(run.Run, "sample", lambda self: replace(original(self), discount=torch.full((16,), 1.8)))
    with pytest.raises(TrainingError, match=r"q is -?\d.*cannot add up to more than .*all finite"):
        train(tiny(tmp_path, gamma=0.9, learning_rate=0.1, tau=0.5, total_env_steps=9000, updates_per_env_step=1.0))
    (run_dir,) = (tmp_path / "point-mass").iterdir()
    report = json.loads((run_dir / "divergence" / "report.json").read_text())
    values = [abs(row["q"]) for row in report["values"]]
    limit = 1000 * (1 + report["largest_reward"]) / (1 - 0.9)
    assert values[-1] > limit > max(values[:-1])


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


@pytest.mark.usefixtures("hangup_is_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_step_and_saves(tmp_path, number, capsys):
    handler = signal.getsignal(number)

    class Interrupting(PointMassEnv):
        def step(self, action):
            if self._steps[0] == 12 and self.num_envs == 3:
                os.kill(os.getpid(), number)
                if number == signal.SIGHUP:  # a lost terminal sends two
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
