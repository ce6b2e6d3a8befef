"""The mirror image of a motion is a motion: physics, observation and reward of the mirrored robot agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError, ContractError
from robot_rl.robots import UNITREE_G1
from robot_rl_sim.disturbances import PushConfig
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.randomization import NOMINAL, RandomizationConfig
from robot_rl_sim.sensor_config import PERFECT, SensorConfig
from robot_rl_sim.symmetry import mirror
from robot_rl_sim.tasks import TASKS
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.g1_balance.mdp import G1Balance, G1BalanceConfig
from robot_rl_sim.tasks.g1_velocity.mdp import G1Velocity, G1VelocityConfig
from robot_rl_sim.terrain import TerrainConfig

NEVER = PushConfig((0.0, 0.0), (10_000, 10_000))
WORLDS = 8


def other_side(qpos: torch.Tensor, qvel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The state reflected at the plane y = 0, written out independently of the code under test: by joint names."""
    joints = [joint.name for joint in UNITREE_G1.joints]

    def reflect(x: torch.Tensor) -> torch.Tensor:
        columns = []
        for name in joints:
            other = name.replace("left", "?").replace("right", "left").replace("?", "right")
            sign = -1.0 if "roll" in name or "yaw" in name else 1.0
            columns.append(sign * x[:, joints.index(other)])
        return torch.stack(columns, -1)

    base = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0])  # position, then (w, x, y, z)
    velocity = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])  # linear, then angular
    return (
        torch.cat((qpos[:, :7] * base, reflect(qpos[:, 7:])), -1),
        torch.cat((qvel[:, :6] * velocity, reflect(qvel[:, 6:])), -1),
    )


def g1() -> SimVecEnv:
    return assemble(G1Balance(G1BalanceConfig(pushes=NEVER, history_length=1)), WORLDS, 0, NOMINAL, "cpu", 1)


def test_twice_is_the_identity_and_once_is_not():
    image = G1Balance(G1BalanceConfig(history_length=1)).mirror
    obs, action = torch.randn(5, 97), torch.randn(5, 29)
    assert torch.equal(image.obs(image.obs(obs)), obs)
    assert torch.equal(image.action(image.action(action)), action)
    assert not torch.equal(image.obs(obs), obs)
    by_hand = image.obs(torch.arange(1.0, 98.0).unsqueeze(0))[0]
    assert by_hand[:6].tolist() == [-1, 2, -3, 4, -5, 6]  # base_ang_vel, projected_gravity
    assert by_hand[6:9].tolist() == [13, -14, -15]  # left hip pitch, roll, yaw are the right ones, columns 12 to 14
    assert by_hand[18:21].tolist() == [-19, -20, 21]  # waist yaw, roll, pitch
    assert by_hand[93:].tolist() == [94, -95, 96, 97]  # the base's velocity and height, which are privileged


def test_a_mirrored_robot_moves_as_the_mirror_image():
    """Falling, standing and pushing off, over a few steps: contacts are chaotic, so not for long. The vendor's figures
    put the torso's centre of mass 0.3 mm off the middle, which the tolerances allow for."""
    torch.manual_seed(0)
    one, two = g1(), g1()
    image = one.mdp.mirror
    start = one.mdp.start(torch.arange(WORLDS), torch.rand(WORLDS, one.mdp.start_draws))
    qpos, qvel = start.qpos.clone(), start.qvel.clone()
    qpos[:, 3:7] = torch.nn.functional.normalize(qpos[:, 3:7] + 0.1 * torch.randn(WORLDS, 4), dim=-1)
    qpos[:, 7:] += 0.1 * torch.randn(WORLDS, 29)
    qvel += 0.3 * torch.randn(qvel.shape)
    for env, (position, velocity) in ((one, (qpos, qvel)), (two, other_side(qpos, qvel))):
        env.sim.set_state(torch.arange(WORLDS), position, velocity)
    for _ in range(5):
        action = 1.6 * torch.rand(WORLDS, 29) - 0.8
        ours, theirs = one.step(action), two.step(image.action(action))
        assert ours.obs.abs().max() > 0.5
        rows = [torch.cat((step.final_obs, step.final_privileged), -1) for step in (ours, theirs)]
        torch.testing.assert_close(image.obs(rows[0]), rows[1], rtol=0, atol=2e-3)
        torch.testing.assert_close(ours.reward, theirs.reward, rtol=0, atol=2e-3)
    reflected = other_side(one.sim.qpos.clone(), one.sim.qvel.clone())
    np.testing.assert_allclose(reflected[0], two.sim.qpos, atol=1e-3)


