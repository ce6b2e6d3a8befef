"""`robot-rl robot` as a user meets it."""

import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from robot_rl.commands.main import main
from robot_rl.robots import ROBOTS, get_robot
from robot_rl.robots.files import FOLDER_VARIABLE
from robot_rl_sim.commands.robot import VERB

PENDULUM = """<mujoco><worldbody><body><joint name="swing" axis="0 1 0" range="-90 90"/>
<geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.02" mass="1"/></body></worldbody>
<actuator><motor joint="swing" ctrlrange="-20 20"/></actuator></mujoco>"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pendulum.xml").write_text(PENDULUM)
    return tmp_path / "pendulum.xml"


def test_the_verb_is_installed() -> None:
    (entry,) = entry_points(group="robot_rl.commands", name="robot")
    assert entry.load() is VERB


def test_add_list_show(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robot", "add", "--mjcf", str(file), "--damping-ratio", "0.5", "--json", "added.json"]) == 0
    shown = capsys.readouterr().out
    table = next(line for line in shown.splitlines() if line.startswith("swing")).split()
    joint = get_robot("pendulum").joints[0]
    assert [float(cell) for cell in table[1:8]] == pytest.approx(
        [joint.lower_rad, joint.upper_rad, 0, 10, 20, joint.kp_nm_rad, joint.kd_nms_rad], rel=5e-3
    )
    assert table[-1] == "0.5"
    assert "- swing (0.50): damping ratio below 0.7: overshoots" in shown
    assert "robot-rl train --task track-pose:pendulum" in shown
    details = json.loads(Path("added.json").read_text())["details"]
    assert details["robot"]["joints"][0]["kp_nm_rad"] == joint.kp_nm_rad

    assert main(["robot", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*ROBOTS, "pendulum"))
    assert main(["robot", "show", "pendulum"]) == 0
    again = capsys.readouterr().out
    assert table == next(line for line in again.splitlines() if line.startswith("swing")).split()
    assert "no speed limit in the file: 10 assumed" in again
    assert "damping ratio below 0.7" in again


def test_show_takes_built_in_robots(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robot", "show", "leap_hand"]) == 0
    assert "if_mcp" in capsys.readouterr().out


def test_another_folder_is_named_for_later(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robot", "add", "--mjcf", str(file), "--into", "zoo", "--name", "arm"]) == 0
    assert f"export {FOLDER_VARIABLE}=zoo" in capsys.readouterr().out
    assert (tmp_path / "zoo" / "arm" / "robot.json").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give the file as --mjcf FILE or --urdf FILE"),
        (["--mjcf", "pendulum.xml", "--urdf", "a.urdf"], "give the file as"),
        (["--urdf", "pendulum.xml"], "the name of a URDF ends in .urdf"),
        (["--mjcf", "none.xml"], "there is no file none.xml"),
        (["--mjcf", "pendulum.xml", "--damping-ratio", "-1"], "damping_ratio must be positive"),
        (["--mjcf", "pendulum.xml", "--kp", "stiff"], "expected VALUE or PATTERN=VALUE"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    file: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["robot", "add", *flags]) == 2
    assert message in capsys.readouterr().err
