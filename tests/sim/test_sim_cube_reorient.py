"""Cube reorientation, with each hand: starts at rest, goals, counting, dropping, and that nothing becomes NaN."""

import math

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.testing.point_mass import PointMassEnv
from robot_rl_sim.randomization import NOMINAL, RandomizationConfig
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.cube_reorient.gait import gait
from robot_rl_sim.tasks.cube_reorient.hands import LEAP, SHADOW, HandSetup
from robot_rl_sim.tasks.cube_reorient.mdp import CubeReorient, CubeReorientConfig
from robot_rl_sim.tasks.cube_reorient.scene import CUBE, cube_spec, sample_grasps, touch_sensor

HANDS = pytest.mark.parametrize("hand", [LEAP, SHADOW], ids=lambda hand: hand.robot.name)
CONFIG = CubeReorientConfig(pool_size=16)


def make(hand: HandSetup = LEAP, num_envs: int = 4, config: CubeReorientConfig = CONFIG, randomization=NOMINAL):
    return assemble(CubeReorient(hand, num_envs, 0, config), num_envs, 0, randomization, "cpu", 1)


def quat(axis: np.ndarray, angle: float) -> np.ndarray:
    out = np.zeros(4)
    mujoco.mju_axisAngle2Quat(out, np.asarray(axis, float), angle)
    return out


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.zeros(4)
    mujoco.mju_mulQuat(out, np.asarray(a, float), np.asarray(b, float))
    return out


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """By the trace of the matrices' quotient."""
    ra, rb = np.zeros(9), np.zeros(9)
    mujoco.mju_quat2Mat(ra, np.asarray(a, float))
    mujoco.mju_quat2Mat(rb, np.asarray(b, float))
    trace = np.sum(ra * rb)
    return math.acos(np.clip((trace - 1) / 2, -1, 1))


def put_cube(env, world: int, quat_in_root: np.ndarray, offset_w: tuple[float, float, float] = (0, 0, 0)) -> None:
    """Turn the cube of one world to an orientation given in the root body's frame, at rest, where it lies."""
    root = env.sim.snapshot(world).body(env.mdp.robot.root_body).xquat
    qpos, qvel = env.sim.qpos[[world]].clone(), torch.zeros_like(env.sim.qvel[[world]])
    qpos[0, -4:] = torch.from_numpy(product(root, quat_in_root))
    qpos[0, -7:-4] += torch.tensor(offset_w)
    env.sim.set_state(torch.tensor([world]), qpos, qvel)


def judge(env):
    """What the task says of the present state, without physics in between."""
    return env.mdp.outcome(env._transition(torch.zeros(env.num_envs, env.action_dim)), torch.rand(env.num_envs, 2))


@HANDS
def test_the_cube_rests_in_the_hand_at_any_angle(hand: HandSetup) -> None:
    starts = sample_grasps(hand, 24, seed=1)
    assert len(starts) >= 20
    model = cube_spec(hand).compile()
    data = mujoco.MjData(model)
    turns = []
    for start in starts[:6]:
        data.qpos[:], data.qvel[:] = start, 0
        data.ctrl[:] = hand.grasp_rad
        mujoco.mj_forward(model, data)
        before = data.body(CUBE).xpos.copy()
        mujoco.mj_step(model, data, 100)
        assert np.linalg.norm(data.body(CUBE).xpos - before) < 0.01
        rotation = data.body(hand.robot.root_body).xmat.reshape(3, 3).T @ data.body(CUBE).xmat.reshape(3, 3)
        normal = np.array(hand.palm_normal)
        assert normal @ rotation @ normal > math.cos(math.radians(35))  # the face that lies on the palm still does
        turns.append(rotation[(np.abs(normal).argmax() + 1) % 3] @ np.eye(3)[(np.abs(normal).argmax() + 1) % 3])
    assert np.ptp(turns) > 0.5


