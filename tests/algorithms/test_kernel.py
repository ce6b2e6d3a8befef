"""Kernels: what they compute and write, against the plain function; what they refuse."""

import shutil
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from robot_rl.algorithms.kernel import CompiledUpdate, Kernel
from robot_rl.errors import EnvError
from robot_rl.replay.ring_buffer import Batch

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


class Leaky:
    """A tank with a level for each of 3 x 2 cells, a row of which can be set."""

    def __init__(self) -> None:
        self.level = torch.zeros(3, 2)
        self.kept = 0.5

    def pour(self, amount: Tensor, row: Tensor) -> dict[str, Tensor]:
        self.level.mul_(self.kept).add_(amount)
        self.level[row] = 7.0
        return {"doubled": 2 * self.level, "level": self.level, "amount": amount, "sum": self.level.sum()}


def test_a_kernel_is_the_function() -> None:
    plain, compiled = Leaky(), Leaky()
    kernel = Kernel(compiled.pour)
    for i in range(5):
        amount, row = torch.full((3, 2), float(i + 1)), torch.tensor([i % 3])
        expected, given = plain.pour(amount, row), kernel(amount, row)
        assert list(given) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(given[name], value)
        assert given["level"] is compiled.level
        assert given["amount"] is amount
        doubled, before = given["doubled"], given["doubled"].clone()
        plain.pour(torch.zeros(3, 2), row)
        kernel(torch.zeros(3, 2), row)
        assert torch.equal(doubled, before)  # results are nobody else's

    compiled.level.zero_()
    across = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).T
    assert kernel(across, torch.tensor([0]))["level"].tolist() == [[7.0, 7.0], [2.0, 5.0], [3.0, 6.0]]
    for bad in (torch.zeros(4, 2), torch.zeros(3, 2, dtype=torch.float64)):
        with pytest.raises(EnvError, match=r"compiled for \(3, 2\) of float32, \(1,\) of int64, called with"):
            kernel(bad, torch.tensor([0]))


def test_what_changes_behind_a_kernels_back_is_found_out() -> None:
    leaky = Leaky()
    kernel, row = Kernel(leaky.pour), torch.tensor([0])
    kernel(torch.ones(3, 2), row)
    leaky.level = torch.zeros(3, 2)
    with pytest.raises(EnvError, match=r"tensors that stay where they are; new ones of shapes \[\(3, 2\)\]"):
        kernel(torch.ones(3, 2), row)
    leaky.kept = 0.25
    with pytest.raises(EnvError, match="settings"):
        kernel(torch.ones(3, 2), row)


class Summing:
    """A learner of sums: of a batch's rewards, twice where told, and of its weights where there are any."""

    def __init__(self) -> None:
        self.total = torch.zeros(())

    def update(self, batch: Batch, noise: Tensor, twice: bool) -> tuple[Tensor, ...]:
        self.total += (2 if twice else 1) * batch.reward.sum()
        weight = torch.zeros(()) if batch.weight is None else batch.weight.sum()
        return self.total.clone(), weight, (batch.obs @ batch.action.mT).sum() + noise.sum()


@pytest.mark.slow
def test_an_update_is_compiled_anew_for_what_its_kernels_do_not_fit() -> None:
    plain, other = Summing(), Summing()
    compiled = CompiledUpdate(other.update)

    def assert_same(n: int, twice: bool, step: int = 1, weight: Tensor | None = None) -> None:
        obs, action, reward = (torch.rand(n * step, 3)[::step] for _ in range(3))
        batch = Batch(obs, action, reward[:, 0], reward[:, 1], reward[:, 2], obs, weight=weight)
        noise = torch.randn(2)
        torch.testing.assert_close(compiled(batch, noise, twice), plain.update(batch, noise, twice))

    kinds = [(4, False, 1), (4, True, 1), (5, True, 1), (5, True, 2)]
    for kind in kinds * 3:
        assert_same(*kind)
    assert_same(4, False, weight=torch.ones(4))
    assert len(compiled._kernels) == 5


@pytest.mark.slow
def test_learners_beyond_the_number_of_forms_that_torch_makes_of_one_function() -> None:
    for i in range(torch._dynamo.config.recompile_limit + 2):
        learner, expected, rows = Summing(), 0.0, torch.full((2, 3), float(i))
        update = CompiledUpdate(learner.update)
        for _ in range(3):
            expected += 2 * i
            batch = Batch(rows, rows, rows[:, 0], rows[:, 1], rows[:, 2], rows)
            assert update(batch, torch.zeros(2), False)[0].item() == expected


def test_learners_do_not_load_the_compiler_before_they_compile() -> None:
    code = "import sys, robot_rl.algorithms.sac; sys.exit('torch._inductor.compile_fx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
