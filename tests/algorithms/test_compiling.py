import pytest
import torch

from robot_rl.algorithms.compiling import compiled
from robot_rl.algorithms.dsact import DSACT, DSACTConfig
from robot_rl.algorithms.sac import SAC, SACConfig
from robot_rl.errors import ConfigError


@pytest.mark.parametrize(
    "make", [lambda: SAC(SACConfig(compile=True), 3, 2), lambda: DSACT(DSACTConfig(compile=True), 3, 2)]
)
def test_a_missing_compiler_is_named_at_construction(make, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="'no-such-compiler' is not on the PATH"):
        make()


def test_a_gpu_needs_no_compiler_of_ours(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert callable(compiled(lambda x: x, torch.device("cuda")))
