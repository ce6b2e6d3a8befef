"""leap-reach: goals that can be reached, rewards and success by hand, and the agreement with a plain implementation."""

import math

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.env import get_task
from robot_rl.networks.kinematics import TipKinematics
from robot_rl.robots import LEAP_HAND
from robot_rl_sim.benchmark_peers import PlainLeapReach
from robot_rl_sim.models import load_model
from robot_rl_sim.randomization import NOMINAL
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.leap_reach.goals import TOLERANCE_M, sample_goals
from robot_rl_sim.tasks.leap_reach.mdp import LeapReach, LeapReachConfig, closeness, mean_square, tip_distance


def make(num_envs: int = 4, pool_size: int = 32):
    mdp = LeapReach(seed=0, config=LeapReachConfig(pool_size=pool_size))
    return assemble(mdp, num_envs, 0, NOMINAL, "cpu", 1)


def test_goals_are_poses_that_the_hand_can_take() -> None:
    poses, tips = sample_goals(100, seed=3)
    model = load_model("leap_hand")
    data = mujoco.MjData(model)
    for pose in poses:
        data.qpos[:] = pose
        mujoco.mj_forward(model, data)
        assert data.ncon == 0
    for i, joint in enumerate(LEAP_HAND.joints):
        share = (poses[:, i] - joint.lower_rad) / (joint.upper_rad - joint.lower_rad)
        assert share.min() >= 0.15
        assert share.max() <= 0.85
    kinematics = TipKinematics(LEAP_HAND, LEAP_HAND.chains)
    torch.testing.assert_close(kinematics(poses).flatten(1), tips, atol=2e-5, rtol=0)


def test_goals_depend_on_the_seed_alone() -> None:
    assert torch.equal(sample_goals(5, 1)[1], sample_goals(5, 1)[1])
    assert not torch.equal(sample_goals(5, 1)[1], sample_goals(5, 2)[1])


def test_reward_terms_by_hand() -> None:
    tips = torch.zeros(1, 4, 3)
    goal = torch.tensor([[0.03, 0.04, 0.0, 0.0, 0.0, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    distance = tip_distance(tips, goal)
    torch.testing.assert_close(distance, torch.tensor([[0.05, 0.02, 0.0, 0.0]]))
    expected = (math.exp(-6.25) + math.exp(-1) + 1 + 1) / 4
    torch.testing.assert_close(closeness(distance, 0.02), torch.tensor([expected]))
    torch.testing.assert_close(mean_square(torch.tensor([[1.0, -3.0]])), torch.tensor([5.0]))


def test_weighted_terms_in_the_environment() -> None:
    env = make()
    action = torch.full((4, 16), 0.5)
    first, second = env.step(action), env.step(-action)
    palm, tips = env.sim.snapshot(0).body("palm"), env.sim.snapshot(0)
    positions = np.array([(tips.site(c.name).xpos - palm.xpos) @ palm.xmat.reshape(3, 3) for c in LEAP_HAND.chains])
    goal = env.policy_inputs()["fingertip_goal"][0].numpy().reshape(4, 3)
    distance = np.linalg.norm(positions - goal, axis=1)
    assert second.info["reward/distance"][0] == pytest.approx(-10 * distance.mean(), abs=2e-4)
    assert first.info["reward/action"][0] == pytest.approx(-0.01 * 0.25)
    assert first.info["reward/action_rate"][0] == pytest.approx(-0.02 * 0.25)
    assert second.info["reward/action_rate"][0] == pytest.approx(-0.02 * 1.0)


def test_success_needs_every_tip_near_in_each_of_the_last_five_steps() -> None:
    """The hand is put into goal poses by hand: at the goal for 5 steps, for 4, and with one finger off."""
    env = make(num_envs=3)
    env.reset(seed=0)
    goal = env.policy_inputs()["fingertip_goal"]
    poses = env.mdp.state["poses"][torch.cdist(goal, env.mdp.state["goals"]).argmin(1)]
    finger_off = poses[2].clone()
    finger_off[0] += 0.3 if finger_off[0] < 1 else -0.3
    for step in range(1, 41):
        at_goal = poses.clone()
        if step == 36:
            at_goal[1, 0] += 0.3 if at_goal[1, 0] < 1 else -0.3
        at_goal[2] = finger_off
        env._inputs["last_target"] = at_goal
        env.sim.set_state(torch.arange(3), at_goal, torch.zeros(3, 16))
        result = env.step(torch.zeros(3, 16))
    assert result.truncated.all()
    assert result.info["success"].tolist() == [True, False, False]


def test_servoing_to_the_goal_pose_succeeds() -> None:
    """The task can be done: targets moved straight to the goal pose, blind to collisions, nearly always succeed."""
    env = get_task("leap-reach").make_env(num_envs=64, seed=0, num_threads=2)
    env.reset(seed=0)
    inputs = env.policy_inputs()
    poses = env.mdp.state["poses"][torch.cdist(inputs["fingertip_goal"], env.mdp.state["goals"]).argmin(1)]
    for _ in range(40):
        step = env.step((poses - env.policy_inputs()["last_target"]) / env.mdp.config.action_scale_rad)
    assert step.info["success"].float().mean() > 0.85


def test_plain_implementation_sees_and_earns_the_same() -> None:
    """One MuJoCo model stepped and observed in numpy, from the same start under the same actions."""
    env = make(num_envs=1)
    inputs = env.policy_inputs()
    plain = PlainLeapReach(env.policy_io.contract)
    plain.reset(seed=0)
    plain.data.qpos[:] = inputs["joint_pos"][0]
    plain.data.ctrl[:] = inputs["joint_pos"][0]
    plain.target = inputs["last_target"][0].double().numpy()
    plain.goal = inputs["fingertip_goal"][0].double().numpy().reshape(4, 3)
    mujoco.mj_forward(plain.model, plain.data)
    rng = np.random.default_rng(0)
    for _ in range(20):
        action = rng.uniform(-1, 1, 16).astype(np.float32)
        step = env.step(torch.from_numpy(action).unsqueeze(0))
        assert not plain.step(action)[2]
        mujoco.mj_kinematics(plain.model, plain.data)  # MuJoCo's step leaves the fingertips one physics step old
        np.testing.assert_allclose(step.obs[0], plain.observe(), atol=5e-4)
        assert step.reward[0] == pytest.approx(plain.reward(), abs=5e-4)


def test_tolerance_is_the_one_promised() -> None:
    assert TOLERANCE_M == 0.015
