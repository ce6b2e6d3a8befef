"""Recipes are valid settings, learn in small, and meet the command line's flags."""

import pytest
import torch

from robot_rl.commands.train import parse
from robot_rl.env import Task
from robot_rl.errors import ConfigError
from robot_rl.testing.point_mass import POINT_MASS
from robot_rl.training.config import make_config
from robot_rl.training.loop import train
from robot_rl.training.recipes import RECIPES, get_recipe

SMALL = {
    "num_envs": 4, "total_env_steps": 400, "warmup_env_steps": 100, "buffer_size": 500, "batch_size": 32,
    "updates_per_env_step": 0.1, "actor_hidden": (16,), "critic_hidden": (16,), "evaluate_episodes": 2,
    "evaluate_every": 0, "compile": False,
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains(name, tmp_path):
    recipe = get_recipe(name)
    task = Task(POINT_MASS.name, POINT_MASS.summary, POINT_MASS.robot, POINT_MASS.make_env)
    config = make_config(task, recipe.algo, **{**recipe.settings, **SMALL, "runs": tmp_path})
    result = train(config, task)
    assert result.updates == 30
    assert result.evaluation is not None
    assert torch.isfinite(torch.tensor(result.evaluation.return_mean))


def test_flags_go_over_the_recipe_and_the_recipe_over_the_preset():
    config = parse(["--task", "leap-reach", "--recipe", "rlpd", "--n-critics", "6"]).config
    assert (config.algo, config.algorithm.n_critics, config.algorithm.target_critics) == ("sac", 6, 2)
    assert config.num_envs == 1  # the preset's 256 belong with its own updates per step
    assert parse(["--task", "leap-reach"]).config.num_envs == 256


def test_unknown_or_contradicting_recipes_are_refused():
    with pytest.raises(ConfigError, match="valid: rlpd, fastsac"):
        parse(["--task", "leap-reach", "--recipe", "rlpdd"])
    with pytest.raises(ConfigError, match="one of --algo sac, got --algo dsact"):
        parse(["--task", "leap-reach", "--recipe", "rlpd", "--algo", "dsact"])
