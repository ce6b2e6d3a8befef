"""g1-balance: rewards and terminations by hand, the action scale, and the agreement with a plain implementation."""

import math

import mujoco
import numpy as np
import pytest
import torch
from plain_tasks import PlainG1Balance

from robot_rl.env import get_task
from robot_rl.robots import UNITREE_G1
from robot_rl_sim.disturbances import PushConfig
from robot_rl_sim.models import default_qpos, load_model
from robot_rl_sim.randomization import NOMINAL
from robot_rl_sim.tasks.actions import soft_limits
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.g1_balance.mdp import (
    G1Balance,
    G1BalanceConfig,
    effort_share,
    pose_closeness,
    stillness,
    upright,
)

NEVER = PushConfig((0.0, 0.0), (10_000, 10_000))


def make(num_envs: int = 2, pushes: PushConfig = NEVER):
    return assemble(G1Balance(G1BalanceConfig(pushes=pushes)), num_envs, 0, NOMINAL, "cpu", 1)


def test_reward_terms_by_hand() -> None:
    gravity = torch.tensor([[0.0, 0.0, -1.0], [0.12, -0.16, -0.9798], [0.0, -1.0, 0.0]])
    torch.testing.assert_close(upright(gravity), torch.tensor([1.0, math.exp(-1), math.exp(-25)]))
    torch.testing.assert_close(stillness(torch.tensor([[0.0, 0.0], [0.3, 0.4]])), torch.tensor([1.0, math.exp(-1)]))
    torch.testing.assert_close(
        pose_closeness(torch.tensor([[0.5, 0.1]]), torch.tensor([0.1, 0.1])), torch.tensor([math.exp(-4 * 0.08)])
    )
    torch.testing.assert_close(
        effort_share(torch.tensor([[5.0, -20.0]]), torch.tensor([10.0, 20.0])), torch.tensor([0.625])
    )


def test_observation_holds_only_what_the_robot_measures() -> None:
    contract = make().policy_io.contract
    assert [t.name for t in contract.inputs if t.source == "state"] == [
        "joint_pos",
        "joint_vel",
        "imu_quat_wxyz",
        "imu_ang_vel_b",
    ]
    assert dict(contract.observation_terms) == {
        "base_ang_vel": 3,
        "projected_gravity": 3,
        "joint_pos": 29,
        "joint_vel": 29,
        "last_action": 29,
    }


def test_full_action_is_a_quarter_of_the_effort_and_more_in_the_legs() -> None:
    """At rest in the default pose, an action of 1 makes each servo push with 0.25 of its limit, a leg's with 0.3125,
    where range allows."""
    env = make(1)
    robot, model = UNITREE_G1, load_model(UNITREE_G1.name)
    target = env.policy_io.decode(torch.ones(1, 29), torch.zeros(1, 29))[0].double().numpy()
    data = mujoco.MjData(model)
    data.qpos[:] = default_qpos(model, robot)
    data.ctrl[:] = target
    mujoco.mj_forward(model, data)
    share = data.actuator_force / np.array([j.effort_limit_nm for j in robot.joints])
    expected = np.array([0.3125] * 12 + [0.25] * 17)
    assert [j.name.split("_")[1] for j in robot.joints[:12]] == 2 * ["hip", "hip", "hip", "knee", "ankle", "ankle"]
    free = target < np.array(soft_limits(robot)[1]) - 1e-6
    np.testing.assert_allclose(share[free], expected[free], rtol=1e-4)
    assert (share[~free] < expected[~free]).all()
    assert int((~free).sum()) <= 4


def test_the_arms_term_is_of_the_arms_alone() -> None:
    env = make(2)
    qpos = env.sim.qpos.clone()
    qpos[:, 2] = 2.0
    leg, arm = (7 + UNITREE_G1.joint_names.index(name) for name in ("left_knee_joint", "left_elbow_joint"))
    qpos[:, 7:] = env.policy_io.offset
    qpos[0, leg] += 0.3
    qpos[1, arm] += 0.3
    env.sim.set_state(torch.arange(2), qpos, torch.zeros(2, 35))
    hold = ((qpos[:, 7:].float() - env.policy_io.offset) / env.policy_io.scale).clamp(-1, 1)
    with_leg, with_arm = env.step(hold).info["reward/arms"].tolist()
    assert with_leg == pytest.approx(0.25, abs=1e-3)
    assert with_arm == pytest.approx(0.25 * math.exp(-4 * 0.09 / 14), abs=2e-3)


