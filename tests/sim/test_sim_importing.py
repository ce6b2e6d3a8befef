"""Robots from files that the project has never seen: what is read, what is derived, what is refused and how."""

import math
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest

from robot_rl.errors import ConfigError
from robot_rl.robots import UNITREE_G1, RobotSpec, get_robot
from robot_rl.robots.files import FOLDER_VARIABLE
from robot_rl_sim.importing.add import Added, add_robot
from robot_rl_sim.importing.mirror import find_mirror
from robot_rl_sim.importing.robot import Choices
from robot_rl_sim.models import default_qpos, load_model, scene_path
from robot_rl_sim.tasks.actions import soft_limits

GRAVITY = 9.81
TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where robots are added in these tests."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "robots"))
    return tmp_path / "robots"


Add = Callable[..., Added]


@pytest.fixture
def add(tmp_path: Path, folder: Path) -> Add:
    """Adds the robot of a model's text."""

    def _add(text: str, choices: Choices | None = None, suffix: str = ".xml", **flags) -> Added:
        (tmp_path / "source").mkdir(exist_ok=True)
        path = tmp_path / "source" / f"r{suffix}"
        path.write_text(text)
        return add_robot(path, folder, "r", choices, **flags)

    return _add


def mjcf(body: str, rest: str = "", head: str = "") -> str:
    return f'<mujoco><compiler angle="radian"/>{head}<worldbody>{body}</worldbody>{rest}</mujoco>'


def pendulum(joint: str = 'range="-1.5 1.5"', more: str = "") -> str:
    """2 kg, whose centre is 0.5 m from a horizontal axis, with principal moments of 0.01 kg m²."""
    return (
        f'<body name="rod"><joint name="swing" axis="0 1 0" {joint}/>'
        f'<inertial pos="0 0 -0.5" mass="2" diaginertia="0.01 0.01 0.01"/>{more}</body>'
    )


def link(joint: str, more: str = "", name: str = "", pos: str = "0 0 0") -> str:
    """A ball of 0.1 m on a joint."""
    named = f'name="{name}"' if name else ""
    return f'<body {named} pos="{pos}"><joint {joint}/><geom size="0.1"/>{more}</body>'


def actuators(text: str) -> str:
    return f"<actuator>{text}</actuator>"


def finding(added: Added, part: str) -> str:
    """The one finding that has `part` in it."""
    (line,) = [f for f in added.findings if part in f]
    return line


def test_gains_of_position_actuators_are_taken(add: Add) -> None:
    """Torque = gear * kp * (ctrl - gear * q): a joint sees gear² times the actuator's gains."""
    added = add(
        mjcf(
            pendulum(),
            actuators('<position joint="swing" kp="10" kv="0.5" gear="3" forcerange="-4 4" ctrlrange="-4.5 4.5"/>'),
        )
    )
    (joint,) = added.robot.joints
    assert (joint.name, joint.lower_rad, joint.upper_rad, joint.default_pos_rad) == ("swing", -1.5, 1.5, 0.0)
    assert (joint.kp_nm_rad, joint.kd_nms_rad, joint.effort_limit_nm) == (90.0, 4.5, 12.0)
    inertia = 0.01 + 2 * 0.5**2
    assert added.rows[0].inertia == pytest.approx(inertia, rel=1e-5)
    assert added.rows[0].damping_ratio == pytest.approx(4.5 / (2 * math.sqrt(90 * inertia)), rel=1e-5)
    assert finding(added, "damping ratio below 0.7").startswith("swing (0.33)")


def test_a_motor_too_weak_to_hold_the_limb_is_found(add: Add) -> None:
    """The most that gravity asks is m g r, where the rod is level: 9.81 N m."""
    horizontal = 'range="-1.6 1.6"'
    for effort, weak in ((9.0, True), (9.9, False)):
        actuator = f'<motor joint="swing" ctrlrange="-{effort} {effort}"/>'
        added = add(mjcf(pendulum(horizontal), actuators(actuator)), overwrite=True)
        assert any("cannot hold it against gravity" in f for f in added.findings) is weak


