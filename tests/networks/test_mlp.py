"""The hand-written gradients against autograd through ordinary layers, and against finite differences."""

import math

import pytest
import torch
from torch import nn

from robot_rl.networks.mlp import ACTIVATIONS, MLPStack


def plain(stack: MLPStack, index: int) -> nn.Sequential:
    """The same network from torch's own layers, built here from the flat vector by its documented layout."""
    modules: list[nn.Module] = []
    flat, offset = stack.flat.detach(), 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal offset
        size = math.prod(shape)
        offset += size
        return flat[offset - size : offset].view(shape)

    for shapes in stack.shapes:
        n, i, o = shapes[0]
        linear = nn.Linear(i, o, dtype=flat.dtype)
        linear.load_state_dict({"weight": take(n, i, o)[index].T, "bias": take(n, o)[index]})
        modules.append(linear)
        if len(shapes) == 4:
            norm = nn.LayerNorm(o, dtype=flat.dtype)
            norm.load_state_dict({"weight": take(n, o)[index], "bias": take(n, o)[index]})
            modules.append(norm)
        modules.append(ACTIVATIONS[stack.activation]())
    return nn.Sequential(*modules[:-1])


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
    out = stack(x, then)
    assert out.shape == (n, 10, out_dim)
    (out * weights).sum().backward()
    then_gradient = torch.zeros_like(then)
    for index in range(n):
        network, same_then = plain(stack, index), then.detach().clone().requires_grad_()
        expected = network(torch.cat((x, same_then), -1))
        torch.testing.assert_close(out[index], expected)
        (expected * weights[index]).sum().backward()
        then_gradient += same_then.grad
        gradients = stack.layers(stack.flat.grad)
        for layer, linear in zip(gradients, [m for m in network if isinstance(m, nn.Linear)], strict=True):
            torch.testing.assert_close(layer.weight[index].T, linear.weight.grad)
            torch.testing.assert_close(layer.bias[index, 0], linear.bias.grad)
        for layer, norm in zip(gradients, [m for m in network if isinstance(m, nn.LayerNorm)], strict=False):
            torch.testing.assert_close(layer.scale[index, 0], norm.weight.grad)
            torch.testing.assert_close(layer.shift[index, 0], norm.bias.grad)
    torch.testing.assert_close(then.grad, then_gradient)


@pytest.mark.parametrize("hidden", [(), (16, 8)])
@pytest.mark.parametrize(("heads", "share"), [(2, 1), (3, 4)])
def test_each_head_sees_its_block_of_rows_alone(heads, share, hidden):
    torch.manual_seed(0)
    stack = MLPStack(2, 5, hidden, heads * share, heads=heads).double()
    x = torch.randn(heads * 6, 3, dtype=torch.float64)
    then = torch.randn(heads * 6, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, heads * 6, share, dtype=torch.float64)
    out = stack(x, then)
    (out * weights).sum().backward()
    then_gradient = torch.zeros_like(then)
    for index in range(2):
        network, same_then = plain(stack, index), then.detach().clone().requires_grad_()
        every = network(torch.cat((x, same_then), -1)).view(heads, 6, heads, share)
        expected = torch.cat([every[i, :, i] for i in range(heads)])
        torch.testing.assert_close(out[index], expected)
        (expected * weights[index]).sum().backward()
        then_gradient += same_then.grad
        for layer, linear in zip(stack.layers(stack.flat.grad), network[::2], strict=True):
            torch.testing.assert_close(layer.weight[index].T, linear.weight.grad)
            torch.testing.assert_close(layer.bias[index, 0], linear.bias.grad)
    torch.testing.assert_close(then.grad, then_gradient)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_equal_finite_differences(activation, layer_norm):
    torch.manual_seed(1)
    stack = MLPStack(2, 5, (6, 4), 2, activation, layer_norm).double()
    randomize(stack)
    x, then = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    def function(flat, then):
        return torch.func.functional_call(stack, {"flat": flat}, (x, then))

    assert torch.autograd.gradcheck(function, (stack.flat.detach().clone().requires_grad_(), then))


def randomize(stack: MLPStack) -> None:
    """Scales and shifts away from the 1 and 0 that they start with."""
    with torch.no_grad():
        stack.flat.add_(0.2 * torch.randn_like(stack.flat))


def test_frozen_parameters_get_no_gradient_and_the_input_the_same():
    stack = MLPStack(2, 5, (8,), 1)
    x, then = torch.randn(4, 3), torch.randn(4, 2, requires_grad=True)
    (trained,) = torch.autograd.grad(stack(x, then).sum(), then)
    stack(x, then, frozen=True).sum().backward()
    assert stack.flat.grad is None
    torch.testing.assert_close(then.grad, trained)


def test_members_start_different_and_within_the_bound_of_linear_layers():
    weight = MLPStack(2, 64, (32,), 1).layers(MLPStack(2, 64, (32,), 1).flat)[0].weight
    assert not torch.equal(weight[0], weight[1])
    assert 0.9 / 8 < weight.abs().max() <= 1 / 8


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_network_with_some_outputs_as_ordinary_layers(activation, layer_norm):
    stack, x = MLPStack(3, 5, (8, 6), 4, activation, layer_norm), torch.randn(7, 5)
    randomize(stack)
    network = stack.sequential(1, slice(1, 3))
    torch.testing.assert_close(network(x), stack(x)[1, :, 1:3])
    assert not any(p.data_ptr() == stack.flat.data_ptr() for p in network.parameters())


@pytest.mark.parametrize("layer_norm", [False, True])
def test_some_members_alone_are_those_members(layer_norm):
    stack, x = MLPStack(5, 3, (8,), 2, "relu", layer_norm), torch.randn(4, 3)
    randomize(stack)
    members = torch.tensor([3, 0])
    torch.testing.assert_close(stack.run(x, members=members)[0], stack(x)[members])