@HANDS
def test_palm_looks_up_and_fingers_slope_down(hand: HandSetup) -> None:
    model = cube_spec(hand).compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    up = data.body(hand.robot.root_body).xmat.reshape(3, 3) @ np.array(hand.palm_normal)
    assert up[2] == pytest.approx(math.cos(math.radians(20)), abs=0.01)


@HANDS
def test_goals_are_turns_about_the_palms_normal(hand: HandSetup) -> None:
    env = make(hand, num_envs=64)
    goals = env.policy_inputs()["goal_quat_wxyz"].double().numpy()
    now = env.policy_inputs()["object_quat_wxyz"].double().numpy()
    normal = np.array(hand.palm_normal)
    signs = set()
    for goal, start in zip(goals, now, strict=True):
        assert np.linalg.norm(goal) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(goal[1:] - (goal[1:] @ normal) * normal, 0, atol=1e-5)
        # From the nearest turn to where the cube lies; it may be tilted by some degrees.
        assert math.radians(45) < angle_between(goal, start) < math.radians(95)
        left = product(goal, start * [1, -1, -1, -1])
        signs.add(np.sign(left[0] * (left[1:] @ normal)))
    assert signs == {-1.0, 1.0}


@HANDS
def test_reaching_a_goal_counts_and_asks_for_the_next(hand: HandSetup) -> None:
    """The cube is turned by hand: onto the goal, to just outside the tolerance, and to minus the goal's quaternion."""
    env = make(hand, num_envs=3)
    goal = env.policy_inputs()["goal_quat_wxyz"].double().numpy()
    normal = np.array(hand.palm_normal)
    put_cube(env, 0, goal[0])
    put_cube(env, 1, product(quat(normal, CONFIG.tolerance_rad + 0.02), goal[1]))
    put_cube(env, 2, -product(quat([1, 0, 0], CONFIG.tolerance_rad - 0.02), goal[2]))
    outcome = judge(env)
    assert outcome.metrics["consecutive_goals"].tolist() == [1.0, 0.0, 1.0]
    assert outcome.rewards["goal"].tolist() == [5.0, 0.0, 5.0]
    assert not outcome.terminated.any()
    asked = outcome.command.double().numpy()
    np.testing.assert_allclose(asked[1], goal[1], atol=1e-6)
    for i in (0, 2):
        assert math.radians(50) - 1e-4 < angle_between(asked[i], goal[i]) < math.radians(90) + 1e-4
    # Standing still reaches nothing more, and there is no reward for the change of goal.
    env._inputs["command"] = outcome.command
    again = judge(env)
    assert again.metrics["consecutive_goals"].tolist() == [1.0, 0.0, 1.0]
    torch.testing.assert_close(again.rewards["turn"], torch.zeros(3), atol=1e-4, rtol=0)


def test_turning_towards_the_goal_pays_by_the_angle() -> None:
    env = make(num_envs=1)
    goal = env.policy_inputs()["goal_quat_wxyz"][0].double().numpy()
    normal = np.array(LEAP.palm_normal)
    put_cube(env, 0, product(quat(normal, 1.2), goal))
    judge(env)
    put_cube(env, 0, product(quat(normal, 0.9), goal))
    assert float(judge(env).rewards["turn"]) == pytest.approx(5 * 0.3, abs=1e-3)
    put_cube(env, 0, product(quat(normal, 1.0), goal))
    assert float(judge(env).rewards["turn"]) == pytest.approx(-5 * 0.1, abs=1e-3)


@HANDS
def test_a_dropped_cube_ends_the_episode_and_the_count(hand: HandSetup) -> None:
    env = make(hand, num_envs=2)
    goal = env.policy_inputs()["goal_quat_wxyz"].double().numpy()
    put_cube(env, 0, goal[0], offset_w=(0.0, 0.0, -0.15))  # at the goal, but below the hand
    put_cube(env, 1, goal[1])
    step = env.step(torch.zeros(2, env.action_dim))
    assert step.terminated.tolist() == [True, False]
    assert not step.truncated.any()
    assert step.info["reward/drop"].tolist() == [-10.0, 0.0]
    assert step.info["consecutive_goals"].tolist() == [0.0, 1.0]
    assert not step.info["success"].any()
    assert env.mdp.state["goals_reached"].tolist() == [0.0, 1.0]
    assert env._steps.tolist() == [0, 1]


