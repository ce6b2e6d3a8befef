"""`robot-rl faults` as a user runs it: files, rows, exit code, and what fails named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robot_rl.commands.result import Result
from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.checks import Cause, Severity
from robot_rl.testing.bundles import TinyPolicy
from robot_rl_sim.commands.faults import FaultsArgs, run
from robot_rl_sim.faults import table
from robot_rl_sim.faults.expect import Expect
from robot_rl_sim.faults.over_ros import RosReport, write_report
from robot_rl_sim.faults.page import rows
from robot_rl_sim.faults.table import Case


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyPolicy(LEAP_HAND, command_dim=0).write(tmp_path_factory.mktemp("bundle") / "tiny.zip")


def run_faults(bundle: Path, out: Path, *only: str) -> Result:
    return run(FaultsArgs(bundle, only=only, seeds=1, out=out))


def test_table_and_rows(bundle: Path, tmp_path: Path) -> None:
    result = run_faults(bundle, tmp_path, "estop", "command_lost/one", "command_lost/lasting")
    assert result.ok, result.reason
    values = {row.name: row for row in result.rows}
    assert values["fault/estop/pressed/detected"].value is True
    assert values["fault/estop/pressed/mode"].value == "fault"
    assert values["fault/command_lost/one/detected"].value == "tolerated"
    # No state at a loop of 100 Hz is older than a period and a reading, no command lives longer than 0.1 s.
    assert 0.07 < values["fault/command_lost/lasting/latency_s"].value <= 0.1  # type: ignore[operator]
    assert values["fault/command_lost/lasting/threshold_s"].value == pytest.approx(0.1)
    assert values["fault/command_lost/lasting/joint_pos_rad/filter_off"].value is not None
    data = json.loads((tmp_path / "faults.json").read_text())
    assert set(data["faults"]) == {"estop/pressed", "command_lost/one", "command_lost/lasting"}
    page = (tmp_path / "FAULTS.md").read_text()
    assert page.startswith("# Faults: passed")
    assert "| command_lost/one | ok | tolerated |" in page
    assert "| command_lost/one | the one before still lives |" in page
    assert "](FAULTS.png)" in page
    assert (tmp_path / "FAULTS.png").read_bytes().startswith(b"\x89PNG")


def test_a_fault_that_is_not_noticed_is_named(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Expect((Cause.TILT,), Severity.DAMP, lambda limits: 0.1)
    case = Case("nothing", "happens", table.FAULTS[0].make, nothing)
    monkeypatch.setattr(table, "FAULTS", (case,))
    result = run_faults(bundle, tmp_path)
    assert not result.ok
    assert result.reason == "1 of 1 faults failed: nothing/happens (not detected, with 1 of 1 seeds)"
    assert (tmp_path / "FAULTS.md").read_text().startswith(f"# Faults: FAILED\n\n{result.reason}.")


def test_wrong_use_is_refused_with_what_is_valid(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"valid: .*estop/pressed"):
        run_faults(bundle, tmp_path, "earthquake")
    with pytest.raises(ConfigError, match="at least 1"):
        run(FaultsArgs(bundle, seeds=0))


def test_the_page_of_a_run_over_ros(tmp_path: Path) -> None:
    seen = {
        "threshold_s": 0.05,
        "latency_s": 0.06,
        "cause": "state_stale",
        "mode": "damp",
        "robot_damped": True,
        "attempts": 1,
    }
    report = RosReport(tmp_path, {"drop_state/lasting": {**seen, "problem": ""}, "x/y": {**seen, "problem": "late"}})
    assert report.reason == "1 of 2 faults failed: x/y (late)"
    latency = next(r for r in rows(report.outcomes, "ros") if r.name == "ros/drop_state/lasting/latency_s")
    assert (latency.value, latency.reference, latency.ratio) == (0.06, "threshold", pytest.approx(1.2))
    data, text = write_report(tmp_path, report, "robot-rl faults x --ros")
    assert "| drop_state/lasting | ok | state_stale | 50 ms | 60 ms | damp | yes |" in text.read_text()
    assert json.loads(data.read_text())["passed"] is False