def walkers(terrain: TerrainConfig | None = None) -> tuple[SimVecEnv, SimVecEnv, torch.Tensor, torch.Tensor]:
    """Two environments, and a state near standing on the ground at the origin."""
    torch.manual_seed(0)
    config = G1VelocityConfig(pushes=NEVER, terrain=terrain, history_length=2)
    one, two = (assemble(G1Velocity(WORLDS, config), WORLDS, 0, NOMINAL, "cpu", 1) for _ in range(2))
    qpos = one.mdp.start(torch.arange(WORLDS), torch.rand(WORLDS, one.mdp.start_draws)).qpos.clone()
    qpos[:, :2] = 0.3 * torch.randn(WORLDS, 2)
    qpos[:, 3:7] = torch.nn.functional.normalize(qpos[:, 3:7] + 0.1 * torch.randn(WORLDS, 4), dim=-1)
    return one, two, qpos, 0.3 * torch.randn(WORLDS, 35).double()


def test_a_mirrored_walker_is_asked_and_told_the_mirror_image():
    """Commands, the gait's clock half a cycle on, what the feet do, and the rewards of it all."""
    one, two, qpos, qvel = walkers()
    image = one.mdp.mirror
    for env, (position, velocity) in ((one, (qpos, qvel)), (two, other_side(qpos, qvel))):
        env.sim.set_state(torch.arange(WORLDS), position, velocity)
    command = torch.rand(WORLDS, 3) - 0.5
    one._inputs["command"] = command
    two._inputs["command"] = command * torch.tensor([1.0, -1.0, -1.0])
    two._inputs["gait_phase"] += 0.5
    two._steps += 20
    differ = 0
    for step in range(6):
        action = 2 * torch.rand(WORLDS, 29) - 1
        ours, theirs = one.step(action), two.step(image.action(action))
        if step == 0:
            continue  # the frame before is still that of the start
        rows = [torch.cat((result.final_obs, result.final_privileged), -1) for result in (ours, theirs)]
        torch.testing.assert_close(image.obs(rows[0]), rows[1], rtol=0, atol=5e-3)
        torch.testing.assert_close(ours.reward, theirs.reward, rtol=0, atol=1e-3)
        contact = one.mdp.state["foot_standing"]
        differ += int((contact[:, 0] != contact[:, 1]).sum())
    assert differ > 3  # or the feet's columns would not tell left from right


def test_the_ground_around_a_mirrored_walker_is_the_mirror_image():
    """Beside the other side of the waves, which but for their triangles are symmetric about their patch's middle."""
    one, two, qpos, qvel = walkers(TerrainConfig(kinds=("waves",), levels=2))
    terrain, image = one.mdp.terrain, one.mdp.mirror
    middle = torch.tensor(terrain.center(0, 1))
    qpos[:, 2] = 0.79 + terrain.height(qpos[:, :2].float() + middle)
    for env, (position, velocity) in ((one, (qpos, qvel)), (two, other_side(qpos, qvel))):
        position = position.clone()
        position[:, :2] += middle
        env.sim.set_state(torch.arange(WORLDS), position, velocity)
    obs = torch.zeros(WORLDS, one.obs_dim)
    rows = [torch.cat((obs, env.privileged()), -1) for env in (one, two)]
    torch.testing.assert_close(image.obs(rows[0]), rows[1], rtol=0, atol=0.02)
    scan = rows[0][:, -15:].unflatten(-1, (5, 3))
    assert (scan[..., 0] - scan[..., 2]).abs().max() > 0.2