def test_success_is_enough_goals_and_no_drop() -> None:
    env = make(num_envs=2, config=CubeReorientConfig(pool_size=16, max_episode_steps=6, goals_for_success=3))
    for step in range(1, 7):
        goal = env.policy_inputs()["goal_quat_wxyz"].double().numpy()
        put_cube(env, 0, goal[0])
        if step < 3:
            put_cube(env, 1, goal[1])
        result = env.step(torch.zeros(2, 16))
    assert result.truncated.all()
    assert result.info["consecutive_goals"][0] >= 5
    assert result.info["consecutive_goals"][1] < 3
    assert result.info["success"].tolist() == [True, False]


def test_privileged_values_are_the_physics_own() -> None:
    env = make(num_envs=2)
    for _ in range(3):
        env.step(0.3 * torch.ones(2, 16))
    seen = env.mdp.privileged(env.sim)
    data = env.sim.snapshot(1)
    root = data.body(LEAP.robot.root_body)
    rotation = root.xmat.reshape(3, 3)
    cube = rotation.T @ data.body(CUBE).xmat.reshape(3, 3)
    np.testing.assert_allclose(seen[1, 3:9], cube[:, :2].T.ravel(), atol=1e-5)
    np.testing.assert_allclose(seen[1, 9:12] * 0.2, data.joint(CUBE).qvel[:3], atol=1e-5)
    np.testing.assert_allclose(seen[1, 12:15] * 4.0, data.joint(CUBE).qvel[3:], atol=1e-5)
    touch = [float(env.sim.sensor(touch_sensor(c.name))[1, 0]) / (9.81 * 0.08) for c in LEAP.robot.chains]
    np.testing.assert_allclose(seen[1, 15:19], touch, atol=1e-5)
    assert max(touch) > 0
    assert seen.shape == (2, 19)


@HANDS
def test_random_actions_leave_nothing_that_is_not_finite(hand: HandSetup) -> None:
    env = make(hand, num_envs=16, randomization=RandomizationConfig())
    generator = torch.Generator().manual_seed(0)
    drops = 0
    for _ in range(120):
        step = env.step(2 * torch.rand(16, env.action_dim, generator=generator) - 1)
        drops += int(step.terminated.sum())
        assert torch.isfinite(step.obs).all()
        assert torch.isfinite(step.reward).all()
        assert torch.isfinite(env.privileged()).all()
    assert drops > 0
    assert env.num_diverged == 0


def test_the_scripted_gait_turns_the_cube_both_ways() -> None:
    """The angle that the cubes come closer to their goals by, and at least a goal or two."""
    env = make(num_envs=16)
    env.reset(seed=0)
    policy, gained, goals = gait(env), 0.0, 0.0
    for _ in range(160):
        step = env.step(policy(env._obs))
        gained += float(step.info["reward/turn"].mean()) / CONFIG.turn_weight
        goals += float(step.info["reward/goal"].sum()) / CONFIG.goal_weight
    assert gained > 0.2
    assert goals >= 2


def test_the_scripted_gait_is_for_this_task_only() -> None:
    with pytest.raises(ConfigError, match="for the cube tasks"):
        gait(PointMassEnv(1, seed=0))


def test_count_and_goal_go_on_after_a_restart() -> None:
    env, other = make(num_envs=2), make(num_envs=2)
    put_cube(env, 0, env.policy_inputs()["goal_quat_wxyz"][0].double().numpy())
    action = 0.2 * torch.ones(2, 16)
    env.step(action)
    other.load_state_dict(env.state_dict())
    first, second = env.step(action), other.step(action)
    assert first.info["consecutive_goals"].tolist() == [1.0, 0.0]
    assert torch.equal(first.info["consecutive_goals"], second.info["consecutive_goals"])
    assert torch.equal(first.obs, second.obs)
    assert torch.equal(first.reward, second.reward)