def test_gains_of_a_motor_are_derived_from_what_it_turns(add: Add) -> None:
    """kp = I w² with w = 2π 5 Hz, kd = 2 ζ I w with ζ = 1, less the damping that the joint has of its own."""
    added = add(
        mjcf(
            pendulum('range="-3 3" armature="0.2" damping="1.5"'),
            actuators('<motor joint="swing" gear="50" ctrlrange="-1 1"/>'),
        )
    )
    (joint,) = added.robot.joints
    inertia, w = 0.2 + 0.01 + 2 * 0.5**2, 2 * math.pi * 5
    assert added.robot.armature_kg_m2 == (0.2,)
    assert joint.kp_nm_rad == pytest.approx(inertia * w**2, rel=1e-5)
    assert joint.kd_nms_rad == pytest.approx(2 * inertia * w - 1.5, rel=1e-5)
    assert joint.effort_limit_nm == 50
    assert added.rows[0].damping_ratio == pytest.approx(1.0, rel=1e-5)


def test_a_joint_is_stiff_enough_to_hold_its_weight(add: Add) -> None:
    """A light finger weighs little and turns less: at 5 Hz gravity would fold it."""
    finger = (
        '<body><joint name="f" axis="0 1 0" range="0 1.5"/>'
        '<inertial pos="0.02 0 0" mass="0.01" diaginertia="1e-6 1e-6 1e-6"/></body>'
    )
    added = add(mjcf(finger, actuators('<motor joint="f"/>')))
    (joint,) = added.robot.joints
    assert joint.kp_nm_rad * 0.02 * 1.5 == pytest.approx(0.01 * GRAVITY * 0.02, rel=1e-3)
    assert "sag" in finding(added, "gains derived")
    assert "NO EFFORT LIMIT" in finding(added, "EFFORT")
    assert joint.effort_limit_nm > 2 * 0.99 * 0.01 * GRAVITY * 0.02


VELOCITY = '<velocity joint="swing" kv="2" forcerange="-6 6"/>'


@pytest.mark.parametrize(
    ("actuator", "kp", "kd", "effort"),
    [
        ('<position joint="swing" kp="7" dampratio="1" forcerange="-5 3"/>', 7.0, None, 5.0),
        ('<general joint="swing" biastype="affine" gainprm="2" biasprm="0 -8 -0.3" forcerange="-9 9"/>', 8.0, 0.3, 9.0),
        ('<intvelocity joint="swing" kp="12" kv="2" actrange="-1 1" forcerange="-9 9"/>', 12.0, 2.0, 9.0),
        ('<velocity joint="swing" kv="6" forcerange="-9 9"/>', None, 6.0, 9.0),
        ('<motor joint="swing" gear="-30" ctrlrange="-0.5 0.5"/>', None, None, 15.0),
        ('<position joint="swing" kp="7" forcerange="-5 5"/>' + VELOCITY, 7.0, 2.0, 11.0),
        ('<muscle joint="swing" lengthrange="0.1 1" forcerange="-20 0"/>', None, None, 20.0),
        ('<cylinder joint="swing" timeconst="0.1" area="2" ctrlrange="-10 10"/>', None, None, 20.0),
    ],
)  # fmt: skip
def test_every_kind_of_actuator(add: Add, actuator: str, kp: float | None, kd: float | None, effort: float) -> None:
    added = add(mjcf(pendulum(), actuators(actuator)))
    (joint,) = added.robot.joints
    derived_kp = (0.01 + 2 * 0.5**2) * (2 * math.pi * 5) ** 2
    assert joint.kp_nm_rad == pytest.approx(kp or derived_kp, rel=1e-5)
    if kd is not None:
        assert joint.kd_nms_rad == pytest.approx(kd)
    assert joint.effort_limit_nm == pytest.approx(effort)