@pytest.mark.parametrize(("roll_rad", "height_m", "fallen"), [(0.95, 1.5, False), (1.05, 1.5, True), (0.0, 0.9, True)])
def test_falls_by_tilt_and_by_height(roll_rad: float, height_m: float, fallen: bool) -> None:
    """In the air, so that nothing but tilt and height changes; the height limit is raised to be met there."""
    mdp = G1Balance(G1BalanceConfig(pushes=NEVER, min_height_m=1.0))
    env = assemble(mdp, 1, 0, NOMINAL, "cpu", 1)
    qpos = env.sim.qpos.clone()
    qpos[0, 2] = height_m
    qpos[0, 3:7] = torch.tensor([math.cos(roll_rad / 2), math.sin(roll_rad / 2), 0.0, 0.0])
    env.sim.set_state(torch.arange(1), qpos, torch.zeros(1, 35))
    step = env.step(torch.zeros(1, 29))
    assert bool(step.terminated) == fallen
    assert float(step.info["reward/alive"]) == (0.0 if fallen else 1.0)


def test_success_is_to_stand_when_time_is_up() -> None:
    """One humanoid hangs in the air upright for a whole episode; the other falls in between and starts again."""
    env = make(2)
    everyone = torch.arange(2)
    standing = env.sim.qpos.clone()
    for step in range(1, 501):
        qpos = standing.clone()
        qpos[:, 2] = 2.0
        if step == 250:
            qpos[1, 2] = 0.1
        env.sim.set_state(everyone, qpos, torch.zeros(2, 35))
        result = env.step(torch.zeros(2, 29))
        if step == 250:
            assert result.terminated.tolist() == [False, True]
            assert result.info["success"][1].item() is False
    assert result.truncated.tolist() == [True, False]
    assert result.info["success"][0].item() is True
    assert result.info["episode_length"].tolist() == [500, 250]


def test_pushes_are_part_of_the_nominal_task() -> None:
    env = get_task("g1-balance").make_env(num_envs=2, seed=0, randomize=False, num_threads=1)
    assert env.mdp.pushes == PushConfig((0.1, 0.5), (75, 150))
    pushed, calm = make(1, PushConfig((0.5, 0.5), (1, 1))), make(1)
    pushed.step(torch.zeros(1, 29))
    calm.step(torch.zeros(1, 29))
    change = (pushed.sim.qvel[:, :2] - calm.sim.qvel[:, :2]).norm().item()
    assert 0.3 < change < 0.7


def test_plain_implementation_sees_and_earns_the_same() -> None:
    env = make(1)
    plain = PlainG1Balance(env.policy_io.contract)
    plain.reset(seed=0)
    plain.next_push = 10_000
    plain.data.qpos[:] = env.sim.qpos[0]
    plain.data.qvel[:] = env.sim.qvel[0]
    plain.data.ctrl[:] = env.sim.joint_pos[0]
    mujoco.mj_forward(plain.model, plain.data)
    rng = np.random.default_rng(0)
    for _ in range(15):
        action = rng.uniform(-0.4, 0.4, 29).astype(np.float32)
        step = env.step(torch.from_numpy(action).unsqueeze(0))
        obs, reward, terminated, _, _ = plain.step(action)
        assert not terminated
        # Contacts amplify the rounding of float32 targets; gravity of the plain one is a physics step old.
        np.testing.assert_allclose(step.obs[0, -len(obs) :], obs, atol=0.03)
        assert step.reward[0] == pytest.approx(reward, abs=0.03)


def test_privileged_columns_are_the_velocity_in_the_bodys_frame_and_the_height():
    """Against MuJoCo's own velocity of the pelvis in its local frame."""
    env = make(4)
    qpos, qvel = env.sim.qpos.clone(), env.sim.qvel.clone()
    generator = torch.Generator().manual_seed(0)
    quaternion = torch.randn(4, 4, generator=generator, dtype=qpos.dtype)
    qpos[:, 3:7] = quaternion / quaternion.norm(dim=-1, keepdim=True)
    qvel[:] = torch.randn(qvel.shape, generator=generator, dtype=qvel.dtype)
    env.sim.set_state(torch.arange(4), qpos, qvel)
    model = load_model(UNITREE_G1.name)
    data, velocity = mujoco.MjData(model), np.zeros(6)
    for row, q, v in zip(env.privileged(), qpos.numpy(), qvel.numpy(), strict=True):
        data.qpos[:], data.qvel[:] = q, v
        mujoco.mj_forward(model, data)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, 1, velocity, 1)
        np.testing.assert_allclose(row[:3], velocity[3:], atol=1e-5)
        assert row[3].item() == pytest.approx((q[2] - 0.45) / 0.3, abs=1e-5)
