from dataclasses import replace

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.replay.mirror import Mirror
from robot_rl.replay.ring_buffer import Batch

MIRROR = Mirror(obs=[(1, 1), (0, 1), (2, -1)], action=[(1, -1), (0, -1)])


def test_a_doubled_batch_by_hand():
    batch = Batch(
        torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.1, 0.2]]), torch.tensor([7.0]), torch.tensor([0.0]),
        torch.tensor([1.0]), torch.tensor([[4.0, 5.0, 6.0]]), discount=torch.tensor([0.9]),
    )  # fmt: skip
    double = MIRROR.double(batch)
    assert double.obs.tolist() == [[1, 2, 3], [2, 1, -3]]
    assert double.next_obs.tolist() == [[4, 5, 6], [5, 4, -6]]
    torch.testing.assert_close(double.action, torch.tensor([[0.1, 0.2], [-0.2, -0.1]]))
    assert double.reward.tolist() == [7, 7]
    assert double.terminated.tolist() == [0, 0]
    assert double.truncated.tolist() == [1, 1]
    torch.testing.assert_close(double.discount, torch.tensor([0.9, 0.9]))
    assert double.weight is None
    assert double.demonstration is None
    assert MIRROR.double(replace(batch, demonstration=torch.tensor([1.0]))).demonstration.tolist() == [1, 1]


@pytest.mark.parametrize("obs", [[(1, 1), (0, -1)], [(1, 1), (2, 1), (0, 1)], [(0, 2)], [(3, 1)], [(0, 1), (0, 1)]])
def test_what_is_no_mirror_is_refused(obs):
    with pytest.raises(ConfigError, match="mirroring obs twice must change nothing"):
        Mirror(obs, [(0, 1)])
