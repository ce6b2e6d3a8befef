"""Reaching, with each hand: goals that can be reached, rewards and success by hand, agreement with a plain one."""

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.bundle.load import load_bundle
from robot_rl.env import get_task
from robot_rl.errors import ConfigError
from robot_rl.networks.kinematics import TipKinematics
from robot_rl.testing.point_mass import PointMassEnv
from robot_rl.training.evaluate import evaluate
from robot_rl_sim.models import load_model
from robot_rl_sim.randomization import NOMINAL
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.reach.goals import TOLERANCE_M, sample_goals
from robot_rl_sim.tasks.reach.hands import LEAP, SHADOW, ReachHand
from robot_rl_sim.tasks.reach.mdp import TIP_ERROR_SCALE, Reach, ReachConfig, closeness, mean_square, tip_distance
from robot_rl_sim.tasks.reach.servo import servo

HANDS = pytest.mark.parametrize("hand", [LEAP, SHADOW], ids=lambda hand: hand.robot.name)
CONFIG = ReachConfig()


def make(hand: ReachHand = LEAP, num_envs: int = 4, pool_size: int = 32):
    mdp = Reach(hand, seed=0, config=ReachConfig(pool_size=pool_size))
    return assemble(mdp, num_envs, 0, NOMINAL, "cpu", 1)


class PlainReach:
    """The task on one MuJoCo model, observed and rewarded in numpy."""

    def __init__(self, hand: ReachHand, pose: np.ndarray, target: np.ndarray, goal: np.ndarray) -> None:
        self.robot = hand.robot
        self.model = load_model(hand.robot.name)
        self.data = mujoco.MjData(self.model)
        self.data.qpos[:] = self.data.ctrl[:] = pose
        self.target = target
        self.goal = goal.reshape(-1, 3)
        margin = [hand.robot.safety.soft_margin * (j.upper_rad - j.lower_rad) for j in hand.robot.joints]
        self.low = np.array([j.lower_rad for j in hand.robot.joints]) + margin
        self.high = np.array([j.upper_rad for j in hand.robot.joints]) - margin
        self.default = np.array([j.default_pos_rad for j in hand.robot.joints])
        self.action = np.zeros_like(pose)
        self.last_action = np.zeros_like(pose)

    def step(self, action: np.ndarray) -> None:
        self.last_action, self.action = self.action, action
        self.target = np.clip(self.target + CONFIG.action_scale_rad * action, self.low, self.high)
        self.data.ctrl[:] = self.target
        mujoco.mj_step(self.model, self.data, CONFIG.substeps)
        mujoco.mj_kinematics(self.model, self.data)  # MuJoCo's step leaves the fingertips one physics step old

    def tip_error(self) -> np.ndarray:
        root = self.data.body(self.robot.root_body)
        tips = np.array([self.data.site(chain.name).xpos for chain in self.robot.chains])
        return self.goal - (tips - root.xpos) @ root.xmat.reshape(3, 3)

    def observe(self) -> np.ndarray:
        q = self.data.qpos
        lag = (self.target - q) / CONFIG.action_scale_rad
        return np.concatenate((q - self.default, 0.1 * self.data.qvel, lag, TIP_ERROR_SCALE * self.tip_error().ravel()))

    def reward(self) -> float:
        distance = np.linalg.norm(self.tip_error(), axis=1)
        return float(
            -10 * distance.mean()
            + np.exp(-((distance / 0.015) ** 2)).mean()
            - 0.01 * np.square(self.action).mean()
            - 0.02 * np.square(self.action - self.last_action).mean()
        )


@HANDS
def test_goals_are_poses_that_the_hand_can_take(hand: ReachHand) -> None:
    poses, tips = sample_goals(hand, 50, seed=3)
    model = load_model(hand.robot.name)
    data = mujoco.MjData(model)
    for pose in poses:
        data.qpos[:] = pose
        mujoco.mj_forward(model, data)
        assert data.ncon == 0
    for i, joint in enumerate(hand.robot.joints):
        share = (poses[:, i] - joint.lower_rad) / (joint.upper_rad - joint.lower_rad)
        assert share.min() >= 0.15
        assert share.max() <= 0.85
    kinematics = TipKinematics(hand.robot, hand.robot.chains)
    torch.testing.assert_close(kinematics(poses).flatten(1), tips, atol=2e-5, rtol=0)
    assert tips.abs().max() < hand.command_bound_m


