"""A run that begins with what another one learned."""

import pytest
import torch

from robot_rl.commands.export import portable
from robot_rl.errors import CheckpointError
from robot_rl.testing.point_mass import POINT_MASS
from robot_rl.training.checkpoint import load_policy, newest_checkpoint
from robot_rl.training.config import make_config
from robot_rl.training.loop import train

TINY = {
    "num_envs": 3, "total_env_steps": 300, "warmup_env_steps": 90, "updates_per_env_step": 0.25, "buffer_size": 400,
    "evaluate_every": 300, "evaluate_episodes": 4, "checkpoint_every": 0, "batch_size": 16, "actor_hidden": (8,),
    "critic_hidden": (8,), "normalize_obs": True,
}  # fmt: skip

PARTS = ("algorithm/actor.", "algorithm/critic.", "algorithm/actor_optimizer", "algorithm/critic_optimizer")


def run(tmp_path, algo="sac", **changes):
    return train(make_config(POINT_MASS, algo, **{**TINY, "runs": tmp_path, **changes})).run_dir


def test_before_the_first_update_it_is_the_policy_of_the_other_run_and_its_optimisers_go_on(tmp_path):
    earlier = run(tmp_path, name="earlier")
    # As long as a warm-up with the policy lasts, nothing is learned.
    later = run(tmp_path, start_from=earlier, seed=7, total_env_steps=90, warmup_policy="initial")
    ours, theirs = (newest_checkpoint(path).load("model") for path in (later, earlier))
    learned = [name for name in theirs if name.startswith(PARTS)]
    assert {part for part in PARTS if any(name.startswith(part) for name in learned)} == set(PARTS)
    for name in learned:
        assert torch.equal(ours[name], theirs[name]), name
    obs = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    (_, actor, _), (_, other, _) = load_policy(later), load_policy(earlier)
    torch.testing.assert_close(actor(obs), other(obs))


def test_then_it_learns_on_from_an_empty_replay(tmp_path):
    earlier = run(tmp_path, name="earlier")
    later = run(tmp_path, start_from=earlier, seed=7)
    ours, theirs = (newest_checkpoint(path) for path in (later, earlier))
    assert ours.state["env_steps"] == ours.state["step"] == 300
    ours, theirs = ours.load("model"), theirs.load("model")
    assert any(not torch.equal(ours[name], theirs[name]) for name in theirs if name.startswith("algorithm/actor."))


def test_what_does_not_fit_is_refused(tmp_path):
    earlier = run(tmp_path, name="earlier")
    with pytest.raises(CheckpointError, match="trained with 'sac', this run with 'dsact'"):
        run(tmp_path, "dsact", start_from=earlier)
    with pytest.raises(CheckpointError, match="does not fit these networks"):
        run(tmp_path, start_from=earlier, actor_hidden=(16,))
    with pytest.raises(CheckpointError, match="is no run folder"):
        run(tmp_path, start_from=tmp_path / "nothing")


def test_a_bundle_says_what_it_was_learned_from_and_not_where_that_lay():
    config = {"runs": "/home/me/runs", "start_from": "/home/me/runs/t/first", "demos": None, "seed": 3}
    assert portable(config) == {"start_from": "first", "demos": None, "seed": 3}