def test_what_the_person_says_wins(add: Add) -> None:
    two = pendulum(more='<body name="elbow"><joint name="bend" axis="0 1 0" range="0 1"/><geom size="0.05"/></body>')
    given = '<position joint="swing" kp="10" kv="1"/><position joint="bend" kp="20" kv="2"/>'
    chosen = Choices(kp=("30", "b*=40"), effort_limit=("5",), velocity_limit=("swing=3",), armature=("bend=0.1",))
    swing, bend = add(mjcf(two, actuators(given)), chosen).robot.joints
    assert (swing.kp_nm_rad, bend.kp_nm_rad) == (30, 40)
    assert (swing.effort_limit_nm, bend.effort_limit_nm) == (5, 5)
    assert (swing.velocity_limit_rad_s, bend.velocity_limit_rad_s) == (3, 10)
    damped = add(mjcf(two, actuators(given)), Choices(natural_frequency_hz=2, damping_ratio=0.8), overwrite=True)
    for row in damped.rows:
        assert (row.frequency_hz, row.damping_ratio) == (pytest.approx(2), pytest.approx(0.8))
    with pytest.raises(ConfigError, match=r"--kp 'knee=3': no joint is named so; valid: swing, bend"):
        add(mjcf(two), Choices(kp=("knee=3",)), overwrite=True)
    with pytest.raises(ConfigError, match=r"--effort-limit 'strong': expected VALUE or PATTERN=VALUE"):
        add(mjcf(two), Choices(effort_limit=("strong",)), overwrite=True)


def test_limits_and_order_come_from_the_actuators_where_the_joints_have_none(add: Add) -> None:
    joints = "".join(
        f'<body pos="{i} 0 0"><joint name="j{i}" {limits}/><geom size="0.1"/></body>'
        for i, limits in enumerate(('range="-1 2"', "", 'type="slide"'))
    )
    robot = add(
        mjcf(joints, actuators('<position joint="j2"/><position joint="j1" ctrlrange="-0.5 0.7"/><motor joint="j0"/>'))
    ).robot
    assert robot.joint_names == ("j2", "j1", "j0")
    assert [(j.lower_rad, j.upper_rad) for j in robot.joints] == [(-0.5, 0.5), (-0.5, 0.7), (-1.0, 2.0)]


def test_home_is_the_keyframe_and_lies_within_the_limits(add: Add) -> None:
    text = mjcf(
        pendulum(),
        actuators('<position joint="swing"/>')
        + '<keyframe><key name="rest" qpos="0.3"/><key name="home" qpos="2"/></keyframe>',
    )
    added = add(text)
    assert added.robot.joints[0].default_pos_rad == pytest.approx(1.5 - 0.05 * 3, abs=1e-3)
    assert finding(added, "outside the soft").startswith("swing:")
    high = soft_limits(added.robot)[1][0]
    assert added.robot.joints[0].default_pos_rad < high  # or no controller would let the robot stand
    assert add(text.replace("home", "other"), overwrite=True).robot.joints[0].default_pos_rad == 0.3


def test_without_a_keyframe_home_is_zero_or_the_middle(add: Add) -> None:
    assert add(mjcf(pendulum('range="-0.5 2"'))).robot.joints[0].default_pos_rad == 0
    assert add(mjcf(pendulum('range="-0.01 2"')), overwrite=True).robot.joints[0].default_pos_rad == pytest.approx(
        0.995
    )
    assert add(mjcf(pendulum('range="1 2"')), overwrite=True).robot.joints[0].default_pos_rad == 1.5


def floating(legs: int) -> str:
    leg = (
        '<body name="leg{0}" pos="0 {0} 0"><joint name="hip{0}" axis="0 1 0" range="-1 1" damping="1"/>'
        '<geom type="capsule" fromto="0 0 0 0 0 -0.3" size="0.02"/>'
        '<geom type="box" size="0.05 0.02 0.01" pos="0 0 -0.3"/></body>'
    )
    return (
        '<body name="trunk" pos="0 0 1"><freejoint/><geom type="box" size="0.1 0.1 0.1"/>'
        '<site name="imu" pos="0.1 0 0"/>' + "".join(leg.format(i) for i in range(legs)) + "</body>"
    )


