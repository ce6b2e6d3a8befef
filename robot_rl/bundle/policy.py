"""A policy as onnxruntime runs it: on a robot one row through buffers that are bound once, in simulation many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from robot_rl.bundle.manifest import POLICY_FILE
from robot_rl.contract import Contract, TensorSpec
from robot_rl.errors import BundleError

Array = NDArray[np.float32]

# A tensor kept outside the file is a StringStringEntryProto of key "location" (onnx.proto, TensorProto.external_data):
# field 1, length-delimited, 8 bytes. Searching for it needs no ONNX parser.
_EXTERNAL_DATA = b"\x0a\x08location"


class OnnxPolicy:
    """The whole policy graph on one CPU thread. Not thread-safe: it owns its buffers.

    Raises BundleError if the graph cannot be loaded, keeps weights in another file, or differs from the contract in the
    name, shape or type of any input or output.
    """

    def __init__(self, model: bytes, contract: Contract) -> None:
        if _EXTERNAL_DATA in model:
            raise BundleError(f"{POLICY_FILE}: keeps weights in an external data file; export it as one file")
        options = onnxruntime.SessionOptions()
        # One thread: a policy is too small to share, and a waiting thread that spins takes the core from the driver.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise BundleError(
                f"{POLICY_FILE}: onnxruntime {onnxruntime.__version__} cannot load it: {cause}"
            ) from error
        _check_tensors("input", contract.inputs, self._session.get_inputs())
        _check_tensors("output", contract.outputs, self._session.get_outputs())
        nodes = (*self._session.get_inputs(), *self._session.get_outputs())
        self._free_batch = not any(node.shape and isinstance(node.shape[0], int) for node in nodes)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._inputs = {t.name: np.zeros((1, *t.shape), np.float32) for t in contract.inputs}
        # All outputs lie in one array, so that one copy serves them all.
        self._output, self._views = _joint_buffer(contract.outputs)
        self._binding = self._session.io_binding()
        for name, buffer in self._inputs.items():
            self._binding.bind_input(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
        for name, span, shape in self._views:
            buffer = self._output[span].reshape(shape)
            self._binding.bind_output(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        """Evaluate once: every contract input, as (1, *shape) or shape, to new output arrays (1, *shape).

        Raises KeyError for a missing input and ValueError for one of the wrong size.
        """
        for name, buffer in self._inputs.items():
            value = inputs[name]
            if value.shape != buffer.shape and value.shape != buffer.shape[1:]:
                raise ValueError(f"input {name!r} has shape {value.shape}, the policy takes {buffer.shape}")
            buffer[...] = value
        self._session.run_with_iobinding(self._binding)
        output = self._output.copy()
        return {name: output[span].reshape(shape) for name, span, shape in self._views}

    def run_batch(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        """Evaluate n rows: every contract input, as (n, *shape), to new arrays (n, *shape). For simulations: a graph
        whose batch is free takes all rows at once, another takes them one by one.

        Raises KeyError for a missing input and ValueError for one of the wrong size.
        """
        values = {name: np.ascontiguousarray(inputs[name], np.float32) for name in self._inputs}
        rows = len(next(iter(values.values())))
        for name, value in values.items():
            expected = (rows, *self._inputs[name].shape[1:])
            if value.shape != expected:
                raise ValueError(f"input {name!r} has shape {value.shape}, the policy takes {expected}")
        names = [name for name, _, _ in self._views]
        if self._free_batch:
            results = self._session.run(names, values)
            return {name: np.asarray(value, np.float32) for name, value in zip(names, results, strict=True)}
        outputs = [self.run({name: value[i] for name, value in values.items()}) for i in range(rows)]
        return {name: np.concatenate([output[name] for output in outputs]) for name in names}


_ALIGNMENT = 16
"""Outputs start at multiples of this many floats (64 bytes), as onnxruntime's own allocations do."""


def _joint_buffer(specs: tuple[TensorSpec, ...]) -> tuple[Array, list[tuple[str, slice, tuple[int, ...]]]]:
    """One array for all tensors, and (name, where it lies, shape) of each."""
    views, start = [], 0
    for spec in specs:
        size = math.prod(spec.shape)
        views.append((spec.name, slice(start, start + size), (1, *spec.shape)))
        start += -(-size // _ALIGNMENT) * _ALIGNMENT
    return np.zeros(start, np.float32), views


def _check_tensors(kind: str, specs: tuple[TensorSpec, ...], nodes: Sequence[Any]) -> None:
    expected, found = [s.name for s in specs], [n.name for n in nodes]
    if sorted(expected) != sorted(found):
        missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        raise BundleError(
            f"{POLICY_FILE}: {kind}s differ from the contract: graph lacks {missing}, contract lacks {extra}"
        )
    nodes_by_name = {n.name: n for n in nodes}
    for spec in specs:
        node = nodes_by_name[spec.name]
        if node.type != "tensor(float)":
            raise BundleError(f"{POLICY_FILE}: {kind} {spec.name!r} has type {node.type}, expected tensor(float)")
        # The leading dimension is the batch: free (a name) or 1.
        batch, *shape = node.shape or [None]
        if tuple(shape) != spec.shape or not (batch == 1 or not isinstance(batch, int)):
            raise BundleError(
                f"{POLICY_FILE}: {kind} {spec.name!r} has shape {node.shape}, the contract says (batch, "
                f"{', '.join(map(str, spec.shape))})"
            )
