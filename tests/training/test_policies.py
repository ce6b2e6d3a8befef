"""Policies by name: baselines, bundles, and what does not fit."""

from pathlib import Path

import pytest
import torch

from robot_rl.env import get_task
from robot_rl.errors import ConfigError
from robot_rl.training.policies import baselines, find_policy

BUNDLE = Path(__file__).parents[2] / "policies" / "leap_hand" / "leap-reach" / "v1"


def test_baselines_are_those_of_the_task() -> None:
    task = get_task("point-mass")
    env = task.make_env(num_envs=3, seed=0)
    assert not find_policy("zero", "point-mass").trained
    assert torch.equal(find_policy("zero", "point-mass").make(env)(env.reset()), torch.zeros(3, env.action_dim))
    random = find_policy("random", "point-mass", seed=4).make(env)(env.reset())
    assert torch.equal(random, baselines(task, env, 4)["random"](env.reset()))
    with pytest.raises(ConfigError, match=r"'point-mass' has no scripted policy; valid: zero, random"):
        find_policy("scripted", "point-mass").make(env)
    with pytest.raises(ConfigError, match=r"'zero' needs --task"):
        find_policy("zero")


def test_a_bundle_acts_as_its_graph_does() -> None:
    pytest.importorskip("mujoco")
    policy = find_policy(str(BUNDLE))
    assert policy.trained
    assert policy.task.name == "leap-reach"
    env = policy.task.make_env(num_envs=3, seed=0, num_threads=1)
    act = policy.make(env)
    env.reset(seed=1)
    inputs = {name: value.numpy() for name, value in env.policy_inputs().items()}

    from robot_rl.bundle.load import load_bundle

    single = [load_bundle(BUNDLE).policy.run({n: v[i] for n, v in inputs.items()})["action"] for i in range(3)]
    torch.testing.assert_close(act(torch.zeros(3, 1)), torch.cat([torch.from_numpy(a) for a in single]))
    with pytest.raises(ConfigError, match="another contract than that of task 'point-mass'"):
        find_policy(str(BUNDLE), "point-mass").make(get_task("point-mass").make_env(num_envs=1, seed=0))