def test_a_floating_base_stands_on_the_floor_with_an_imu(add: Add) -> None:
    added = add(mjcf(floating(2)))
    robot = added.robot
    assert robot.floating_base
    assert robot.root_body == "trunk"
    assert {"imu_quat_wxyz", "imu_ang_vel_b", "imu_lin_acc_b"} <= set(robot.state_fields)
    assert robot.safety.deadman
    model = load_model("r")
    data = mujoco.MjData(model)
    data.qpos[:] = default_qpos(model, robot)
    mujoco.mj_forward(model, data)
    assert data.qpos[2] == pytest.approx(0.32, abs=1e-6)  # the capsules end 0.32 m below the hips
    np.testing.assert_array_equal(data.sensor("imu_quat").data, (1, 0, 0, 0))
    assert "floor" in finding(added, "no floor")
    assert not [f for f in added.findings if "IMU" in f]


def test_the_symmetry_of_the_g1_is_found() -> None:
    """Against the table that was written by hand."""
    model = load_model("unitree_g1")
    assert find_mirror(model, "pelvis", UNITREE_G1.joint_names) == UNITREE_G1.mirror


def test_a_robot_without_two_like_sides_has_no_mirror(add: Add) -> None:
    """Legs at y = 0, 1 and 2."""
    assert add(mjcf(floating(3))).robot.mirror == ()


def test_objects_that_move_by_themselves_are_left_out(add: Add) -> None:
    cube = '<body name="cube" pos="1 0 0"><freejoint/><geom size="0.1"/></body>'
    door = '<body name="door" pos="2 0 0"><joint name="hinge" range="0 1"/><geom size="0.1"/></body>'
    table = '<body name="table"><geom type="box" size="1 1 0.1"/></body>'
    added = add(
        mjcf(
            cube + table + door + pendulum(),
            actuators('<motor joint="swing"/>') + '<sensor><framepos objtype="body" objname="cube"/></sensor>',
        )
    )
    model = load_model("r")
    bodies = [model.body(i).name for i in range(model.nbody)]
    assert ("cube" in bodies, "door" in bodies, "table" in bodies) == (False, False, True)
    assert added.robot.joint_names == ("swing",)
    assert finding(added, "no part of the robot") == "cube, door: left out: it moves, and is no part of the robot"


def test_tendons_become_servos_of_the_joints_that_they_move(add: Add) -> None:
    finger = (
        '<body><joint name="a" axis="0 1 0" range="0 1"/><geom size="0.02" pos="0.05 0 0"/>'
        '<body pos="0.1 0 0"><joint name="b" axis="0 1 0" range="0 1"/><geom size="0.02" pos="0.05 0 0"/></body></body>'
    )
    tendon = '<tendon><fixed name="t"><joint joint="a" coef="0.02"/><joint joint="b" coef="-0.01"/></fixed></tendon>'
    added = add(mjcf(finger, tendon + actuators('<position tendon="t" kp="1000" forcerange="-50 50"/>')))
    a, b = added.robot.joints
    assert (a.name, b.name) == ("a", "b")
    assert (a.kp_nm_rad, b.kp_nm_rad) == (pytest.approx(0.4), pytest.approx(0.1))
    assert (a.effort_limit_nm, b.effort_limit_nm) == (pytest.approx(1.0), pytest.approx(0.5))
    assert "through a tendon" in finding(added, "a servo of its own")


