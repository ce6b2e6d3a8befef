"""The GPU benchmark: tried out on the CPU, and whole where there is a GPU."""

import json
import subprocess
import sys

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl_sim import benchmark_gpu


def test_every_rate_of_every_number_of_worlds_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_gpu, "training_rate", lambda *args: 1.0)  # has a test of its own
    result = benchmark_gpu.benchmark("leap-reach", (2, 4), device="cpu", backend="warp", seconds=0.05)
    kinds = ("physics", "env", "training")
    assert [row.name for row in result.rows] == [f"sim/leap-reach/{n}/{kind}" for n in (2, 4) for kind in kinds]
    for physics, env in (result.rows[:2], result.rows[3:5]):
        assert isinstance(physics.value, float)
        assert isinstance(env.value, float)
        assert physics.value > env.value > 1.0
    assert torch.__version__ in result.details["hardware"]


@pytest.mark.slow
def test_training_is_measured() -> None:
    assert benchmark_gpu.training_rate("leap-reach", 2, "cpu", "warp", steps=8, batch_size=8) > 0


def test_the_default_task_stands_beside_what_was_published() -> None:
    row = benchmark_gpu._row(benchmark_gpu.TASK, 4096, "env", 47_000.0)
    assert (row.reference, row.ratio) == ("RTX 4090, published", 0.5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(ConfigError, match="sees no CUDA device"):
        benchmark_gpu.benchmark()


@pytest.mark.gpu
def test_the_documented_command(tmp_path) -> None:
    command = [sys.executable, "-m", "robot_rl_sim.benchmark_gpu", "--num-envs", "256", "--training-steps", "40"]
    subprocess.run(command, cwd=tmp_path, check=True)
    rows = json.loads((tmp_path / "runs/gpu/sim.json").read_text())["rows"]
    assert all(row["value"] > 1000 for row in rows)
