"""Worlds driven beyond their limits, divergences dumped, and the same divergences seen again."""

import dataclasses

import pytest
import torch

from robot_rl.commands.main import main
from robot_rl.env import Task, load_tasks
from robot_rl.errors import ConfigError
from robot_rl.training.config import TrainConfig
from robot_rl.training.loop import train
from robot_rl_sim.divergence import Origin, read, write
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.randomization import NOMINAL
from robot_rl_sim.stress import OverdrivenEnv, replay, stress
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.g1_balance.mdp import G1Balance

SIMULATED = sorted(name for name, task in load_tasks().items() if task.robot is not None)


def g1_env(num_envs: int = 4) -> SimVecEnv:
    return assemble(G1Balance(), num_envs, 0, NOMINAL, "cpu", 1)


@pytest.fixture
def unstable() -> SimVecEnv:
    """Two of four robots have motors that push velocity instead of damping it."""
    env = g1_env()
    env.sim.model_field("actuator_biasprm")[[1, 3], :, 2] *= -200.0
    return env


def quiet(_: object) -> None:
    pass


def test_targets_fill_twice_the_range_of_every_joint(monkeypatch) -> None:
    env = OverdrivenEnv(g1_env(2), 2.0, 0)
    joints = env.mdp.robot.joints
    lower, upper = (torch.tensor([getattr(j, f) for j in joints]) for f in ("lower_rad", "upper_rad"))
    sent = []
    monkeypatch.setattr(env.sim, "step", lambda ctrl: sent.append(ctrl.clone()))
    for _ in range(200):
        env.step(torch.zeros(2, 29))
    share = (torch.cat(sent) - (lower + upper) / 2) / (upper - lower)  # of the whole range, about its middle
    assert share.abs().max() <= 1.0
    assert (share.amax(0) > 0.95).all()
    assert (share.amin(0) < -0.95).all()


def test_same_seed_same_stress() -> None:
    first, second, other = (stress(g1_env(), 160, 2.0, seed, quiet) for seed in (1, 1, 2))
    assert (first.terminated, first.truncated, first.env_steps) == (second.terminated, second.truncated, 160)
    assert first.terminated > 0
    assert other.terminated > 0


def test_only_worlds_that_diverge_are_counted_and_all_stays_finite(unstable: SimVecEnv) -> None:
    result = stress(unstable, 80, 2.0, 0, quiet)
    assert result.not_finite == ""
    assert result.diverged >= 2
    assert {d.world for d in unstable.divergences} == {1, 3}
    assert all(torch.isfinite(d.qpos).all() and torch.isfinite(d.qvel).all() for d in unstable.divergences)


def test_a_dumped_divergence_happens_again(unstable: SimVecEnv, tmp_path) -> None:
    """From the file alone; and not with the motors as they should be, so that it is the cause that was recorded."""
    stress(unstable, 80, 2.0, 0, quiet)
    divergence = unstable.divergences[0]
    write(tmp_path / "d.safetensors", divergence, Origin("g1-balance", 0, "auto"))
    again, origin = read(tmp_path / "d.safetensors")
    assert origin == Origin("g1-balance", 0, "auto")
    for field in ("qpos", "qvel", "ctrl"):
        assert torch.equal(getattr(again, field), getattr(divergence, field))
    moments = replay(g1_env(1), again, "auto")
    assert moments[-1].failed
    assert not any(m.failed for m in moments[:-1])
    assert moments[-1].speed > 1000.0
    healthy = dataclasses.replace(again, model={}, qvel=torch.zeros_like(again.qvel))
    moments = replay(g1_env(1), healthy, "auto")
    assert len(moments) == 4
    assert not moments[-1].failed


def test_replay_says_where_it_happened(unstable: SimVecEnv) -> None:
    stress(unstable, 80, 2.0, 0, quiet)
    moment = replay(g1_env(1), unstable.divergences[0], "auto")[-1]
    joints = [unstable.sim.model.joint(i).name for i in range(unstable.sim.model.njnt)]
    assert moment.fastest in joints or moment.fastest.startswith("joint ")


