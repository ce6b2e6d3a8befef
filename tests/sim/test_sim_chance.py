"""Chance: what is drawn, that nothing is drawn twice, and that a restored state goes on exactly."""

import pytest
import torch
from torch import Tensor

from robot_rl_sim.chance import BLOCK, Chance


def _negative(drawn: Tensor, generator: torch.Generator) -> None:
    """In place of a normal distribution: the last column, told from all others by its sign."""
    drawn[..., -1:].uniform_(-1, 0, generator=generator)


def _chance(num_worlds: int, seed: int = 0) -> Chance:
    return Chance(num_worlds, 3, 2, _negative, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_worlds", [1, 300, 2 * BLOCK])
def test_every_row_is_new_and_uniform(num_worlds: int) -> None:
    chance = _chance(num_worlds)
    steps = torch.cat([chance.step().clone() for _ in range(5000 // num_worlds + 2)])
    starts = torch.cat([chance.start(k).clone() for k in [1, num_worlds, 1, 1] * (5000 // num_worlds + 1)])
    for rows, width in ((steps, 3), (starts, 2)):
        assert rows.shape[1] == width
        assert len(rows.unique(dim=0)) == len(rows)
        uniform, normal = rows[:, :-1], rows[:, -1]
        assert ((uniform >= 0) & (uniform < 1)).all()
        assert ((normal >= -1) & (normal < 0)).all()
        # Mean and variance of a uniform distribution, to five standard errors.
        n = uniform.numel()
        assert abs(float(uniform.mean()) - 1 / 2) < 5 * (1 / 12 / n) ** 0.5
        assert abs(float(uniform.var()) - 1 / 12) < 5 * (1 / 180 / n) ** 0.5


def test_all_follows_from_a_seed() -> None:
    one, other = _chance(300), _chance(300, seed=1)
    first = [one.step().clone(), one.start(7).clone()]
    assert not torch.equal(other.step(), first[0])
    one.step()
    for chance in (one, other):
        chance.seed(0)
        assert torch.equal(chance.step(), first[0])
        assert torch.equal(chance.start(7), first[1])


def test_a_restored_state_goes_on_exactly() -> None:
    one, other = _chance(300), _chance(300, seed=1)
    for _ in range(4):  # into the second block
        one.step()
        one.start(100)
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for _ in range(9):  # and past its end
        assert torch.equal(one.step(), other.step())
        assert torch.equal(one.start(100), other.start(100))
