from dataclasses import replace

import numpy as np
import pytest
import torch

from robot_rl.data.dataset import ActionRange, Dataset, closed, new_folder
from robot_rl.errors import ConfigError
from robot_rl.replay.ring_buffer import Batch


def counting(truncated: list[int], jump_at: int | None = None) -> Dataset:
    """One observation that counts; `truncated` where an episode is cut off."""
    n = len(truncated)
    obs = torch.arange(n).float().unsqueeze(-1)
    next_obs = obs + 1
    if jump_at is not None:
        next_obs[jump_at] += 5
    zeros = torch.zeros(n)
    return Dataset(Batch(obs, zeros.unsqueeze(-1), zeros, zeros, torch.tensor(truncated).float(), next_obs))


def spans(dataset: Dataset) -> list[tuple[int, int]]:
    return [(rows.start, rows.stop) for rows in dataset.episodes()]


def test_episodes_end_at_flags_at_jumps_and_with_the_file():
    assert spans(counting([0, 0, 1, 0, 0])) == [(0, 3), (3, 5)]
    assert spans(counting([0, 0, 1, 0, 0], jump_at=3)) == [(0, 3), (3, 4), (4, 5)]
    assert spans(counting([0])) == [(0, 1)]


def test_flags_are_never_both_and_the_last_row_has_one():
    terminated, truncated = closed(np.array([0, 0, 1]), np.array([0, 0, 1]))
    assert (terminated.tolist(), truncated.tolist()) == ([False, False, True], [False] * 3)
    terminated, truncated = closed(np.zeros(2), np.zeros(2))
    assert (terminated.tolist(), truncated.tolist()) == ([False, False], [False, True])


def test_an_action_range_maps_its_ends_to_one_and_the_unit_range_changes_no_bit():
    actions = ActionRange([-2.0, 0.0], [2.0, 10.0])
    native = np.array([[-2.0, 10.0], [0.0, 5.0], [1.0, 2.5]], np.float32)
    unit = actions.to_unit(native, "here")
    assert unit.tolist() == [[-1, 1], [0, 0], [0.5, -0.5]]
    np.testing.assert_array_equal(actions.to_native(unit), native)
    random = torch.rand(1000, 2) * torch.logspace(-8, 0, 1000).unsqueeze(-1)
    assert np.array_equal(ActionRange([-1, -1], [1, 1]).to_unit(random.numpy(), "here").numpy(), random.numpy())
    assert ActionRange([-3], [3]).for_actions(2).high.tolist() == [3, 3]


def test_actions_outside_the_range_are_named_and_rounding_is_not():
    actions = ActionRange([-2.0], [2.0])
    assert actions.to_unit(np.array([[2.0001]]), "here").tolist() == [[1.0]]
    with pytest.raises(ConfigError, match=r"here: row 1 has action \[2.5\], outside of \[-2.0\] to \[2.0\]"):
        actions.to_unit(np.array([[1.0], [2.5]]), "here")
    for low, high in (([0.0], [0.0]), ([0.0], [np.inf]), ([0.0], [1.0, 2.0])):
        with pytest.raises(ConfigError, match="action range"):
            ActionRange(low, high)


def test_check_lets_an_unknown_reward_pass_and_names_the_rest(recorded):
    unknown = replace(recorded.transitions, reward=torch.full((len(recorded),), torch.nan))
    replace(recorded, transitions=unknown).check("x")
    some = recorded.transitions.reward.clone()
    some[3] = torch.nan
    with pytest.raises(ConfigError, match="reward is not finite: row 3"):
        replace(recorded, transitions=replace(recorded.transitions, reward=some)).check("x")
    with pytest.raises(ConfigError, match="time_s must be"):
        replace(recorded, time_s=recorded.time_s[:-1]).check("x")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fail() -> None:
        with new_folder(tmp_path / "d") as folder:
            (folder / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "d") as folder:
        (folder / "a").write_text("all")
    assert (tmp_path / "d" / "a").read_text() == "all"
    with pytest.raises(ConfigError, match="exists"), new_folder(tmp_path / "d"):
        pass
