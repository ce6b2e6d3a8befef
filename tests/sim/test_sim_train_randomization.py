"""Randomisation in the settings of a run: flags, files, config.json, and the environments that they reach."""

import json
from dataclasses import replace

import pytest

from robot_rl.commands.evaluate import EvaluateArgs
from robot_rl.commands.evaluate import run as evaluate
from robot_rl.commands.train import parse
from robot_rl.env import get_task
from robot_rl.errors import ConfigError
from robot_rl.testing.point_mass import POINT_MASS
from robot_rl.training.config import config_from_json, make_config
from robot_rl.training.loop import check_resumable, train
from robot_rl_sim.randomization import NOMINAL, RandomizationConfig, chosen

LEAP = ["--task", "leap-reach"]


def ranges(*flags: str) -> RandomizationConfig:
    return parse([*LEAP, *flags]).config.randomization


def test_the_tasks_own_ranges_are_the_default() -> None:
    assert ranges() == RandomizationConfig()
    assert parse(["--task", "peg-insert"]).config.randomization.torque_noise_share == 0.005
    assert parse(["--task", "point-mass"]).config.randomization is None


def test_every_term_has_a_flag_that_sets_its_range_or_turns_it_off() -> None:
    changed = ranges(
        "--randomization.friction-scale", "0.3", "1.0", "--randomization.kp-scale", "None",
        "--randomization.sensors.joint-pos.delay-s", "0", "0.02", "--randomization.motor.kind", "dc_motor",
        "--randomization.privileged",
    )  # fmt: skip
    default = RandomizationConfig()
    assert changed.friction_scale == (0.3, 1.0)
    assert changed.kp_scale is None
    assert changed.sensors.joint_pos == replace(default.sensors.joint_pos, delay_s=(0.0, 0.02))
    assert changed.motor.kind == "dc_motor"
    assert changed.privileged
    assert changed.kd_scale == default.kd_scale


def test_a_file_goes_over_the_task_and_flags_over_the_file(tmp_path) -> None:
    path = tmp_path / "ranges.json"
    path.write_text('{"friction_scale": [0.1, 3], "kd_scale": null, "sensors": {"joint_vel": {"noise": 1.5}}}')
    changed = ranges("--randomization-file", str(path), "--randomization.friction-scale", "0.2", "2")
    assert (changed.friction_scale, changed.kd_scale) == ((0.2, 2.0), None)
    assert changed.sensors.joint_vel.noise == 1.5
    assert changed.sensors.joint_pos == RandomizationConfig().sensors.joint_pos


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"frictions": [0.1, 3]}', r"unknown entry randomization.frictions; valid: link_mass_scale, .*friction_scale"),
        ('{"sensors": {"lidar": {}}}', r"unknown entry randomization.sensors.lidar; valid: joint_pos, "),
        ('{"kp_scale": [0.1, "3"]}', "randomization.kp_scale must be float"),
        ('{"kp_scale": [3, 1]}', "kp_scale must be an increasing pair"),
        ("[1]", "must hold a JSON object"),
        ("{", "cannot read"),
    ],
)
def test_what_makes_no_sense_in_a_file_is_named(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        ranges("--randomization-file", str(path))


def test_unknown_flags_and_tasks_without_randomisation_are_refused(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        parse([*LEAP, "--randomization.frictions", "0.1", "3"])
    assert "--randomization.friction-scale" in capsys.readouterr().err
    path = tmp_path / "ranges.json"
    path.write_text('{"kp_scale": null}')
    with pytest.raises(ConfigError, match="'point-mass' has nothing to randomise"):
        parse(["--task", "point-mass", "--randomization-file", str(path)])


def test_settings_come_back_from_the_runs_file_and_cannot_change_on_resume() -> None:
    config = parse([*LEAP, "--randomization.gravity-shift-m-s2", "-1", "1"]).config
    assert config_from_json(config.to_json()) == config
    other = replace(config, randomization=replace(config.randomization, kp_scale=None))
    with pytest.raises(ConfigError, match="randomization cannot change"):
        check_resumable(config, other)


def test_a_file_of_before_there_was_randomisation_in_it_means_the_tasks_default() -> None:
    config = make_config(get_task("leap-reach"))
    data = json.loads(config.to_json())
    del data["randomization"]
    assert config_from_json(json.dumps(data)).randomization is None


def test_a_run_builds_all_its_environments_with_its_settings(tmp_path) -> None:
    asked = []

    def make_env(**arguments):
        asked.append(arguments.pop("randomize"))
        return POINT_MASS.make_env(**arguments)

    task = replace(POINT_MASS, make_env=make_env, randomization=RandomizationConfig)
    ours = replace(RandomizationConfig(), friction_scale=(0.3, 1.0))
    small = {"total_env_steps": 8, "evaluate_episodes": 2, "actor_hidden": (8,), "critic_hidden": (8,)}
    result = train(make_config(task, runs=tmp_path, randomization=ours, **small), task)
    assert asked == [ours, ours]
    saved = json.loads((result.run_dir / "config.json").read_text())
    assert saved["randomization"]["friction_scale"] == [0.3, 1.0]
    assert saved["randomization"]["sensors"]["joint_pos"]["bias"] == 0.02


def test_what_randomize_asks_for() -> None:
    own, other = RandomizationConfig(kp_scale=None), RandomizationConfig(kd_scale=None)
    assert (chosen(True, own), chosen(False, own), chosen(other, own)) == (own, NOMINAL, other)


def test_evaluate_takes_a_file_of_settings(tmp_path) -> None:
    path = tmp_path / "ranges.json"
    path.write_text('{"frictions": null}')
    arguments = EvaluateArgs("zero", "leap-reach", episodes=1, randomization_file=path)
    with pytest.raises(ConfigError, match=r"unknown entry randomization\.frictions"):
        evaluate(arguments)
