"""Bundles that several files of tests run."""

from pathlib import Path

import pytest
from controller_rig import tiny

from robot_rl.robots import LEAP_HAND, UNITREE_G1


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {r.name: tiny(r).write(folder / r.name) for r in (LEAP_HAND, UNITREE_G1)}
