import pytest
import torch

from robot_rl.algorithms import adam
from robot_rl.algorithms.adam import Adam, polyak


@pytest.mark.parametrize("as_compiled", [False, True])
def test_steps_equal_those_of_torch(as_compiled, monkeypatch):
    monkeypatch.setattr(adam, "is_compiling", lambda: as_compiled)
    generator = torch.Generator().manual_seed(0)
    # In double precision, where rounding hides nothing: two orders of the same operations differ by 1e-16.
    ours = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((40, 25), (7,), ())]
    theirs = [torch.nn.Parameter(p.clone()) for p in ours]
    optimizer, reference = Adam(ours).double(), torch.optim.Adam(theirs)
    for i in range(20):
        lr = 1e-2 / (i + 1)
        gradients = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in ours]
        optimizer.step(gradients, torch.tensor(lr, dtype=torch.float64))
        reference.param_groups[0]["lr"] = lr
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        reference.step()
    torch.testing.assert_close(ours, [p.detach() for p in theirs], rtol=1e-12, atol=1e-12)


def test_state_is_the_moments_and_the_count():
    optimizer = Adam([torch.zeros(3)])
    optimizer.step([torch.tensor([1.0, -2.0, 0.0])], torch.tensor(1e-3))
    state = optimizer.state_dict()
    torch.testing.assert_close(state["means.0"], 0.1 * torch.tensor([1.0, -2.0, 0.0]))
    torch.testing.assert_close(state["squares.0"], 0.001 * torch.tensor([1.0, 4.0, 0.0]))
    assert state["steps"] == 1


def test_targets_follow_by_tau():
    source, target = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    expected = [0.75 * t + 0.25 * s for t, s in zip(target.parameters(), source.parameters(), strict=True)]
    polyak(target, source, 0.25)
    torch.testing.assert_close([t.detach() for t in target.parameters()], [e.detach() for e in expected])
