"""Kernel: a function of tensors that stay where they are, compiled ahead of time to one call into C++."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch._inductor import aoti_compile_and_package, aoti_load_package

from robot_rl.algorithms.compiling import require_compiler
from robot_rl.errors import EnvError

Outputs = dict[str, Tensor]


class Kernel:
    """`function(*arguments) -> {name: tensor}` on a CPU. It may read, and write in place, any tensor that it reaches,
    as long as that is the same tensor at every call; everything else that it goes by is as it was at the first.

    torch.compile looks for these tensors at every call, and at all of Python that it went by. That is 20 µs, and 200
    where physics has driven Python out of the caches: more than what is computed here. A kernel looks for them once.
    """

    def __init__(self, function: Callable[..., Outputs]) -> None:
        """Raises ConfigError without the C++ compiler that this takes."""
        require_compiler()
        self._traced = torch.compile(function, backend=self._compile, fullgraph=True, dynamic=False)
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
                self._run = _ahead_of_time(graph, tensors)
            self._tensors = list(tensors)
            self._outputs = self._run(self._tensors)
            return self._outputs

        self._traces += 1
        return run


def _described(given: tuple[tuple[torch.Size, torch.dtype], ...]) -> str:
    return ", ".join(f"{tuple(shape)} of {str(dtype).removeprefix('torch.')}" for shape, dtype in given)


def _ahead_of_time(graph: torch.fx.GraphModule, tensors: tuple[Tensor, ...]) -> Callable[[list[Tensor]], list[Tensor]]:
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's own parts about each other
        path = aoti_compile_and_package(
            torch.export.export(graph, tensors), package_path=str(Path(folder) / "kernel.pt2")
        )
        # Without the conversions around it: tensors in, tensors out.
        return aoti_load_package(path).loader.run  # pyright: ignore[reportAttributeAccessIssue]