def test_what_is_not_finite_fails_the_test(monkeypatch) -> None:
    env = g1_env()
    monkeypatch.setattr(env.mdp, "privileged", lambda sim: torch.full((4, 4), float("nan")))
    assert stress(env, 80, 2.0, 0, quiet).not_finite == "final_privileged of env 0"


def test_a_file_of_another_kind_or_model_is_refused(unstable: SimVecEnv, tmp_path) -> None:
    (tmp_path / "x").write_bytes(b"no")
    with pytest.raises(ConfigError, match="not the dump of a divergence"):
        read(tmp_path / "x")
    stress(unstable, 80, 2.0, 0, quiet)
    other = dataclasses.replace(unstable.divergences[0], qpos=torch.zeros(3))
    with pytest.raises(ConfigError, match="3 positions"):
        replay(g1_env(1), other, "auto")


def test_dumps_are_added_to_those_of_before_and_have_an_end(unstable: SimVecEnv, tmp_path) -> None:
    stress(unstable, 80, 2.0, 0, quiet)
    kept = list(unstable.divergences)
    first = unstable.dump_failures(tmp_path, "g1-balance", 3, "mujoco")
    assert [path.name for path in first] == [f"{i:03d}.safetensors" for i in range(len(kept))]
    assert unstable.dump_failures(tmp_path, "g1-balance", 3, "mujoco") == []
    unstable.divergences.extend(kept[:1])
    (path,) = unstable.dump_failures(tmp_path, "g1-balance", 3, "mujoco")
    assert path not in first
    for i in range(100):
        (tmp_path / f"more-{i}.safetensors").touch()
    unstable.divergences.extend(kept[:1])
    assert unstable.dump_failures(tmp_path, "g1-balance", 3, "mujoco") == []


def test_a_training_run_keeps_the_worlds_that_failed(tmp_path) -> None:
    def make_env(*, num_envs: int, seed: int, **_: object) -> SimVecEnv:
        env = g1_env(num_envs)
        env.sim.model_field("actuator_biasprm")[0, :, 2] *= -200.0
        return env

    task = Task("unstable", "", "unitree_g1", make_env)
    config = TrainConfig(
        task="unstable", total_env_steps=80, num_envs=4, log_every=40, evaluate_episodes=1, buffer_size=1000,
        warmup_env_steps=80, checkpoint_every=80, runs=tmp_path, name="run",
    )  # fmt: skip
    result = train(config, task)
    dumps = sorted((result.run_dir / "failures").glob("*.safetensors"))
    assert dumps
    divergence, origin = read(dumps[0])
    assert (origin.task, divergence.world) == ("unstable", 0)


def test_verb_dumps_and_replays(unstable: SimVecEnv, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("robot_rl_sim.commands.stress._env", lambda task, args, n, backend: unstable)
    assert main(["stress", "g1-balance", "--steps", "80", "--num-envs", "4", "--out", str(tmp_path)]) == 0
    dumps = sorted((tmp_path / "g1-balance").glob("*.safetensors"))
    assert len(dumps) >= 2
    monkeypatch.setattr("robot_rl_sim.commands.stress._env", lambda task, args, n, backend: g1_env(1))
    assert main(["stress", str(dumps[0])]) == 0
    shown = capsys.readouterr().out
    assert "failed again in physics step" in shown
    assert "stress/g1-balance/diverged" in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATED)
def test_controls_at_twice_the_limits_leave_nothing_that_is_not_finite(name: str) -> None:
    """20,000 steps; `robot-rl stress TASK` makes a million."""
    env = load_tasks()[name].make_env(num_envs=64, seed=0, num_threads=1)
    assert isinstance(env, SimVecEnv)
    result = stress(env, 20_000, 2.0, 0, quiet)
    assert result.not_finite == ""
    assert result.terminated + result.truncated >= 64 * (20_000 // 64 // env.max_episode_steps)