def test_goals_depend_on_the_seed_alone() -> None:
    assert torch.equal(sample_goals(LEAP, 5, 1)[1], sample_goals(LEAP, 5, 1)[1])
    assert not torch.equal(sample_goals(LEAP, 5, 1)[1], sample_goals(LEAP, 5, 2)[1])


def test_reward_terms_by_hand() -> None:
    tips = torch.zeros(1, 4, 3)
    goal = torch.tensor([[0.03, 0.04, 0.0, 0.0, 0.0, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    distance = tip_distance(tips, goal)
    torch.testing.assert_close(distance, torch.tensor([[0.05, 0.02, 0.0, 0.0]]))
    expected = (math.exp(-6.25) + math.exp(-1) + 1 + 1) / 4
    torch.testing.assert_close(closeness(distance, 0.02), torch.tensor([expected]))
    torch.testing.assert_close(mean_square(torch.tensor([[1.0, -3.0]])), torch.tensor([5.0]))


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


@pytest.mark.parametrize("task", ["leap-reach", "shadow-reach"])
def test_servoing_to_the_goal_pose_succeeds(task: str) -> None:
    """The task can be done: targets moved straight to the goal pose, blind to collisions, nearly always succeed.

    With the dynamics as modelled: blind to the fingertips, too, this has no answer to random torques at a wrist.
    """
    env = get_task(task).make_env(num_envs=64, seed=0, num_threads=2, randomize=False)
    env.reset(seed=0)
    inputs = env.policy_inputs()
    poses = env.mdp.state["poses"][torch.cdist(inputs["fingertip_goal"], env.mdp.state["goals"]).argmin(1)]
    for _ in range(40):
        step = env.step((poses - env.policy_inputs()["last_target"]) / env.mdp.config.action_scale_rad)
    assert step.info["success"].float().mean() > 0.85


@pytest.mark.parametrize("task", ["leap-reach", "shadow-reach"])
def test_the_scripted_policy_reaches_most_goals_whatever_is_randomised(task: str) -> None:
    chosen = get_task(task)
    env = chosen.make_env(num_envs=32, seed=0, num_threads=2)
    assert chosen.scripted is not None
    evaluation = evaluate(env, chosen.scripted(env), 32, seed=0)
    assert evaluation.success_rate is not None
    assert evaluation.success_rate > 0.7  # doing nothing and acting at random never succeed


def test_the_scripted_policy_is_for_this_task_only() -> None:
    with pytest.raises(ConfigError, match="for the reach tasks"):
        servo(PointMassEnv(1, seed=0))


@HANDS
def test_plain_implementation_sees_and_earns_the_same(hand: ReachHand) -> None:
    """One MuJoCo model stepped and observed in numpy, from the same start under the same actions."""
    env = make(hand, num_envs=1)
    start = {name: value[0].double().numpy() for name, value in env.policy_inputs().items()}
    plain = PlainReach(hand, start["joint_pos"], start["last_target"], start["fingertip_goal"])
    rng = np.random.default_rng(0)
    for _ in range(20):
        action = rng.uniform(-1, 1, env.action_dim)
        step = env.step(torch.from_numpy(action).float().unsqueeze(0))
        plain.step(action)
        np.testing.assert_allclose(step.obs[0], plain.observe(), atol=5e-4)
        assert step.reward[0] == pytest.approx(plain.reward(), abs=5e-4)


def test_the_shipped_policy_is_for_this_task() -> None:
    bundle = load_bundle(Path(__file__).parents[2] / "policies/leap_hand/leap-reach/v1")
    assert bundle.contract.digest() == make().policy_io.contract.digest()


def test_tolerance_is_the_one_promised() -> None:
    assert TOLERANCE_M == 0.015