def test_joints_that_follow_others_are_no_joints_of_the_robot(add: Add) -> None:
    jaws = "".join(
        f'<body pos="0 {y} 0"><joint name="{n}" type="slide" axis="0 1 0" range="0 0.04"/>'
        '<geom size="0.01" mass="0.1"/></body>'
        for n, y in (("left", 0.1), ("right", -0.1))
    )
    equality = '<equality><joint joint1="right" joint2="left" polycoef="0 1 0 0 0"/></equality>'
    added = add(
        mjcf(jaws, equality + actuators('<position joint="right" kp="100" kv="5"/>')),
    )
    assert added.robot.joint_names == ("right",)
    assert added.rows[0].inertia == pytest.approx(0.2, rel=1e-5)  # both jaws
    assert finding(added, "follows").startswith("left:")
    model = load_model("r")
    assert default_qpos(model, added.robot).tolist() == [pytest.approx(0.02)] * 2


def test_passive_joints_stay_passive(add: Add) -> None:
    chain = pendulum(more=link('name="loose"', link('name="ball" type="ball"')))
    added = add(mjcf(chain, actuators('<motor joint="swing"/>')))
    assert added.robot.joint_names == ("swing",)
    assert load_model("r").nv == 5
    assert finding(added, "passive joint").startswith("loose:")
    assert finding(added, "passive ball joint").startswith("ball:")


def test_bodies_that_overlap_at_home_may_pass(add: Add) -> None:
    blocks = "".join(
        f'<body pos="{x} 0 0"><joint name="j{x}" range="-1 1"/><geom type="box" size="0.1 0.1 0.1"/></body>'
        for x in (0, 1, 2)
    )
    near = blocks.replace('pos="1 0 0"', 'pos="0.15 0 0"').replace("<body ", '<body name="n" ', 1)
    added = add(mjcf(near))
    assert "(50.0 mm)" in finding(added, "overlap in the home pose")
    model = load_model("r")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert (model.nexclude, data.ncon) == (1, 0)


def test_sixty_joints_and_one(add: Add) -> None:
    body = ""
    for i in range(60):
        joint = f'name="j{i}" axis="{i % 2} {1 - i % 2} 0" range="-1 1" armature="0.01"'
        body = link(joint, body, pos="0 0 0.3")
    assert len(add(mjcf(body, head='<compiler autolimits="true"/>')).robot.joints) == 60
    assert load_model("r").nu == 60
    assert len(add(mjcf(pendulum()), overwrite=True).robot.joints) == 1


def test_names_are_given_to_what_has_none(add: Add) -> None:
    text = mjcf(link('range="-1 1"/><joint axis="1 0 0" range="-1 1"', link('range="-1 1"'), name="arm"))
    added = add(text)
    assert added.robot.joint_names == ("arm_joint", "arm_joint_2", "body_joint")
    assert finding(added, "without a name").startswith("arm_joint, arm_joint_2, body_joint:")


