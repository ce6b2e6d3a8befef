"""The verbs train, evaluate and list, as a user runs them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pseudo_terminal import ProgramOnTerminal

from robot_rl.commands.main import main
from robot_rl.commands.train import parse
from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.training.checkpoint import newest_checkpoint

SMALL = [
    "--task",
    "point-mass",
    "--evaluate-every",
    "0",
    "--evaluate-episodes",
    "4",
    "--actor-hidden",
    "8",
    "--critic-hidden",
    "8",
]


def run_dirs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "point-mass").iterdir())


def start(tmp_path: Path, *flags: str) -> subprocess.Popen[str]:
    """An endless run with frequent checkpoints, in a process of its own."""
    command = [sys.executable, "-m", "robot_rl.commands.main", "train", *SMALL, "--runs", str(tmp_path)]
    command += ["--total-env-steps", "100000000", "--checkpoint-every", "80", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    await_checkpoint(process, tmp_path)
    return process


def await_checkpoint(process: subprocess.Popen[str], tmp_path: Path, later_than: int = -1) -> int:
    """The env steps of the only run's newest checkpoint, as soon as there are more than `later_than`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            (run_dir,) = run_dirs(tmp_path)
            step = newest_checkpoint(run_dir).state["env_steps"]
            if step > later_than:
                return step
        except (FileNotFoundError, ValueError, CheckpointError):
            pass  # none yet, or the run removed it for a newer one while it was read
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"no checkpoint after step {later_than} within a minute")


def test_flags_go_over_the_preset_and_the_preset_over_the_defaults():
    args = parse(["--task", "point-mass", "--gamma", "0.5", "--num-envs=3"])
    assert (args.config.algorithm.gamma, args.config.num_envs) == (0.5, 3)
    assert args.config.algorithm.tau == 0.02  # preset
    assert args.config.torch_threads == 1  # default


def test_help_shows_the_defaults_of_the_task(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(["--task", "point-mass", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for expected in (
        "--learning-rate",
        "(default: 0.002)",
        "--total-env-steps",
        "--resume",
        "Discount per control step",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--task", "leap-reech"], "unknown task 'leap-reech'; valid: "),
        (["train", "--task", "point-mass", "--algo", "sax"], "unknown algorithm 'sax'; valid: sac"),
        (["train", "--task", "point-mass", "--learning-rat", "1"], "--learning-rate"),
        (["train", "--task", "point-mass", "--gamma", "2"], "gamma"),
        (["train", "--task", "point-mass", "--num-envs", "x"], "--num-envs"),
        (["train"], "--task"),
        (["evaluate", "zero"], "needs --task"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_right(arguments, message, capsys):
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_train_evaluate_and_resume_from_the_command_line(tmp_path, capsys):
    arguments = [*SMALL, "--runs", str(tmp_path), "--total-env-steps", "1200"]
    assert main(["train", *arguments, "--json", str(tmp_path / "train.json")]) == 0
    result = json.loads((tmp_path / "train.json").read_text())
    (run_dir,) = run_dirs(tmp_path)
    assert result["details"]["run_dir"] == str(run_dir)
    assert main(["train", "--resume", str(run_dir), "--total-env-steps", "1400"]) == 0
    assert newest_checkpoint(run_dir).state["env_steps"] == 1400
    assert main(["train", "--resume", str(run_dir), "--gamma", "0.5"]) == 2
    capsys.readouterr()

    assert main(["evaluate", str(run_dir), "--episodes", "20", "--json", str(tmp_path / "e.json")]) == 0
    rows = {row["name"]: row["value"] for row in json.loads((tmp_path / "e.json").read_text())["rows"]}
    for policy in ("", "/zero", "/random"):
        assert f"evaluate/point-mass/return{policy}" in rows
        assert f"evaluate/point-mass/success{policy}" in rows
    assert (
        main(["evaluate", "random", "--task", "point-mass", "--episodes", "20", "--json", str(tmp_path / "r.json")])
        == 0
    )
    alone = {row["name"]: row["value"] for row in json.loads((tmp_path / "r.json").read_text())["rows"]}
    assert alone["evaluate/point-mass/return/random"] == rows["evaluate/point-mass/return/random"]
    assert main(["evaluate", str(run_dir), "--task", "gym:Pendulum-v1"]) == 2
    assert "does not take the 3 observations" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "nowhere")]) == 1


def test_interrupt_writes_a_checkpoint_exits_with_130_and_says_how_to_go_on(tmp_path):
    process = start(tmp_path, "--checkpoint-every", "800")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (run_dir,) = run_dirs(tmp_path)
    assert f"to go on: robot-rl train --resume {run_dir}" in err
    step = newest_checkpoint(run_dir).state["env_steps"]
    assert f"stopped at step {step:,}" in err
    assert main(["train", "--resume", str(run_dir), "--total-env-steps", str(step + 80)]) == 0
    assert newest_checkpoint(run_dir).state["env_steps"] == step + 80


def test_a_lost_connection_writes_a_checkpoint(tmp_path):
    command = [sys.executable, "-m", "robot_rl.commands.main", "train", *SMALL, "--runs", str(tmp_path)]
    command += ["--total-env-steps", "100000000", "--checkpoint-every", "50000000", "--log-every", "100"]
    program = ProgramOnTerminal(command)
    program.read_until("updates/s")
    program.lose()
    assert program.process.wait(60) == 130
    (run_dir,) = run_dirs(tmp_path)
    assert newest_checkpoint(run_dir).state["env_steps"] > 0


def test_a_run_that_is_still_being_trained_is_not_resumed_and_goes_on(tmp_path, capsys):
    process = start(tmp_path)
    (run_dir,) = run_dirs(tmp_path)
    assert main(["train", "--resume", str(run_dir)]) == 1
    assert f"{run_dir} is being trained by another process" in capsys.readouterr().err
    await_checkpoint(process, tmp_path, later_than=await_checkpoint(process, tmp_path))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_kill_at_any_moment_then_resume(tmp_path):
    process = start(tmp_path)
    time.sleep(0.5)  # it now writes checkpoints most of the time
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    (run_dir,) = run_dirs(tmp_path)
    step = newest_checkpoint(run_dir).state["env_steps"]
    assert main(["train", "--resume", str(run_dir), "--total-env-steps", str(step + 400)]) == 0
    steps = [line.split(",")[0] for line in (run_dir / "progress.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps), key=int)
    assert newest_checkpoint(run_dir).state["env_steps"] == step + 400
    assert not list((run_dir / "checkpoints").glob(".*"))  # what the killed process left half written is gone


def test_list_names_tasks_robots_and_algorithms(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("task/point-mass", "task/gym:<id>", "algorithm/sac", "robot/leap_hand", "verb/train"):
        assert name in text


def test_parse_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="is no run folder"):
        parse(["--resume", str(tmp_path)])
    with pytest.raises(ConfigError, match="unknown algorithm"):
        parse(["--algo", "none"])
