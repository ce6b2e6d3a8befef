"""The GPU benchmark: tried out on the CPU, and whole where there is a GPU."""

import pytest
import torch

from robot_rl.benchmarks import gpu
from robot_rl.errors import ConfigError


def test_every_learner_in_every_form_stands_beside_its_plain_form(monkeypatch):
    monkeypatch.setattr(gpu, "FORMS", {name: gpu.FORMS[name] for name in ("plain", "bf16")})  # compiling takes minutes
    result = gpu.benchmark("point-mass", num_envs=4, device="cpu", batch_size=8, updates=2, env_steps=80)
    names = [row.name for row in result.rows]
    assert names == [
        f"learner/{learner}/point-mass/{kind}/{form}"
        for learner in ("fastsac", "dsact")
        for form in ("plain", "bf16")
        for kind in ("updates", "end-to-end")
    ]
    assert all(row.value > 0 and row.reference == "plain" for row in result.rows)
    assert torch.__version__ in result.details["hardware"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(ConfigError, match="sees no CUDA device"):
        gpu.benchmark()
