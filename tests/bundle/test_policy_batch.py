"""Many rows at once compute what one row at a time does, whether or not the graph's batch is free."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.robots import UNITREE_G1
from robot_rl.testing.bundles import TinyPolicy

TINY = TinyPolicy(UNITREE_G1)
SHIPPED = Path(__file__).parents[2] / "policies" / "leap_hand" / "leap-reach" / "v1"


def one_row_graph() -> bytes:
    model = onnx.load_from_string(TINY.onnx_bytes())
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return model.SerializeToString()


@pytest.mark.parametrize("graph", [TINY.onnx_bytes, one_row_graph])
def test_a_batch_is_what_numpy_computes_from_it(graph) -> None:
    policy = OnnxPolicy(graph(), TINY.contract())
    golden = TINY.golden(rows=33)
    outputs = policy.run_batch({t.name: golden[f"in/{t.name}"] for t in TINY.contract().inputs})
    assert set(outputs) == {t.name for t in TINY.contract().outputs}
    for name, value in outputs.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, golden[f"out/{name}"], atol=2e-6, err_msg=name)


def test_the_shipped_policy_in_a_batch_is_the_one_that_a_robot_runs() -> None:
    bundle = load_bundle(SHIPPED)
    inputs = {t.name: bundle.golden[f"in/{t.name}"] for t in bundle.contract.inputs}
    batch = bundle.policy.run_batch(inputs)
    for row in range(len(inputs["joint_pos"])):
        single = bundle.policy.run({name: value[row] for name, value in inputs.items()})
        for name, value in single.items():
            np.testing.assert_allclose(batch[name][row], value[0], atol=2e-6, err_msg=name)


def test_rows_of_the_wrong_size_are_refused() -> None:
    policy = OnnxPolicy(TINY.onnx_bytes(), TINY.contract())
    rows = {t.name: np.zeros((4, *t.shape), np.float32) for t in TINY.contract().inputs}
    with pytest.raises(ValueError, match="'last_target' has shape"):
        policy.run_batch({**rows, "last_target": np.zeros((3, *rows["last_target"].shape[1:]), np.float32)})
    with pytest.raises(KeyError, match="velocity"):
        policy.run_batch({n: v for n, v in rows.items() if n != "velocity"})
