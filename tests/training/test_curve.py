"""The learning curve: what progress.csv says is drawn, and nothing where a cell is empty."""

from pathlib import Path

import pytest

from robot_rl.errors import ConfigError
from robot_rl.training import curve


def test_rows_without_a_value_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "progress.csv").write_text("step,episode_return,success,eval_success\n1000,5,,\n2000,7,0.5,0.25\n")
    columns = curve._columns(tmp_path)
    assert curve._known(columns, "episode_return") == ([1.0, 2.0], [5.0, 7.0])
    assert curve._known(columns, "eval_success") == ([2.0], [0.25])
    assert curve._known(columns, "eval_return") == ([], [])


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "progress.csv").write_text("step,episode_return,success,eval_success\n1000,5,,\n2000,7,0.5,0.25\n")
    curve.plot([tmp_path], tmp_path / "plots" / "curve.png")
    assert (tmp_path / "plots" / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="nowhere"):
        curve.plot([tmp_path / "nowhere"], tmp_path / "curve.png")
