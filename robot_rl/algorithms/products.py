"""Float32 matrix products on a CPU: by oneDNN where it computes them twice as fast as MKL does.

Torch multiplies float32 matrices with MKL, which on processors that are not Intel's uses half the width of AVX-512: 100
GFLOP/s on a core of an AMD Zen 5 whose peak is 248, where oneDNN, which torch has for other types, reaches 216. Torch
asks oneDNN for float32 only if told that bfloat16 is precise enough; but without AMX, which alone multiplies faster
that way, oneDNN makes no use of that and computes in float32. `full_precision` makes sure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

_MATMUL: Any = getattr(torch.backends.mkldnn, "matmul", None)
"""oneDNN's setting for products; torch before 2.9 has none."""


@contextmanager
def quick_products() -> Iterator[None]:
    """As a context, or the decorator of a function: float32 products inside of it are oneDNN's, where the processor has
    AVX-512 and no AMX, and if the user has not set `torch.backends.mkldnn.matmul.fp32_precision`. Results stay float32
    ones, in another order of summation."""
    if not full_precision() or _MATMUL.fp32_precision != "none":
        yield
        return
    _MATMUL.fp32_precision = "bf16"
    try:
        yield
    finally:
        _MATMUL.fp32_precision = "none"


@cache
def full_precision() -> bool:
    """Whether oneDNN, allowed to round to bfloat16, is expected not to on this processor, and did not when tried."""
    if _MATMUL is None or not torch.backends.mkldnn.is_available():
        return False
    has = torch.cpu.get_capabilities()
    if not has.get("avx512_f") or has.get("amx_tile"):
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, 64, generator=generator) for _ in range(2))
    before, _MATMUL.fp32_precision = _MATMUL.fp32_precision, "bf16"
    try:
        error = (torch.mm(a, b).double() - a.double() @ b.double()).abs().max()
    finally:
        _MATMUL.fp32_precision = before
    return error.item() < 1e-4  # float32: 1e-5; a product of bfloat16 numbers: 1e-1