MESH = '<asset><mesh name="m" file="{}"/></asset>'
MESH_BODY = '<body name="b"><joint name="j" range="-1 1"/><geom type="mesh" mesh="m"/><geom size="0.1"/></body>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<mujoco><worldbody>", "not well-formed XML"),
        ("joints: 3", "not well-formed XML"),
        ("<robot/>", "Robot must be|r.xml"),
        ("<sdf/>", "root must be <mujoco>"),
        (mjcf("<bodi/>"), "unrecognized element"),
        (mjcf('<body name="a"/><body name="a"/>'), "repeated name 'a' in body.*rename one of the two"),
        (mjcf(link('name="a"', link('name="a"'))), "repeated name 'a' in joint.*rename one of the two"),
        (mjcf('<body name="b"><joint/></body>'), "element 'b'|Element name 'b'.*every link that moves needs mass"),
        (mjcf("", head='<include file="more.xml"/>'), "more.xml.*missing"),
        (mjcf('<body><joint class="arm"/><geom size="1"/></body>'), "unknown default class name 'arm'.*<default>"),
        (mjcf('<geom size="1"/>'), "no hinge or slide joint to drive"),
        (mjcf('<body name="drone"><freejoint/><geom size="1"/></body>'), "no hinge or slide joint to drive"),
        (mjcf(link('name="j" type="ball"'), actuators('<motor joint="j"/>')), "'j' drives a ball or free joint"),
        (mjcf(floating(1) + link('name="j"')), "2 robots in one file, of which one floats: robot, trunk"),
        (mjcf(MESH_BODY, head=MESH.format("none.obj")), "1 files are missing: .*none.obj; put them there; --skip-miss"),
        (mjcf('<body><joint/><geom size="1" mass="-1"/></body>'), "mass"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_with_what_to_mend(
    add: Add, folder: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        add(text)
    assert not list(folder.glob("*")), "nothing may be left behind"


def test_a_missing_mesh_can_be_done_without(add: Add) -> None:
    added = add(mjcf(MESH_BODY, head=MESH.format("none.obj")), skip_missing_meshes=True)
    assert finding(added, "mesh missing") == "none.obj: mesh missing, left out"
    assert load_model("r").nmesh == 0


def test_meshes_and_licences_are_copied(add: Add, tmp_path: Path, folder: Path) -> None:
    for part in ("left", "right"):
        (tmp_path / "source" / "parts" / part).mkdir(parents=True)
        (tmp_path / "source" / "parts" / part / "m.obj").write_text(TETRAHEDRON)
    (tmp_path / "source" / "LICENSE").write_text("do what you like")
    (tmp_path / "source" / "parts" / "left" / "COPYING.txt").write_text("do what I say")
    body = MESH_BODY.replace('mesh="m"', 'mesh="one"') + '<geom type="mesh" mesh="m"/>'
    meshes = '<mesh name="one" file="left/m.obj"/><mesh file="right/m.obj" scale="2 2 2"/>'
    head = f'<compiler meshdir="parts"/><asset>{meshes}</asset>'
    add(mjcf(body, head=head))
    kept = sorted(str(p.relative_to(folder / "r")) for p in (folder / "r").rglob("*") if p.is_file())
    assert kept == ["COPYING.txt", "LICENSE", "assets/m.obj", "assets/m_2.obj", "r.xml", "robot.json"]
    (tmp_path / "source").rename(tmp_path / "moved")
    model = load_model("r")
    # The second mesh, twice as large, has eight times the volume, in the world body where mass is not counted.
    assert model.body("b").mass == pytest.approx(1000 * (1 / 6 + 4 / 3 * math.pi * 1e-3), rel=1e-4)
    assert model.nmesh == 2


def test_an_existing_robot_stays_unless_replaced(add: Add, folder: Path) -> None:
    add(mjcf(pendulum()))
    with pytest.raises(ConfigError, match=r"exists; --overwrite replaces it"):
        add(mjcf(floating(1)))
    assert get_robot("r").joint_names == ("swing",)
    with pytest.raises(ConfigError, match="not well-formed"):
        add("<mujoco", overwrite=True)
    assert get_robot("r").joint_names == ("swing",)
    add(mjcf(floating(1)), overwrite=True)
    assert get_robot("r").joint_names == ("hip0",)
    assert [p.name for p in folder.iterdir()] == ["r"]


def test_names_that_are_taken_or_unfit_are_refused(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "r.xml"
    path.write_text(mjcf(pendulum()))
    with pytest.raises(ConfigError, match="'leap_hand' is a built-in robot"):
        add_robot(path, folder, "leap_hand")
    with pytest.raises(ConfigError, match="must be letters"):
        add_robot(path, folder, "../r")
    with pytest.raises(ConfigError, match="there is no file"):
        add_robot(tmp_path / "nothing.xml", folder)


def test_what_is_read_back_is_what_was_added(add: Add) -> None:
    added = add(mjcf(floating(3), actuators('<position joint="hip2" kp="0.1234567890123456"/><motor joint="hip0"/>')))
    read: RobotSpec = get_robot("r")
    assert read == added.robot
    assert read.joints[0].kp_nm_rad == 0.1234567890123456
    assert scene_path("r").name == "r.xml"
