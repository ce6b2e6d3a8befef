"""`robot-rl bench`: which benchmarks there are, and that each takes its own flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from robot_rl.commands import bench
from robot_rl.commands.main import EXIT_FAILED, EXIT_OK, EXIT_USAGE, main
from robot_rl.commands.result import Result, Row


@dataclass(frozen=True)
class Entry:
    """What the code uses of an installed entry point."""

    name: str
    loaded: Any

    def load(self) -> Any:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def count(rounds: int = 5, names: tuple[str, ...] = ("a", "b")) -> Result:
    """Counts rounds.

    Args:
        rounds: How often.
        names: Of what.
    """
    return Result(ok=rounds > 0, rows=tuple(Row(name, rounds) for name in names), reason="" if rounds else "no rounds")


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Entry("count", count), Entry("broken", ModuleNotFoundError("No module named 'mujoco'", name="mujoco"))]
    monkeypatch.setattr(bench, "entry_points", lambda group: entries if group == "robot_rl.benchmarks" else [])


def test_without_a_name_it_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in ((["bench"], EXIT_USAGE), (["bench", "--help"], EXIT_OK)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == code
        printed = capsys.readouterr().out
        assert "  count   which benchmarks there are, and that each takes its own flags." in printed.replace(
            "`robot-rl bench`: ", ""
        )
        assert "  broken  (not available: No module named 'mujoco')" in printed


def test_an_unknown_name_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "nothing"]) == EXIT_USAGE
    assert "unknown benchmark 'nothing'; valid: broken, count" in capsys.readouterr().err


def test_what_follows_the_name_are_its_own_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "count", "--rounds", "7", "--names", "x", "y"]) == EXIT_OK
    assert capsys.readouterr().out.split() == ["x", "7", "y", "7"]
    assert main(["bench", "count", "--rounds", "0"]) == EXIT_FAILED
    with pytest.raises(SystemExit) as ended:
        main(["bench", "count", "--round", "7"])
    assert ended.value.code == EXIT_USAGE
