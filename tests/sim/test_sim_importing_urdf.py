"""URDF: the same questions as of MJCF, and those that only URDF raises."""

from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.robots.files import FOLDER_VARIABLE
from robot_rl_sim.importing.add import Added, add_robot
from robot_rl_sim.models import default_qpos, load_model

TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
INERTIAL = '<inertial><mass value="1"/><inertia ixx="{0}" iyy="{0}" izz="{0}" ixy="0" ixz="0" iyz="0"/></inertial>'

Add = Callable[..., Added]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "robots"))
    (tmp_path / "pack" / "urdf").mkdir(parents=True)

    def _add(text: str, **flags) -> Added:
        path = tmp_path / "pack" / "urdf" / "r.urdf"
        path.write_text(text)
        return add_robot(path, tmp_path / "robots", "r", **flags)

    return _add


def link(name: str, more: str = "", inertia: float = 1e-2) -> str:
    return f'<link name="{name}">{INERTIAL.format(inertia)}{more}</link>'


def joint(name: str, parent: str, child: str, more: str = "", kind: str = "revolute") -> str:
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/><axis xyz="0 0 1"/>'
        f'<origin xyz="0 0 0.1"/>{more}</joint>'
    )


LIMIT = '<limit lower="-1" upper="2" effort="5" velocity="3"/>'
TWO = (
    link("base")
    + link("l1")
    + link("l2")
    + joint("j1", "base", "l1", LIMIT + '<dynamics damping="0.1" friction="0.2"/>')
    + joint("j2", "l1", "l2", '<limit effort="0" velocity="0"/>', "continuous")
)


def urdf(body: str) -> str:
    return f'<robot name="r">{body}</robot>'


def finding(added: Added, part: str) -> str:
    (line,) = [f for f in added.findings if part in f]
    return line


def test_limits_of_every_kind_are_read(add: Add) -> None:
    added = add(urdf(TWO))
    first, second = added.robot.joints
    assert (first.name, first.lower_rad, first.upper_rad, first.effort_limit_nm, first.velocity_limit_rad_s) == (
        "j1", -1.0, 2.0, 5.0, 3.0,
    )  # fmt: skip
    assert (second.lower_rad, second.upper_rad) == (-np.pi, np.pi)
    assert second.velocity_limit_rad_s == 10
    assert finding(added, "NO LIMITS").startswith("j2:")
    assert finding(added, "NO EFFORT LIMIT").startswith("j2:")
    assert finding(added, "no speed limit").startswith("j2:")
    model = load_model("r")
    assert (model.dof_damping[0], model.dof_frictionloss[0]) == (0.1, 0.2)
    assert not added.robot.floating_base


def test_floating_puts_the_root_on_a_free_joint(add: Add) -> None:
    ball = '<collision><geometry><sphere radius="0.2"/></geometry></collision>'
    added = add(urdf(TWO.replace(link("base"), link("base", ball))), floating=True)
    assert added.robot.floating_base
    assert added.robot.root_body == "base"
    assert added.robot.joint_names == ("j1", "j2")
    assert added.mass_kg == pytest.approx(3)
    model = load_model("r")
    assert (model.nq, int(model.jnt_type[0])) == (9, int(mujoco.mjtJoint.mjJNT_FREE))
    assert default_qpos(model, added.robot)[2] == pytest.approx(0.2)


def test_mimic_joints_follow(add: Add) -> None:
    mimic = TWO.replace('<limit effort="0" velocity="0"/>', '<mimic joint="j1" multiplier="0.5" offset="0.1"/>')
    added = add(urdf(mimic))
    assert added.robot.joint_names == ("j1",)
    assert finding(added, "follows").startswith("j2:")
    model = load_model("r")
    qpos = default_qpos(model, added.robot)
    assert qpos[1] == pytest.approx(0.5 * qpos[0] + 0.1)
    # Turning j1 by one turns the outer link by one and a half: I = 0.01 + 1.5² * 0.01.
    assert added.rows[0].inertia == pytest.approx(0.01 * (1 + 1.5**2), rel=1e-5)


@pytest.mark.parametrize("uri", ["package://pack/meshes/m.obj", "package://meshes/m.obj", "../meshes/m.obj"])
def test_meshes_are_found_by_package_and_by_path(add: Add, tmp_path: Path, uri: str) -> None:
    (tmp_path / "pack" / "meshes").mkdir()
    (tmp_path / "pack" / "meshes" / "m.obj").write_text(TETRAHEDRON)
    mesh = f'<visual><geometry><mesh filename="{uri}" scale="0.1 0.1 0.1"/></geometry></visual>'
    add(urdf(TWO.replace(link("l2"), link("l2", mesh))))
    model = load_model("r")
    assert model.nmesh == 1
    corners = model.mesh_vert[:, None] - model.mesh_vert[None]
    assert np.linalg.norm(corners, axis=-1).max() == pytest.approx(0.1 * 2**0.5)


def test_meshes_that_mujoco_cannot_read_are_left_out(add: Add, tmp_path: Path) -> None:
    mesh = '<visual><geometry><mesh filename="m.dae"/></geometry></visual>'
    added = add(urdf(TWO.replace(link("l2"), link("l2", mesh))))
    assert finding(added, "mesh left out").startswith("m.dae: mesh left out: MuJoCo reads .stl, .obj, .msh")


def test_impossible_inertias_are_mended_and_named(add: Add) -> None:
    bad = TWO.replace(link("l2"), link("l2").replace('ixx="0.01"', 'ixx="0.03"'))
    added = add(urdf(bad))
    assert finding(added, "inertia of no real body").startswith("l2:")
    assert load_model("r").body("l2").inertia == pytest.approx([0.05 / 3] * 3, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<robot", "not well-formed XML"),
        ("<mujoco/>", "the root of a URDF is <robot>, this file's is <mujoco>; MJCF goes to --mjcf"),
        ('<robot xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:include filename="a"/></robot>', "this is xacro"),
        (urdf(TWO + link("l2")), "link names must be unique; repeated: l2"),
        (urdf(TWO + link("l3") + joint("j2", "l2", "l3")), "joint names must be unique; repeated: j2"),
        (urdf(TWO + joint("j3", "l2", "l9")), "joint 'j3' has child link 'l9', which is not defined"),
        (urdf(TWO + link("l3")), r"one root link; this one has \['base', 'l3'\]"),
        (urdf(TWO + link("l3") + joint("j3", "l2", "l3", '<mimic joint="j9"/>')), "mimics 'j9', which is not defined"),
        (urdf(TWO.replace('velocity="3"', 'velocity="fast"')), "'j1' has velocity limit 'fast', not a number"),
        (urdf(TWO.replace(link("l2"), '<link name="l2"/>')), "'l2'.*every link that moves needs mass"),
        (urdf(TWO.replace('type="revolute"', 'type="elastic"')), "elastic|invalid|unknown"),
        (urdf(link("base")), "no hinge or slide joint to drive"),
        (
            urdf(TWO.replace(link("l2"), link("l2", '<visual><geometry><mesh filename="m.stl"/></geometry></visual>'))),
            "1 files are missing: .*m.stl",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_to_mend(add: Add, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        add(text)


def test_floating_is_for_urdf(tmp_path: Path) -> None:
    path = tmp_path / "r.xml"
    path.write_text("<mujoco/>")
    with pytest.raises(ConfigError, match="--floating is for URDF"):
        add_robot(path, tmp_path, "r", floating=True)
