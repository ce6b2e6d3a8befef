import torch

from robot_rl.algorithms.adam import Adam


def test_steps_equal_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(1000, generator=generator)
    theirs = torch.nn.Parameter(ours.clone())
    optimizer, reference = Adam(ours), torch.optim.Adam([theirs])
    for step in range(20):
        lr = 1e-2 / (step + 1)
        gradient = torch.randn(1000, generator=generator)
        ours_before = ours
        optimizer.step(ours, gradient, torch.tensor(lr))
        reference.param_groups[0]["lr"] = lr
        theirs.grad = gradient
        reference.step()
        assert ours is ours_before
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-7)


def test_state_is_the_moments_and_the_count():
    optimizer = Adam(torch.zeros(3))
    optimizer.step(torch.zeros(3), torch.tensor([1.0, -2.0, 0.0]), torch.tensor(1e-3))
    state = optimizer.state_dict()
    torch.testing.assert_close(state["mean"], 0.1 * torch.tensor([1.0, -2.0, 0.0]))
    torch.testing.assert_close(state["square"], 0.001 * torch.tensor([1.0, 4.0, 0.0]))
    assert state["steps"] == 1
