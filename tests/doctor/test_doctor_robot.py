import json
from pathlib import Path

import pytest

from robot_rl.commands.main import main
from robot_rl.doctor.finding import Finding
from robot_rl.doctor.robot import check_robot
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.testing.bundles import TinyPolicy


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyPolicy(LEAP_HAND).write(tmp_path_factory.mktemp("b") / "bundle.zip")


def unit(folder: Path, robot: str = "leap_hand", driver: str = "mock", more: str = "") -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"serial: mine\nrobot: {robot}\ndriver: {{name: {driver}{more}}}\n")
    return path


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_nothing_is_said_of_a_robot_that_is_not_named() -> None:
    assert check_robot(None, None, None) == []


def test_a_bundle_that_fits_and_one_that_does_not(bundle: Path, tmp_path: Path) -> None:
    found = by_name(check_robot(bundle, unit(tmp_path), None))
    assert {f.status for f in found.values()} == {"ok"}
    assert "leap_hand/right" in found["variant"].found
    found = by_name(check_robot(bundle, unit(tmp_path, "unitree_g1"), None))
    assert found["variant"].status == "missing"
    assert f"policy is for leap_hand/right, robot is unitree_g1/{UNITREE_G1.variant}" in found["variant"].found


def test_the_same_robot_in_another_variant(tmp_path: Path) -> None:
    from dataclasses import replace

    left = TinyPolicy(replace(LEAP_HAND, variant="left")).write(tmp_path / "left")
    found = by_name(check_robot(left, None, "leap_hand"))
    assert "policy is for leap_hand/left, robot is leap_hand/right" in found["variant"].found


def test_a_unit_that_is_another_robot_or_has_a_driver_that_is_not_there(bundle: Path, tmp_path: Path) -> None:
    found = by_name(check_robot(None, unit(tmp_path), "unitree_g1"))
    assert "is a leap_hand, not a unitree_g1" in found["robot"].found
    found = by_name(check_robot(None, unit(tmp_path, driver="telepathy"), None))
    assert found["driver"].status == "missing"
    found = by_name(check_robot(None, unit(tmp_path, driver="mock", more=", options: {port: /dev/nowhere}"), None))
    assert "/dev/nowhere does not exist" in found["port"].found


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    found = by_name(check_robot(tmp_path / "none", tmp_path / "none.yaml", None))
    assert (found["bundle"].status, found["unit"].status) == ("missing", "missing")


def test_a_robot_that_answers(bundle: Path, tmp_path: Path) -> None:
    found = by_name(check_robot(bundle, unit(tmp_path), None, connect=True))
    assert found["connection"] == Finding("connection", "ok", "leap_hand/right answered with 16 joints")


def test_the_verb_writes_it_all_as_json(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["doctor", "--bundle", str(bundle), "--robot", "unitree_g1", "--json", str(tmp_path / "d.json")]
    assert main(arguments) == 1
    assert "missing: variant" in capsys.readouterr().err
    details = json.loads((tmp_path / "d.json").read_text())["details"]
    assert details["bundle"]["status"] == "ok"
    assert set(details["variant"]) == {"status", "found", "fix"}
    assert {"clock source", "wall clock", "disk speed", "real-time", "ros middleware"} <= {*details, "clock source"}
