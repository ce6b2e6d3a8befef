"""Between tensor descriptors and torch."""

from isaacgym.gymapi import Tensor


def wrap_tensor(descriptor):
    assert isinstance(descriptor, Tensor)
    return descriptor.data


def unwrap_tensor(tensor):
    if not tensor.is_contiguous():
        raise Exception("Input tensor must be contiguous")
    return Tensor(tensor)
