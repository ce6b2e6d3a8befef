"""track-pose: of any robot, found by name, solvable, and worth what its card says."""

from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.bundle.load import load_bundle
from robot_rl.commands import deploy, export, verify
from robot_rl.env import RobotVecEnv, get_task, load_families
from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec, check_contract
from robot_rl.robots.files import FOLDER_VARIABLE
from robot_rl.runtime.controller import Controller
from robot_rl.runtime.loop import run
from robot_rl.testing.fakes import FakeClock
from robot_rl.training.config import make_config
from robot_rl.training.evaluate import evaluate, random_policy, zero_policy
from robot_rl.training.loop import train
from robot_rl_sim.importing.add import add_robot
from robot_rl_sim.mdp import Transition
from robot_rl_sim.sim_robot import SimRobot
from robot_rl_sim.tasks.track_pose.mdp import TrackPose, TrackPoseConfig, randomization

FEW = TrackPoseConfig(pool_size=40)
# An arm with a gripper: a slide of 4 cm, a passive joint between driven ones, actuators in an order of their own.
ARM = """<mujoco><compiler angle="radian"/><worldbody><body name="base"><geom size="0.05" mass="1"/>
<body name="upper" pos="0 0 0.1"><joint name="shoulder" axis="0 1 0" range="-2 2" damping="0.5" armature="0.05"/>
<geom type="capsule" fromto="0 0 0 0 0 0.3" size="0.03" mass="1"/>
<body name="lower" pos="0 0 0.36"><joint name="elbow" axis="0 1 0" range="0 2.5" damping="0.5" armature="0.05"/>
<geom type="capsule" fromto="0 0 0.04 0 0 0.25" size="0.03" mass="0.5"/>
<body name="flap" pos="0.1 0 0"><joint name="flap" axis="0 1 0" range="-1 1" damping="0.01"/>
<geom size="0.02" mass="0.01"/></body>
<body name="jaw" pos="0 0 0.35"><joint name="jaw" type="slide" axis="1 0 0" range="0 0.04" damping="5" armature="0.1"/>
<geom size="0.02" mass="0.1"/></body></body></body></body></worldbody>
<actuator><motor joint="jaw" ctrlrange="-50 50"/><motor joint="elbow" ctrlrange="-50 50"/>
<motor joint="shoulder" ctrlrange="-50 50"/></actuator></mujoco>"""


@pytest.fixture
def arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RobotSpec:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "robots"))
    (tmp_path / "arm.xml").write_text(ARM)
    return add_robot(tmp_path / "arm.xml", tmp_path / "robots").robot


def test_the_family_makes_a_task_of_every_robot() -> None:
    task = get_task("track-pose:leap_hand")
    assert (task.name, task.robot) == ("track-pose:leap_hand", "leap_hand")
    assert load_families()["track-pose"].argument == "<robot>"
    with pytest.raises(ConfigError, match="unknown robot 'marvin'"):
        get_task("track-pose:marvin")
    with pytest.raises(ConfigError, match=r"unknown task 'dance:leap_hand'; valid: .*gym:<id>, track-pose:<robot>"):
        get_task("dance:leap_hand")


def test_the_rewards_are_those_of_the_card() -> None:
    mdp = TrackPose(LEAP_HAND, 2, 0, FEW)
    goal = torch.zeros(2, 16)
    pos = goal.clone()
    pos[1] = 0.1  # one tolerance off, in every joint: all have ranges of 2 rad and more
    action, last = torch.full((2, 16), 0.5), torch.zeros(2, 16)
    step = Transition(None, pos, torch.zeros(2, 16), action, last, goal, torch.ones(2, dtype=torch.int64))  # type: ignore[arg-type]
    mdp.state["distance"].fill_(2.0)
    outcome = mdp.outcome(step, torch.zeros(len(step.action), 0))
    # Before this step, both were two tolerances off.
    expected = {"progress": (2, 1), "near": (1, np.exp(-1)), "action": (-0.0025,) * 2, "action_rate": (-0.0025,) * 2}
    assert outcome.rewards.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(
            outcome.rewards[name], torch.tensor(values, dtype=torch.float32), atol=1e-6, rtol=1e-5
        )
    assert outcome.at_goal.tolist() == [True, False]
    assert not outcome.terminated.any()
    torch.testing.assert_close(mdp.state["distance"], torch.tensor([0.0, 1.0]))


