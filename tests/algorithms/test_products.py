"""Float32 products by oneDNN: full precision, only where asked for, and a user's own setting stays."""

import pytest
import torch

from robot_rl.algorithms import products
from robot_rl.algorithms.arsq import ARSQ, ARSQConfig
from robot_rl.algorithms.dsact import DSACT, DSACTConfig
from robot_rl.algorithms.products import full_precision, quick_products
from robot_rl.algorithms.sac import SAC, SACConfig
from robot_rl.replay.ring_buffer import Batch

matmul = torch.backends.mkldnn.matmul
SHAPES = [(2, 256, 365, 256), (10, 256, 45, 256), (1, 4096, 98, 512), (2, 33, 7, 3)]


@pytest.fixture
def as_if_new(monkeypatch):
    """Whatever this processor is, `full_precision` finds out anew."""
    full_precision.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    full_precision.cache_clear()


@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_as_precise_as_float32(shape):
    n, rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, rows, inner, generator=generator)
    b = torch.randn(n, inner, columns, generator=generator)
    exact = a.double() @ b.double()
    plain = (torch.bmm(a, b) - exact).abs().max()
    with quick_products():
        quick, transposed = torch.bmm(a, b), torch.bmm(b.mT, a.mT).mT
    # Another order of summation; products of numbers rounded to bfloat16 would be several thousand times as wrong.
    assert (quick - exact).abs().max() < 8 * plain
    assert (transposed - exact).abs().max() < 8 * plain


def test_it_ends_with_the_context_also_by_an_exception(as_if_new):
    as_if_new.setattr(products, "full_precision", lambda: True)
    with quick_products():
        assert matmul.fp32_precision == "bf16"
        with quick_products():
            assert matmul.fp32_precision == "bf16"
        assert matmul.fp32_precision == "bf16"
    assert matmul.fp32_precision == "none"
    with pytest.raises(ZeroDivisionError), quick_products():
        _ = 1 / 0
    assert matmul.fp32_precision == "none"


@pytest.mark.parametrize("own", ["ieee", "bf16"])
def test_what_a_user_has_set_stays(as_if_new, own):
    as_if_new.setattr(products, "full_precision", lambda: True)
    matmul.fp32_precision = own
    try:
        with quick_products():
            assert matmul.fp32_precision == own
        assert matmul.fp32_precision == own
    finally:
        matmul.fp32_precision = "none"


@pytest.mark.parametrize("has", [{}, {"avx2": True}, {"avx512_f": True, "amx_tile": True}])
def test_not_on_processors_where_it_would_round_or_gain_nothing(as_if_new, has):
    as_if_new.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert not full_precision()
    with quick_products():
        assert matmul.fp32_precision == "none"


def test_not_where_a_product_turns_out_to_be_rounded(as_if_new):
    as_if_new.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})
    as_if_new.setattr(torch, "mm", lambda a, b: a.bfloat16().float() @ b.bfloat16().float())
    assert not full_precision()
    assert matmul.fp32_precision == "none"


@pytest.mark.parametrize(
    "algorithm",
    [
        SAC(SACConfig(actor_hidden=(8,), critic_hidden=(8,)), 3, 2),
        DSACT(DSACTConfig(actor_hidden=(8,), critic_hidden=(8,)), 3, 2),
        ARSQ(ARSQConfig(hidden=(8,)), 3, 2),
    ],
    ids=["sac", "dsact", "arsq"],
)
def test_algorithms_learn_and_act_with_them(as_if_new, algorithm):
    as_if_new.setattr(products, "full_precision", lambda: True)
    seen: list[str] = []
    normalizer = algorithm.normalizer
    as_if_new.setattr(
        type(normalizer), "forward", lambda self, x: seen.append(matmul.fp32_precision) or x, raising=False
    )
    obs, zeros = torch.randn(4, 3), torch.zeros(4)
    algorithm.act(obs)
    assert seen == ["bf16"]
    algorithm.update(Batch(obs, torch.rand(4, 2), zeros, zeros, zeros, obs))
    assert len(seen) > 1
    assert set(seen) == {"bf16"}
    assert matmul.fp32_precision == "none"
