import json
import math

import pytest
import torch
from safetensors.torch import load_file

from robot_rl.errors import TrainingError
from robot_rl.replay.ring_buffer import Batch
from robot_rl.training import watch as watch_module
from robot_rl.training.watch import Watch

NAMES = ("critic_loss", "q")


def batch(reward: float = 1.0) -> Batch:
    zeros = torch.zeros(4)
    return Batch(torch.ones(4, 3), zeros.unsqueeze(-1), torch.full((4,), reward), zeros, zeros, torch.ones(4, 3))


def make(tmp_path, state=None, largest_reward: float = 1.0, gamma: float = 0.9) -> Watch:
    state = {"critic.flat": torch.tensor([3.0, 4.0])} if state is None else state
    return Watch(tmp_path, NAMES, gamma, lambda: state, lambda: largest_reward)


def add(watch: Watch, *rows: tuple[float, float], reward: float = 1.0) -> None:
    for row in rows:
        watch.add(batch(reward), torch.tensor(row))


def test_the_first_bad_update_of_several_is_named_and_its_batch_kept(tmp_path):
    watch = make(tmp_path, {"actor.flat": torch.tensor([1.0, math.nan]), "step": torch.tensor(3)})
    add(watch, (1.0, 2.0), (1.5, 2.5))
    watch.check(updates=2)
    add(watch, (2.0, 3.0))
    add(watch, (math.nan, 4.0), reward=7.0)
    add(watch, (math.nan, math.nan))
    with pytest.raises(TrainingError, match=r"critic_loss is nan at update 4; actor\.flat is not finite; .*divergence"):
        watch.check(updates=5)
    report = json.loads((tmp_path / "divergence" / "report.json").read_text(), parse_constant=pytest.fail)
    assert (report["update"], report["updates_made_since"]) == (4, 1)
    assert report["values"][-2:] == [{"critic_loss": 2.0, "q": 3.0}, {"critic_loss": "nan", "q": 4.0}]
    assert len(report["values"]) == 4
    assert report["state"] == {"actor.flat": {"norm": 1.0, "largest": 1.0, "not_finite": 1}}
    assert report["batch"]["obs"] == {"norm": pytest.approx(math.sqrt(12)), "largest": 1.0, "not_finite": 0}
    assert load_file(tmp_path / "divergence" / "batch.safetensors")["reward"].tolist() == [7.0] * 4


def test_returns_beyond_what_rewards_allow_are_divergence_and_large_rewards_are_not(tmp_path):
    """At γ = 0.9, rewards up to 9 (and 1 for entropy) add up to at most 100; a thousand times that is too much."""
    rewards = []
    watch = make(tmp_path)
    watch._largest_reward = lambda: (rewards.append(9.0), 9.0)[1]
    add(watch, (0.0, 9_999.0))
    watch.check(1)
    assert not rewards  # nothing is computed while nothing looks wrong
    add(watch, (0.0, -99_000.0), (1e30, 50_000.0))
    watch.check(3)
    assert len(rewards) == 1
    add(watch, (0.0, 101_000.0))
    with pytest.raises(
        TrainingError, match=r"q is 1.01e\+05, and rewards .* by 0.9, cannot add up to more than 100 at"
    ):
        watch.check(4)
    undiscounted = make(tmp_path, gamma=1.0)
    add(undiscounted, (0.0, 1e30))
    undiscounted.check(1)


def test_the_rewards_of_the_batch_count_too(tmp_path):
    """n-step sums and rows that have just left the buffer may be larger than what it holds."""
    watch = make(tmp_path)
    add(watch, (0.0, 99_000.0), reward=9.0)
    watch.check(1)
    add(watch, (0.0, 101_000.0), reward=9.0)
    with pytest.raises(TrainingError, match="all finite"):
        watch.check(2)


def test_a_ruined_learner_does_not_get_into_a_checkpoint(tmp_path):
    state = {"critic.flat": torch.ones(2), "generator": torch.zeros(3, dtype=torch.uint8)}
    watch = make(tmp_path, state)
    watch.check_state(0)
    add(watch, (0.0, 0.0))
    watch.check(1)
    state["critic.flat"][1] = math.inf
    with pytest.raises(TrainingError, match=r"^critic\.flat is not finite at update 1; batch and norms"):
        watch.check_state(1)


def test_a_full_disk_does_not_hide_the_cause(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError("No space left")

    monkeypatch.setattr(watch_module, "write_tensors", full)
    watch = make(tmp_path)
    add(watch, (math.inf, 0.0))
    with pytest.raises(TrainingError, match=r"critic_loss is inf .*could not be written: No space left"):
        watch.check(1)