def test_a_humanoid_hangs_clear_of_the_ground_in_every_pose() -> None:
    mdp = TrackPose(UNITREE_G1, 1, 0, FEW)
    model = mdp.model_spec().compile()
    assert (model.nq, mdp.state["poses"].shape) == (29, (40, 29))
    data = mujoco.MjData(model)
    floor = model.geom("floor").id
    for pose in mdp.state["poses"]:
        data.qpos[:] = pose
        mujoco.mj_forward(model, data)
        assert floor not in data.contact.geom[: data.ncon]
    # Straight down is as far as a leg reaches.
    data.qpos[:] = 0
    mujoco.mj_kinematics(model, data)
    assert 0.05 < data.geom_xpos[model.geom_bodyid > 0, 2].min() < 3


def test_starts_and_goals_touch_nothing_and_keep_to_the_range() -> None:
    mdp = TrackPose(LEAP_HAND, 1, 3, FEW)
    model = mdp.model_spec().compile()
    data = mujoco.MjData(model)
    for pose in mdp.state["poses"]:
        data.qpos[:] = pose
        mujoco.mj_forward(model, data)
        assert data.ncon == 0
    part = (mdp.state["poses"] - model.jnt_range[:, 0]) / np.ptp(model.jnt_range, axis=1)
    assert 0.14 < part.min() < part.max() < 0.86
    assert part.std() > 0.1
    again, other = TrackPose(LEAP_HAND, 1, 3, FEW), TrackPose(LEAP_HAND, 1, 4, FEW)
    assert torch.equal(mdp.state["poses"], again.state["poses"])
    assert not torch.equal(mdp.state["poses"], other.state["poses"])


def test_an_added_robot_is_trained_on_as_it_is(arm: RobotSpec) -> None:
    """Joints in the actuators' order, with a passive one between them in the model."""
    assert arm.joint_names == ("jaw", "elbow", "shoulder")
    env = get_task("track-pose:arm").make_env(num_envs=8, seed=0, num_threads=1)
    assert isinstance(env, RobotVecEnv)
    check_contract(env.policy_io.contract, arm)
    sim = env.sim  # type: ignore[attr-defined]
    by_name = [int(sim.model.joint(n).qposadr[0]) for n in arm.joint_names]
    assert by_name == [3, 1, 0]
    torch.testing.assert_close(sim.joint_pos, sim.qpos[:, by_name])
    for _ in range(50):
        step = env.step(2 * torch.rand(8, 3) - 1)
        assert step.obs.isfinite().all()
    # 4 cm of travel: noise and offset of the encoder are a hundredth of it at most, and so are no hindrance.
    assert randomization(arm).sensors.joint_pos.noise == pytest.approx(4e-4)
    assert randomization(LEAP_HAND).sensors.joint_pos.noise == 0.01


def test_a_target_moved_straight_to_the_goal_succeeds_and_the_floors_do_not(arm: RobotSpec) -> None:
    task = get_task("track-pose:arm")
    env = task.make_env(num_envs=32, seed=1, randomize=False, num_threads=1)
    assert task.scripted is not None
    policies = {"scripted": task.scripted(env), "zero": zero_policy(env), "random": random_policy(env, 1)}
    success = {name: evaluate(env, policy, 32, 1).success_rate for name, policy in policies.items()}
    assert success["scripted"] is not None
    assert success["scripted"] > 0.9
    assert (success["zero"], success["random"]) == (0, 0)


def test_an_added_robot_goes_the_whole_way(arm: RobotSpec, tmp_path: Path) -> None:
    """From training to the simulated robot; so few steps teach nothing, but every part must know the robot."""
    config = make_config(
        get_task("track-pose:arm"), "sac", num_envs=16, total_env_steps=640, warmup_env_steps=320, batch_size=32,
        evaluate_episodes=4, runs=tmp_path,
    )  # fmt: skip
    run_dir = train(config).run_dir
    assert export.run(export.ExportArgs(run_dir)).ok
    assert verify.run(verify.VerifyArgs(run_dir / "bundle")).ok
    bundle, clock = load_bundle(run_dir / "bundle"), FakeClock()
    assert bundle.contract.joint_names == ("jaw", "elbow", "shoulder")
    controller, robot = Controller(bundle, arm), SimRobot(arm, clock=clock)
    robot.connect()
    session = deploy._Session(controller, robot, deploy._operator(True, 0.0, print), print)
    goals = deploy._commands(controller, (), True)
    run(controller, robot, clock, duration_s=10.0, get_command=goals, on_tick=session.on_tick)
    assert session.failure() == ""
