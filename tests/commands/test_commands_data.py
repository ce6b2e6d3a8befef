"""The verb data, and train on what it wrote, as a user runs them."""

import json
import sys
from pathlib import Path

import minari
import numpy as np
import pytest
import torch

import robot_rl.data
from robot_rl.commands.main import main
from robot_rl.data import read_dataset
from robot_rl.replay.dataset import FIELDS, write_transitions
from robot_rl.robots import LEAP_HAND
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.training.checkpoint import load_transitions

SMALL = ["--evaluate-every", "0", "--evaluate-episodes", "2", "--actor-hidden", "8", "--critic-hidden", "8"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    flags = [
        "--task",
        "point-mass",
        *SMALL,
        "--runs",
        str(runs),
        "--total-env-steps",
        "400",
        "--warmup-env-steps",
        "300",
    ]
    assert main(["train", *flags]) == 0
    return next((runs / "point-mass").iterdir())


def train(tmp_path: Path, demos: Path | str) -> int:
    flags = ["--task", "point-mass", *SMALL, "--runs", str(tmp_path / "runs"), "--total-env-steps", "80"]
    return main(["train", *flags, "--warmup-env-steps", "16", "--batch-size", "8", "--demos", str(demos)])


def test_a_replay_through_every_format_and_back_into_training(run_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    lerobot, again = str(tmp_path / "lerobot"), str(tmp_path / "again.safetensors")
    assert main(["data", "convert", str(run_dir), str(tmp_path / "first.safetensors")]) == 0
    assert main(["data", "convert", str(tmp_path / "first.safetensors"), "minari:point/replay-v0"]) == 0
    assert main(["data", "convert", "point/replay-v0", lerobot, "--to", "lerobot", "--fps", "4"]) == 0
    assert main(["data", "convert", lerobot, again]) == 0
    expected, found = load_transitions(run_dir), read_dataset(again).transitions
    assert all(torch.equal(getattr(found, name), getattr(expected, name)) for name in FIELDS)
    assert minari.load_dataset("point/replay-v0").total_steps == len(expected.reward) == 400
    assert f"data/written   {again}" in capsys.readouterr().out
    for demos in ("minari:point/replay-v0", lerobot, again):
        assert train(tmp_path, demos) == 0


def test_a_run_goes_on_only_with_the_dataset_it_began_with(run_dir, tmp_path, capsys):
    demos = tmp_path / "demos"
    assert main(["data", "convert", str(run_dir), str(demos), "--to", "lerobot", "--fps", "4"]) == 0
    assert train(tmp_path, demos) == 0
    run = next((tmp_path / "runs/point-mass").iterdir())
    assert main(["train", "--resume", str(run), "--total-env-steps", "160"]) == 0
    stats = demos / "meta/stats.json"
    stats.write_text(stats.read_text() + " ")
    assert main(["train", "--resume", str(run), "--total-env-steps", "240"]) == 1
    assert "is not the file that" in capsys.readouterr().err


def test_a_gymnasium_replay_has_its_actions_in_the_units_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    flags = ["--task", "gym:Pendulum-v1", *SMALL, "--runs", str(tmp_path), "--total-env-steps", "450"]
    assert main(["train", *flags, "--warmup-env-steps", "450"]) == 0
    run = next((tmp_path / "gym-Pendulum-v1").iterdir())
    assert main(["data", "convert", str(run), "minari:pendulum-v0"]) == 0
    loaded = minari.load_dataset("pendulum-v0")
    env = loaded.recover_environment().unwrapped
    # The environment itself, put into a recorded state, gives the recorded reward for the recorded action.
    for episode in loaded.iterate_episodes():
        cosine, sine, speed = episode.observations[5]
        env.reset()
        env.state = np.array([np.arctan2(sine, cosine), speed])
        observation, reward, *_ = env.step(episode.actions[5])
        np.testing.assert_allclose(observation, episode.observations[6], atol=1e-5)
        np.testing.assert_allclose(reward, episode.rewards[5], rtol=1e-4)


def test_a_report_as_table_json_and_plot(run_dir, tmp_path, capsys):
    plot, file = tmp_path / "report.png", tmp_path / "report.json"
    assert main(["data", "report", str(run_dir), "--plot", str(plot), "--json", str(file)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    rows = {row["name"]: row["value"] for row in json.loads(file.read_text())["rows"]}
    batch = load_transitions(run_dir)
    assert rows["data/steps"] == 400
    assert rows["data/episodes"] == (batch.terminated + batch.truncated).sum()
    assert rows["data/return/mean"] == pytest.approx(batch.reward.sum().item() / rows["data/episodes"], rel=1e-4)
    out = capsys.readouterr().out
    assert "data/coverage/effective rank" in out
    assert str(plot) in out


@pytest.mark.realtime
def test_a_log_of_deploy_is_reported_and_converted_but_not_learned_from(tmp_path, capsys):
    log, converted = tmp_path / "flight.mcap", tmp_path / "flight.safetensors"
    bundle = TinyPolicy(LEAP_HAND, command_dim=0).write(tmp_path / "bundle")
    deploy = ["deploy", str(bundle), "--interface", "mock", "--auto-run", "--duration", "3.4"]
    assert main([*deploy, "--record", str(log)]) == 0
    assert main(["data", "report", str(log)]) == 0
    assert "reward is not in a log" in capsys.readouterr().err
    assert main(["data", "convert", str(log), str(converted)]) == 0
    again = read_dataset(converted)
    assert again.action_proposed is not None
    assert again.about["robot"] == "leap_hand"
    for demos in (log, converted):
        assert train(tmp_path, demos) == 2
        assert "no row has a reward" in capsys.readouterr().err
    # With a reward of the user's own it is learned from, by a task of its size.
    write_transitions(converted, type(again.transitions)(
        **{name: getattr(again.transitions, name) for name in FIELDS if name != "reward"},
        reward=-again.transitions.obs.square().sum(-1),
    ))  # fmt: skip
    assert train(tmp_path, converted) == 2
    assert "the task has 2 and 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "report", "nowhere"], "nowhere is no dataset: neither a file of transitions"),
        (["data", "convert", "{file}", "{file}"], "exists; choose another name"),
        (["data", "convert", "{file}", "somewhere"], "say which with --to: transitions, minari or lerobot"),
        (["data", "convert", "{file}", "x.npz", "--to", "transitions"], "written as .safetensors"),
        (["data", "convert", "{file}", "x", "--to", "lerobot"], "--fps"),
        (["data", "convert", "{file}", "x", "--to", "minari"], "Minari names datasets"),
        (["data", "report", "{file}", "--action-low", "-1"], "belong together"),
        (["data", "report", "{file}", "--action-low", "-1", "--action-high", "1"], "are in [-1, 1] already"),
        (["data", "convert", "{file}", "x", "--to", "csv"], "--to"),
        (["data"], "convert"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_right(arguments, message, run_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = str(tmp_path / "made.safetensors")
    assert main(["data", "convert", str(run_dir), file]) == 0
    try:
        code = main([argument.format(file=file) for argument in arguments])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["made.safetensors"]


def test_without_the_extra_the_error_names_it(run_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for module in ("lerobot", "lerobot_meta"):
        monkeypatch.delitem(sys.modules, f"robot_rl.data.{module}", raising=False)
        monkeypatch.delattr(robot_rl.data, module, raising=False)
    assert main(["data", "convert", str(run_dir), str(tmp_path / "x"), "--to", "lerobot", "--fps", "4"]) == 3
    assert "pip install 'robot-rl[data]'" in capsys.readouterr().err
