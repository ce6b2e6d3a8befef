"""A policy as onnxruntime runs it: on a robot one row through buffers that are bound once, in simulation many."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from robot_rl.bundle.graph_check import check_graph
from robot_rl.bundle.manifest import POLICY_FILE
from robot_rl.bundle.memory_limit import memory_limit
from robot_rl.contract import Contract, TensorSpec
from robot_rl.errors import BundleError

Array = NDArray[np.float32]

MOST_ELEMENTS = 2**20
"""Of one input or output."""
MEMORY_BYTES = 2**31
"""Beyond what the process has, while a graph is loaded and tried."""
TRIAL_S = 5.0
"""For one evaluation; policies take less than a thousandth."""


class OnnxPolicy:
    """The whole policy graph on one CPU thread. Not thread-safe: it owns its buffers.

    Raises BundleError if the graph cannot be loaded, is more than a plain policy (see graph_check), differs from the
    contract in the name, shape or type of any input or output, or takes absurdly much memory or time.
    """

    def __init__(self, model: bytes, contract: Contract) -> None:
        check_graph(model)
        _check_sizes(contract)
        with memory_limit(MEMORY_BYTES):
            # Optimising evaluates what is constant in the graph: first see, without, that it takes neither all memory
            # nor all time.
            trial = _session(model, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
            _check_tensors("input", contract.inputs, trial.get_inputs())
            _check_tensors("output", contract.outputs, trial.get_outputs())
            _try(trial, contract)
            self._session = _session(model, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
        nodes = (*self._session.get_inputs(), *self._session.get_outputs())
        self._free_batch = not any(node.shape and isinstance(node.shape[0], int) for node in nodes)
        try:
            self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise BundleError(f"{POLICY_FILE}: its metadata is no UTF-8 text: {error}") from error
        self._inputs = {t.name: np.zeros((1, *t.shape), np.float32) for t in contract.inputs}
        # All outputs lie in one array, so that one copy serves them all.
        self._output, self._views = _joint_buffer(contract.outputs)
        self._binding = self._session.io_binding()
        for name, buffer in self._inputs.items():
            self._binding.bind_input(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
        for name, span, shape in self._views:
            buffer = self._output[:, span].reshape(shape)
            self._binding.bind_output(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        """Evaluate once: every contract input, as (1, *shape) or shape, to new output arrays (1, *shape).

        Raises KeyError for a missing input and ValueError for one of the wrong size.
        """
        for name, buffer in self._inputs.items():
            value = inputs[name]
            shape, own = value.shape, buffer.shape
            if shape != own and shape != own[1:]:
                raise ValueError(f"input {name!r} has shape {shape}, the policy takes {own}")
            buffer[...] = value
        self._session.run_with_iobinding(self._binding)
        output = self._output.copy()
        # Almost all of them are (1, n) as they are.
        return {
            name: output[:, span] if len(shape) == 2 else output[:, span].reshape(shape)
            for name, span, shape in self._views
        }

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


def _session(model: bytes, optimization: onnxruntime.GraphOptimizationLevel) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread: a policy is too small to share, and a waiting thread that spins takes the core from the driver.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    options.graph_optimization_level = optimization
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(
            f"{POLICY_FILE}: onnxruntime {onnxruntime.__version__} cannot load it: {_first_line(error)}"
        ) from error


def _try(session: onnxruntime.InferenceSession, contract: Contract) -> None:
    """Evaluate once on zeros. Raises BundleError if it fails, or takes longer than TRIAL_S."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    deadline = threading.Timer(TRIAL_S, lambda: setattr(options, "terminate", True))
    deadline.daemon = True
    deadline.start()
    try:
        session.run(None, {t.name: np.zeros((1, *t.shape), np.float32) for t in contract.inputs}, options)
    except Exception as error:
        why = f"takes longer than {TRIAL_S:g} s" if options.terminate else _first_line(error)
        raise BundleError(f"{POLICY_FILE}: cannot be evaluated: {why}") from error
    finally:
        deadline.cancel()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def _check_sizes(contract: Contract) -> None:
    for spec in (*contract.inputs, *contract.outputs):
        if math.prod(spec.shape) > MOST_ELEMENTS:
            raise BundleError(f"tensor {spec.name!r} has shape {spec.shape}; the most is {MOST_ELEMENTS} elements")


_ALIGNMENT = 16
"""Outputs start at multiples of this many floats (64 bytes), as onnxruntime's own allocations do."""


def _joint_buffer(specs: tuple[TensorSpec, ...]) -> tuple[Array, list[tuple[str, slice, tuple[int, ...]]]]:
    """One array (1, n) for all tensors, and (name, where it lies, shape) of each."""
    views, start = [], 0
    for spec in specs:
        size = math.prod(spec.shape)
        views.append((spec.name, slice(start, start + size), (1, *spec.shape)))
        start += -(-size // _ALIGNMENT) * _ALIGNMENT
    return np.zeros((1, start), np.float32), views


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
