"""Kernel: a function of tensors that stay where they are, compiled, and called without looking for them again."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from robot_rl.algorithms.compiling import compiled, require_compiler
from robot_rl.errors import EnvError
from robot_rl.replay.ring_buffer import Batch

Outputs = dict[str, Tensor]


class Kernel:
    """`function(*arguments) -> {name: tensor}` on a CPU. It may read, and write in place, any tensor that it reaches,
    as long as that is the same tensor at every call; everything else that it goes by is as it was at the first.

    torch.compile looks for these tensors at every call, and at all of Python that it went by. That is 20 µs, and 200
    where physics has driven Python out of the caches: more than what is computed here. A kernel looks for them once.
    """

    def __init__(self, function: Callable[..., Outputs], ahead_of_time: bool = True) -> None:
        """Raises ConfigError without the C++ compiler that this takes. Not `ahead_of_time`, what is compiled is kept on
        disk, a call costs 50 µs more, and arguments must have the strides of the first call."""
        require_compiler()
        self._traced = torch.compile(function, backend=self._compile, fullgraph=True, dynamic=False)
        self._ahead_of_time = ahead_of_time
        self._run: Callable[[list[Tensor]], list[Tensor]] | None = None
        self._tensors: list[Tensor] = []
        """All that the compiled code reads or writes."""
        self._outputs: list[Tensor] = []
        self._arguments: list[tuple[int, int]] = []
        """Which of the tensors is which argument."""
        self._results: list[tuple[str, bool, int]] = []
        """Name of each result, whether the code computes it, and which of its outputs or of the tensors it is."""
        self._given: tuple[tuple[torch.Size, torch.dtype], ...] = ()
        self._traces, self._checked = 0, False

    def __call__(self, *arguments: Tensor) -> Outputs:
        """The tensors are found at the first call. The second makes sure that they are the same. Raises EnvError if
        they are not, and for arguments of other shapes or types than at first."""
        given = tuple((a.shape, a.dtype) for a in arguments)
        if self._given and given != self._given:
            raise EnvError(f"compiled for {_described(self._given)}, called with {_described(given)}")
        if self._ahead_of_time:
            arguments = tuple(a.contiguous() for a in arguments)
        if not self._checked:
            self._given = given
            return self._find(arguments)
        assert self._run is not None
        tensors = self._tensors
        for place, i in self._arguments:
            tensors[place] = arguments[i]
        outputs = self._run(tensors)
        return {name: (outputs if computed else tensors)[i] for name, computed, i in self._results}

    def _find(self, arguments: tuple[Tensor, ...]) -> Outputs:
        before = self._tensors
        results = self._traced(*arguments)
        if self._traces > 1:
            raise EnvError("compiled code needs the settings, and the number of tensors, that it was compiled for")
        argument_ids, places = [id(a) for a in arguments], [id(t) for t in self._tensors]
        self._arguments = [(p, argument_ids.index(t)) for p, t in enumerate(places) if t in argument_ids]
        computed = [id(t) for t in self._outputs]
        self._results = [
            (name, True, computed.index(id(x))) if id(x) in computed else (name, False, places.index(id(x)))
            for name, x in results.items()
        ]
        if before:
            given = dict(self._arguments)
            moved = [
                i for i, (a, b) in enumerate(zip(before, self._tensors, strict=True))
                if i not in given and a.data_ptr() != b.data_ptr()
            ]  # fmt: skip
            if moved:
                shapes = [tuple(self._tensors[i].shape) for i in moved]
                raise EnvError(f"compiled code needs tensors that stay where they are; new ones of shapes {shapes}")
            self._checked = True
        return results

    def _compile(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., list[Tensor]]:
        """A backend of torch.compile: what it traced, with the tensors that it found as arguments."""

        def run(*tensors: Tensor) -> list[Tensor]:
            if self._run is None:
                self._run = (_ahead_of_time if self._ahead_of_time else _kept_on_disk)(graph, tensors)
            self._tensors = list(tensors)
            self._outputs = self._run(self._tensors)
            return self._outputs

        self._traces += 1
        return run


def _described(given: tuple[tuple[torch.Size, torch.dtype], ...]) -> str:
    return ", ".join(f"{tuple(shape)} of {str(dtype).removeprefix('torch.')}" for shape, dtype in given)


def _ahead_of_time(graph: torch.fx.GraphModule, tensors: tuple[Tensor, ...]) -> Callable[[list[Tensor]], list[Tensor]]:
    from torch._inductor import aoti_compile_and_package, aoti_load_package  # seconds, of no use without compiling

    with torch.no_grad(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's own parts about each other
        path = aoti_compile_and_package(
            torch.export.export(graph, tensors), package_path=str(Path(folder) / "kernel.pt2")
        )
        # Without the conversions around it: tensors in, tensors out.
        return aoti_load_package(path).loader.run  # pyright: ignore[reportAttributeAccessIssue]


def _kept_on_disk(graph: torch.fx.GraphModule, tensors: tuple[Tensor, ...]) -> Callable[[list[Tensor]], list[Tensor]]:
    from torch._inductor import config as inductor_config
    from torch._inductor.compile_fx import compile_fx

    with torch.no_grad(), inductor_config.patch(cpp_wrapper=True):
        run = cast(Callable[..., list[Tensor]], compile_fx(graph, list(tensors)))
    return lambda tensors: run(*tensors)


Update = Callable[..., tuple[Tensor, ...]]


class CompiledUpdate:
    """A learner's update(batch, *others) as kernels: one for each combination of shapes and strides of the tensors, and
    of values of what is none, among the fields of the batch and the others, and of numbers of torch threads."""

    def __init__(self, update: Update) -> None:
        """Raises ConfigError without a C++ compiler."""
        require_compiler()
        self._update = update
        self._kernels: dict[tuple[object, ...], Kernel] = {}

    def __call__(self, batch: Batch, *others: object) -> tuple[Tensor, ...]:
        given = [*(getattr(batch, name) for name in _FIELDS), *others]
        layout = ((x.shape, x.stride(), x.dtype) if isinstance(x, Tensor) else x for x in given)
        kind = (torch.get_num_threads(), *layout)
        kernel = self._kernels.get(kind)
        if kernel is None:
            kernel = self._kernels[kind] = Kernel(self._of_tensors(given), ahead_of_time=False)
        return tuple(kernel(*(x for x in given if isinstance(x, Tensor))).values())

    def _of_tensors(self, given: list[object]) -> Callable[..., Outputs]:
        """The update as a function of the tensors among what is given, the rest being fixed."""
        fixed = [None if isinstance(x, Tensor) else x for x in given]
        places = [i for i, x in enumerate(given) if isinstance(x, Tensor)]
        update = self._update

        def of_tensors(*tensors: Tensor) -> Outputs:
            arguments = list(fixed)
            for place, tensor in zip(places, tensors, strict=True):
                arguments[place] = tensor
            results = update(Batch(*arguments[: len(_FIELDS)]), *arguments[len(_FIELDS) :])  # pyright: ignore[reportArgumentType]
            return {str(i): result for i, result in enumerate(results)}

        # A code of its own: torch.compile counts how many functions it has made of one.
        of_tensors.__code__ = of_tensors.__code__.replace()
        return of_tensors


_FIELDS = tuple(field.name for field in fields(Batch))


def compiled_update(update: Update, device: torch.device) -> Update:
    """A learner's update, compiled. Raises ConfigError without the C++ compiler that this takes on a CPU."""
    return CompiledUpdate(update) if device.type == "cpu" else compiled(update, device)
