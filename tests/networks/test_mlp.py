"""The hand-written gradients against autograd through ordinary layers, and against finite differences."""

import pytest
import torch
from torch import nn

from robot_rl.networks.mlp import ACTIVATIONS, MLPStack


def plain(stack: MLPStack, index: int) -> nn.Sequential:
    """The same network from torch's own layers."""
    modules: list[nn.Module] = []
    for layer in stack.layers:
        _, i, o = layer.weight.shape
        linear = nn.Linear(i, o, dtype=layer.weight.dtype)
        linear.load_state_dict({"weight": layer.weight[index].T, "bias": layer.bias[index, 0]})
        modules.append(linear)
        if layer.scale is not None:
            norm = nn.LayerNorm(o, dtype=layer.weight.dtype)
            norm.load_state_dict({"weight": layer.scale[index, 0], "bias": layer.shift[index, 0]})
            modules.append(norm)
        modules.append(ACTIVATIONS[stack.activation]())
    return nn.Sequential(*modules[:-1])


def gradients_of(network: nn.Sequential) -> list[torch.Tensor]:
    """In the stack's layout (in, out), (1, out), and the order of its parameters."""
    return [p.grad.T if p.ndim == 2 else p.grad.unsqueeze(0) for p in network.parameters()]


def assert_gradients_equal(stack, tape, weights, networks, then_gradient) -> None:
    """Of (out * weights).sum(): by hand, and by autograd through `networks`."""
    mine = stack.gradient(tape, weights)
    assert [g.shape for g in mine] == [p.shape for p in stack.parameters()]
    for index, network in enumerate(networks):
        torch.testing.assert_close([gradient[index] for gradient in mine], gradients_of(network))
    torch.testing.assert_close(stack.then_gradient(tape, weights, then_gradient.shape[-1]), then_gradient)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)])
@pytest.mark.parametrize("out_dim", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_and_gradients_equal_those_of_ordinary_layers(activation, n, out_dim, hidden, layer_norm):
    torch.manual_seed(0)
    stack = MLPStack(n, 7, hidden, out_dim, activation, layer_norm).double()
    randomize(stack)
    x = torch.randn(10, 4, dtype=torch.float64)
    then = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(n, 10, out_dim, dtype=torch.float64)
    with torch.no_grad():
        out, tape = stack.run(x, then)
    assert out.shape == (n, 10, out_dim)
    networks = [plain(stack, index) for index in range(n)]
    for index, network in enumerate(networks):
        expected = network(torch.cat((x, then), -1))
        torch.testing.assert_close(out[index], expected)
        (expected * weights[index]).sum().backward()
    with torch.no_grad():
        assert_gradients_equal(stack, tape, weights, networks, then.grad)


@pytest.mark.parametrize("hidden", [(), (16, 8)])
@pytest.mark.parametrize(("heads", "share"), [(2, 1), (3, 4)])
def test_each_head_sees_its_block_of_rows_alone(heads, share, hidden):
    torch.manual_seed(0)
    stack = MLPStack(2, 5, hidden, heads * share, heads=heads).double()
    x = torch.randn(heads * 6, 3, dtype=torch.float64)
    then = torch.randn(heads * 6, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, heads * 6, share, dtype=torch.float64)
    with torch.no_grad():
        out, tape = stack.run(x, then)
    networks = [plain(stack, index) for index in range(2)]
    for index, network in enumerate(networks):
        every = network(torch.cat((x, then), -1)).view(heads, 6, heads, share)
        expected = torch.cat([every[i, :, i] for i in range(heads)])
        torch.testing.assert_close(out[index], expected)
        (expected * weights[index]).sum().backward()
    with torch.no_grad():
        assert_gradients_equal(stack, tape, weights, networks, then.grad)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_equal_finite_differences(activation, layer_norm):
    torch.manual_seed(1)
    stack = MLPStack(2, 5, (6, 4), 2, activation, layer_norm).double()
    randomize(stack)
    x, then = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    weights, step = torch.randn(2, 3, 2, dtype=torch.float64), 1e-6
    with torch.no_grad():
        tape = stack.run(x, then)[1]
        given = [*stack.gradient(tape, weights), stack.then_gradient(tape, weights, 2)]
        for moved, gradient in zip([*stack.parameters(), then], given, strict=True):
            direction = torch.randn_like(moved)
            moved.add_(step * direction)
            up = (stack(x, then) * weights).sum()
            moved.sub_(2 * step * direction)
            down = (stack(x, then) * weights).sum()
            moved.add_(step * direction)
            torch.testing.assert_close((gradient * direction).sum(), (up - down) / (2 * step), rtol=1e-5, atol=1e-7)


def randomize(stack: MLPStack) -> None:
    """Scales and shifts away from the 1 and 0 that they start with."""
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))


def test_forward_is_differentiable():
    stack = MLPStack(2, 5, (8,), 1)
    x, then = torch.randn(4, 3), torch.randn(4, 2, requires_grad=True)
    stack(x, then).sum().backward()
    with torch.no_grad():
        tape, ones = stack.run(x, then)[1], torch.ones(2, 4, 1)
        torch.testing.assert_close(stack.gradient(tape, ones), [p.grad for p in stack.parameters()])
        torch.testing.assert_close(stack.then_gradient(tape, ones, 2), then.grad)


def test_members_start_different_and_within_the_bound_of_linear_layers():
    weight = MLPStack(2, 64, (32,), 1).layers[0].weight
    assert not torch.equal(weight[0], weight[1])
    assert 0.9 / 8 < weight.abs().max() <= 1 / 8


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_network_with_some_outputs_as_ordinary_layers(activation, layer_norm):
    stack, x = MLPStack(3, 5, (8, 6), 4, activation, layer_norm), torch.randn(7, 5)
    randomize(stack)
    network = stack.sequential(1, slice(1, 3))
    torch.testing.assert_close(network(x), stack(x)[1, :, 1:3])
    shared = {p.data_ptr() for p in stack.parameters()} & {p.data_ptr() for p in network.parameters()}
    assert not shared


@pytest.mark.parametrize("layer_norm", [False, True])
def test_some_members_alone_are_those_members(layer_norm):
    stack, x = MLPStack(5, 3, (8,), 2, "relu", layer_norm), torch.randn(4, 3)
    randomize(stack)
    members = torch.tensor([3, 0])
    torch.testing.assert_close(stack.run(x, members=members)[0], stack(x)[members])
