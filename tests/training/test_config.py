import dataclasses
from pathlib import Path

import pytest

from robot_rl.algorithms.sac import SACConfig
from robot_rl.env import Task
from robot_rl.errors import ConfigError
from robot_rl.testing.point_mass import POINT_MASS, make_env
from robot_rl.training.config import TrainConfig, config_from_json, make_config, override


def test_overrides_go_over_the_preset_and_the_preset_over_the_defaults():
    task = Task("t", "", None, make_env, {"sac": {"num_envs": 7, "gamma": 0.5, "seed": 3}})
    config = make_config(task, "sac", gamma=0.6, name="x")
    assert (config.num_envs, config.seed, config.algorithm.gamma, config.name) == (7, 3, 0.6, "x")
    assert config.algorithm.tau == SACConfig().tau


@pytest.mark.parametrize("where", ["preset", "override"])
def test_unknown_settings_are_named_with_the_valid_ones(where):
    bad = {"learning_rat": 1.0}
    task = Task("t", "", None, make_env, {"sac": bad if where == "preset" else {}})
    with pytest.raises(ConfigError, match=r"learning_rat; valid: .*learning_rate"):
        make_config(task, "sac", **({} if where == "preset" else bad))


def test_run_and_algorithm_settings_share_no_name():
    """Otherwise a flat flag would be ambiguous."""
    assert not {f.name for f in dataclasses.fields(TrainConfig)} & {f.name for f in dataclasses.fields(SACConfig)}


def test_json_round_trip():
    config = make_config(POINT_MASS, runs=Path("/x"), stop_at_success=0.9, target_entropy=-2.0, actor_hidden=(8, 4))
    assert config_from_json(config.to_json()) == config
    assert config_from_json(TrainConfig("t").to_json()) == TrainConfig("t")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"num_envs": 1', '"num_envs": "many"', "num_envs must be int, got 'many'"),
        ('"num_envs": 1', '"num_env": 1', "unknown entry num_env "),
        ('"gamma": 0.99', '"gama": 0.99', r"unknown entry algorithm\.gama "),
        ('"time_limit": "bootstrap"', '"time_limit": "ignore"', r"algorithm\.time_limit must be .*, got 'ignore'"),
        ('"algo": "sac"', '"algo": "dreamer"', "unknown algorithm 'dreamer'"),
        ('"task": "t",', "", "task"),
        ("{", "", "not a training configuration"),
    ],
)
def test_a_malformed_file_is_refused_by_name(old, new, message):
    text = TrainConfig("t").to_json()
    assert old in text
    with pytest.raises(ConfigError, match=message):
        config_from_json(text.replace(old, new, 1))


@pytest.mark.parametrize(
    "bad", [{"num_envs": 0}, {"low_pass_hz": 5.0}, {"updates_per_env_step": -1.0}, {"torch_threads": 0}, {"algo": "x"}]
)
def test_bad_values_are_refused_at_construction(bad):
    with pytest.raises(ConfigError, match=next(iter(bad)) if "algo" not in bad else "unknown algorithm 'x'"):
        override(TrainConfig("t"), bad)
