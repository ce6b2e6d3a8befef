"""Robots in files: written, read, found by name, and refused with the entry at fault."""

import json
from pathlib import Path

import pytest

from robot_rl.errors import ConfigError
from robot_rl.robots import ROBOTS, get_robot, robot_names
from robot_rl.robots.files import FOLDER_VARIABLE, check_name, read_findings, read_robot, robot_to_json


def put(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "robot.json").write_text(text)
    return folder


@pytest.mark.parametrize("name", ROBOTS)
def test_every_robot_survives_the_file_exactly(name: str, tmp_path: Path) -> None:
    folder = put(tmp_path / name, robot_to_json(ROBOTS[name], ("assumed this",)))
    assert read_robot(folder) == ROBOTS[name]
    assert read_findings(folder) == ("assumed this",)


def test_an_added_robot_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = robot_to_json(ROBOTS["leap_hand"]).replace('"name": "leap_hand"', '"name": "claw"')
    put(tmp_path / "elsewhere" / "claw", text)
    put(tmp_path / "robots" / "claw2", text.replace('"claw"', '"claw2"'))
    monkeypatch.chdir(tmp_path)
    assert get_robot("claw2").joints == ROBOTS["leap_hand"].joints
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "elsewhere"))
    assert get_robot("claw").name == "claw"
    assert robot_names() == (*ROBOTS, "claw")
    with pytest.raises(ConfigError, match=r"unknown robot 'claw2'; valid: .*leap_hand.*claw; `robot-rl robot add`"):
        get_robot("claw2")


def test_a_built_in_robot_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "leap_hand", robot_to_json(ROBOTS["leap_hand"]).replace("palm", "sole"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert get_robot("leap_hand") is ROBOTS["leap_hand"]


def edited(change) -> str:
    data = json.loads(robot_to_json(ROBOTS["leap_hand"]))
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "format 2 is not supported; this code reads 1"),
        (lambda d: d.pop("robot"), "missing key robot"),
        (lambda d: d["robot"]["joints"][3].pop("kp_nm_rad"), r"joints\[3\]: missing keys kp_nm_rad"),
        (lambda d: d["robot"]["joints"][3].update(colour="red"), r"joints\[3\]: unknown keys colour"),
        (lambda d: d["robot"]["joints"][3].update(lower_rad="low"), r"joints\[3\]: .*must be real number"),
        (lambda d: d["robot"]["joints"][3].update(lower_rad=9.0), "'if_dip': lower 9.0 must be below"),
        (lambda d: d["robot"]["joints"][3].update(name="if_mcp"), "must be unique; repeated: if_mcp"),
        (lambda d: d["robot"].update(joints=[]), "has no joints"),
        (lambda d: d["robot"].update(joints="none"), "joints: expected a list, got str"),
        (lambda d: d["robot"].update(armature_kg_m2=[0.1]), "armature_kg_m2 has 1 entries for 16 joints"),
        (lambda d: d["robot"].update(state_fields=["joint_pos", "smell"]), r"unknown state fields \['smell'\]"),
        (lambda d: d["robot"].pop("safety"), "safety: expected an object"),
        (lambda d: d["robot"]["safety"].update(backup=["pray", "damp"]), "backup .* must be some of recovery, home"),
        (lambda d: d["robot"]["safety"].update(damping_kd_nms_rad=[0.0] * 16), "must be positive and finite"),
        (lambda d: d["robot"]["chains"][0]["links"][0].update(joint="tail"), r"unknown joints \['tail'\]"),
        (lambda d: d["robot"].update(mirror=[["if_mcp"]]), r"mirror\[0\]: expected \[joint, sign\]"),
        (lambda d: d["robot"].update(name="other"), "named 'other', its folder 'leap_hand'"),
        (lambda d: d["robot"]["joints"][0].update(kp_nm_rad=float("nan")), "NaN is not a number"),
    ],
)
def test_a_spoilt_file_is_refused_by_name(change, message: str, tmp_path: Path) -> None:
    folder = put(tmp_path / "leap_hand", edited(change))
    with pytest.raises(ConfigError, match=message) as caught:
        read_robot(folder)
    assert str(folder / "robot.json") in str(caught.value)


def test_text_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_robot(put(tmp_path / "x", "joints: 3"))


@pytest.mark.parametrize("name", ["", "2legs", "../up", "a b", "a/b", "."])
def test_names_that_cannot_be_folders_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be letters"):
        check_name(name)
