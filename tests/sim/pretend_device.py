"""A device that is not there: tensors with the values of CPU tensors that claim to be elsewhere.

As on a real one, an operation on tensors of two devices fails, `numpy()` fails, and reading a value works. So code
runs as it would beside a GPU, and what it forgot to put there is found without one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

ELSEWHERE = torch.device("meta")
"""The one device beside the CPU that every torch has."""
READS_FROM_CPU = {"index", "index_put", "index_put_", "copy_", "_to_copy"}
"""Operations that take CPU tensors beside those of a GPU."""


class There(Tensor):
    """`here` is where its values really are."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "There":
        there = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
            device=ELSEWHERE,
        )  # fmt: skip
        there.here = here
        return there

    def __repr__(self, **kwargs: Any) -> str:
        return f"There({self.here!r})"

    def tolist(self) -> Any:
        return self.here.tolist()

    def new_tensor(self, data: Any, **kwargs: Any) -> Tensor:
        return There(self.here.new_tensor(data, **kwargs))

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert a tensor that is elsewhere to numpy; use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(function, args, kwargs or {})


def dispatch(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = any(isinstance(t, There) for t in tensors)
    name = function.__name__.split(".")[0]
    if there and name not in READS_FROM_CPU:
        strays = [t for t in tensors if not isinstance(t, There) and t.dim()]
        assert not strays, f"{name} of tensors on the CPU and elsewhere: {[tuple(t.shape) for t in strays]}"
    to = kwargs.get("device")
    if to is not None:
        there = torch.device(to).type == ELSEWHERE.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map_only(There, lambda t: t.here, (args, kwargs))
    result = function(*args, **kwargs)
    if name.endswith("_") and not name.endswith("__"):
        return None if result is None else next(t for t in tensors if getattr(t, "here", t) is result)
    return tree_map_only(Tensor, There, result) if there else result


class _Factories(TorchDispatchMode):
    """Tensors that are made there."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(function, args, kwargs or {})


class _Generator(torch.Generator):
    """Draws on the CPU, and says it were there."""

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        generator = super().__new__(cls, "cpu")
        generator.claims = torch.device(device)
        return generator

    @property
    def device(self) -> torch.device:
        return self.claims


def _constructor(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.tensor makes what is on "meta" without telling any mode."""

    def construct(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
        here = real(data, **kwargs)
        return here if device is None or torch.device(device) != ELSEWHERE else There(here)

    return construct


@contextmanager
def pretended_device() -> Iterator[None]:
    """Inside, ELSEWHERE is a device to compute on."""
    with (
        patch("torch.Generator", _Generator),
        patch("torch.tensor", _constructor(torch.tensor)),
        patch("torch.as_tensor", _constructor(torch.as_tensor)),
        _Factories(),
    ):
        yield
