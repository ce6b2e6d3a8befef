from collections.abc import Iterator
from pathlib import Path

import pytest

from robot_rl.testing.servo_line import ServoLine

EXAMPLE = Path(__file__).parents[2] / "hardware" / "units" / "leap-example.yaml"


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[ServoLine]:
    """A LEAP hand's servos."""
    line = ServoLine(tmp_path, EXAMPLE)
    yield line
    line.close()