def test_a_mirrored_robot_with_mirrored_draws_moves_as_the_mirror_image():
    """Masses, gains, offsets, latency and gravity that differ from side to side, and what critics see of them. In the
    air, where nothing is chaotic."""
    config = RandomizationConfig(
        link_mass_scale=(0.7, 1.3),
        inertia_scale=(0.7, 1.3),
        payload_kg=(-1.0, 1.0),
        com_shift_m=(-0.05, 0.05),
        motor_strength_scale=(0.7, 1.3),
        all_motors_scale=(0.7, 1.3),
        joint_friction_share=(0.0, 0.02),
        gravity_shift_m_s2=(-1.0, 1.0),
        torque_noise_share=0.0,
        sensors=replace(PERFECT, joint_pos=SensorConfig(bias=0.05), imu_ang_vel_b=SensorConfig(bias=0.3)),
        privileged=True,
    )
    torch.manual_seed(0)
    mdp = G1BalanceConfig(pushes=NEVER)
    one, two, unlike = (assemble(G1Balance(mdp), WORLDS, 0, config, "cpu", 1) for _ in range(3))
    image, everyone, dim = one.mirror, torch.arange(WORLDS), one.obs_dim
    assert one.privileged_dim == 4 + sum(size for _, size in one.draws.layout) > 200
    privileged = one.privileged()
    assert torch.equal(privileged[:, 4:], one.draws.values)
    assert torch.equal(image.obs(image.obs(torch.cat((one._obs, privileged), -1)))[:, dim:], privileged)
    start = one.mdp.start(everyone, torch.rand(WORLDS, one.mdp.start_draws))
    start.qpos[:, 2] += 0.3
    qvel = start.qvel + 0.3 * torch.randn(start.qvel.shape)
    mirrored = image.obs(torch.cat((one._obs, privileged), -1))[:, dim + 4 :]
    target, gap = start.qpos[:, 7:].float(), 0.0
    for env, (position, velocity), held, drawn in (
        (one, (start.qpos, qvel), target, one.draws.values.clone()),
        (two, other_side(start.qpos, qvel), image.action(target), mirrored),
        (unlike, other_side(start.qpos, qvel), image.action(target), one.draws.values.clone()),
    ):
        env.draws.values.copy_(drawn)
        env.imperfections.randomizer.reset(everyone)
        env.sim.set_state(everyone, position, velocity)
        env.imperfections.sensors.reset(everyone)
        env.imperfections.latency.reset(everyone, held)
    for step in range(6):
        action = 2 * torch.rand(WORLDS, 29) - 1
        ours, theirs, others = one.step(action), two.step(image.action(action)), unlike.step(image.action(action))
        if step < mdp.history_length:
            continue  # frames of before the start are still in the observation
        rows = [torch.cat((result.final_obs, result.final_privileged), -1) for result in (ours, theirs, others)]
        torch.testing.assert_close(image.obs(rows[0]), rows[1], rtol=0, atol=3e-3)
        gap = max(gap, float((image.obs(rows[0]) - rows[2])[:, :dim].abs().max()))
    assert gap > 0.1


def test_tasks_without_two_like_sides_say_so():
    env = TASKS["leap-reach"].make_env(num_envs=1, seed=0, num_threads=1)
    assert env.mirror is None
    with pytest.raises(ConfigError, match="'leap_hand' has no left-right symmetry"):
        mirror(env.policy_io)


def test_a_robot_whose_mirror_image_is_not_its_own_is_refused():
    wrong = (("right_hip_pitch_joint", -1), *UNITREE_G1.mirror[1:])
    with pytest.raises(ContractError, match=r"twice must change nothing, but does for .*left_hip_pitch_joint"):
        replace(UNITREE_G1, mirror=wrong)
