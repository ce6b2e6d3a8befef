"""g1-velocity against MuJoCo's own kinematics: what is rewarded, what critics are told, falls, levels, symmetry."""

import math
from dataclasses import replace
from functools import partial

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.robots import UNITREE_G1
from robot_rl_sim.disturbances import PushConfig
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.mdp import Transition
from robot_rl_sim.models import default_qpos, load_model
from robot_rl_sim.randomization import NOMINAL
from robot_rl_sim.tasks.actions import soft_limits
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.g1_velocity.commands import CommandConfig
from robot_rl_sim.tasks.g1_velocity.mdp import G1Velocity, G1VelocityConfig
from robot_rl_sim.terrain import TerrainConfig

FLAT = G1VelocityConfig(pushes=PushConfig((0.0, 0.0), (10_000, 10_000)))
ROUGH = replace(FLAT, terrain=TerrainConfig(kinds=("flat", "waves"), levels=3), commands=CommandConfig())
ACTION = torch.zeros(1, 29)


def make(num_worlds: int = 1, config: G1VelocityConfig = FLAT) -> SimVecEnv:
    return assemble(G1Velocity(num_worlds, config), num_worlds, 0, NOMINAL, "cpu", 1)


def transition(env: SimVecEnv, command: torch.Tensor, steps: int = 10) -> Transition:
    n = env.num_envs
    pos, vel = env.sim.joint_pos.float(), env.sim.joint_vel.float()
    zeros = torch.zeros(n, 29)
    return Transition(env.sim, pos, vel, zeros, zeros, command.expand(n, 3), torch.full((n,), steps))


def set_state(env: SimVecEnv, qpos: torch.Tensor, qvel: torch.Tensor) -> None:
    env.sim.set_state(torch.arange(env.num_envs), qpos, qvel)


def forwarded(env: SimVecEnv, world: int = 0) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = env.mdp.model_spec().compile()
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = env.sim.qpos[world], env.sim.qvel[world]
    data.ctrl[:] = env.sim.joint_pos[world]
    mujoco.mj_forward(model, data)
    return model, data


def velocity_in_heading(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """Of the pelvis (6,): linear, then angular about the world's vertical and the heading's own axes."""
    velocity = np.zeros(6)
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, model.body("pelvis").id, velocity, 0)
    forward = data.body("pelvis").xmat.reshape(3, 3)[:, 0]
    yaw = math.atan2(forward[1], forward[0])
    turn = np.array([[math.cos(yaw), math.sin(yaw), 0], [-math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
    return np.concatenate((turn @ velocity[3:], turn @ velocity[:3]))


def ground_height(model: mujoco.MjModel, data: mujoco.MjData, xy: np.ndarray) -> float:
    down, only_ground = np.array([0, 0, -1.0]), np.array([1, 0, 0, 0, 0, 0], dtype=np.uint8)
    geom = np.zeros(1, dtype=np.int32)
    return 3.0 - mujoco.mj_ray(model, data, np.array([*xy, 3.0]), down, only_ground, 1, -1, geom, None)


def random_state(env: SimVecEnv, seed: int = 0, tilt: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """Near standing, turned by any yaw, all of it moving."""
    generator = torch.Generator().manual_seed(seed)
    n = env.num_envs
    qpos, qvel = env.sim.qpos.clone(), torch.randn(n, 35, generator=generator).double()
    yaw = 2 * math.pi * torch.rand(n, generator=generator).double()
    lean = tilt * torch.randn(n, 2, generator=generator).double()
    yaw_part = torch.stack((torch.cos(yaw / 2), 0 * yaw, 0 * yaw, torch.sin(yaw / 2)), -1)
    lean_part = torch.stack((1 + 0 * yaw, lean[:, 0], lean[:, 1], 0 * yaw), -1)
    quaternion = torch.zeros(n, 4).double()
    for i in range(n):
        out = np.zeros(4)
        mujoco.mju_mulQuat(out, yaw_part[i].numpy(), lean_part[i].numpy())
        quaternion[i] = torch.from_numpy(out / np.linalg.norm(out))
    qpos[:, 3:7] = quaternion
    qpos[:, 2] += 0.05
    qpos[:, 7:] += 0.1 * torch.randn(n, 29, generator=generator)
    return qpos, qvel


def test_every_reward_of_a_moving_robot() -> None:
    env = make()
    qpos, qvel = random_state(env)
    qpos[0, 7 + 1], qpos[0, 7 + 3] = -0.25, -0.05  # the left leg reaches over to the right, its knee too straight
    set_state(env, qpos, qvel)
    model, data = forwarded(env)
    moving = velocity_in_heading(model, data)
    command = torch.from_numpy(moving[[0, 1, 5]] + [0.2, -0.3, 0.4]).float()
    made = replace(transition(env, command, steps=13), action=torch.full((1, 29), 0.4))
    given = env.mdp.outcome(made, torch.rand(env.num_envs, env.mdp.outcome_draws)).rewards
    up = data.body("pelvis").xmat.reshape(3, 3)[2]  # the world's vertical, in the body
    q, dq = data.qpos[7:], data.qvel[6:]
    effort = data.actuator_force
    off = q - default_qpos(load_model("unitree_g1"), UNITREE_G1)[7:]
    names = [j.name for j in UNITREE_G1.joints]
    pose = np.array([0.02 if any(p in n for p in ("hip_pitch", "knee", "ankle_pitch")) else 1.0 for n in names])
    pose[["waist" in n for n in names]] = 3.0
    low, high = (np.array(side) for side in soft_limits(UNITREE_G1))
    soles = np.array([data.site(f"{side}_sole").xpos for side in ("left", "right")])
    forward = data.body("pelvis").xmat.reshape(3, 3)[:2, 0] / np.linalg.norm(data.body("pelvis").xmat[[0, 3]])
    apart = (soles[0] - soles[1])[:2] @ np.array([-forward[1], forward[0]])
    swing = 0.09 * math.sin(2 * math.pi * 13 * 0.025)
    wanted = np.array([max(swing, 0.0), max(-swing, 0.0)])
    limits = np.array([j.effort_limit_nm for j in UNITREE_G1.joints])
    expected = {
        "velocity": 2.0 * math.exp(-(0.2**2 + 0.3**2) / 0.25),
        "yaw_rate": 1.5 * math.exp(-(0.4**2) / 0.25),
        "alive": 1.0,
        "gait": 2.0 * math.exp(-((soles[:, 2] - wanted) ** 2).sum() / 0.065**2),
        "single_stance": 0.0,
        "lean": -5.0 * (up[0] ** 2 + up[1] ** 2),
        "height": -20.0 * (data.qpos[2] - 0.73) ** 2,
        "vertical_velocity": -(moving[2] ** 2),
        "roll_pitch_rate": -0.05 * (data.qvel[3] ** 2 + data.qvel[4] ** 2),
        "pose": -0.5 * (pose * off**2).sum(),
        "slip": 0.0,
        "overlap": -10.0 * max(0.0, 0.16 - apart),
        "action_rate": -0.05 * 29 * 0.4**2,
        "joint_limits": -5.0 * (np.maximum(low - q, 0) + np.maximum(q - high, 0)).sum(),
        "effort": -0.5 * ((effort / limits) ** 2).mean(),
        "power": -0.001 * np.abs(effort * dq).sum(),
        "fall": 0.0,
    }
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        assert given[name].item() == pytest.approx(0.02 * value, abs=2e-6, rel=2e-4), name
    for name in ("gait", "overlap", "joint_limits"):
        assert abs(given[name].item()) > 1e-5, name


def test_standing_on_both_feet_is_felt_and_slipping_costs() -> None:
    env = make(2)
    qpos, qvel = env.sim.qpos.clone(), torch.zeros(2, 35).double()
    qpos[:, 7:] = env.mdp._default_pos
    qpos[:, 3:7] = torch.tensor([1.0, 0, 0, 0])
    qpos[:, 2] = torch.from_numpy(default_qpos(load_model("unitree_g1"), UNITREE_G1))[2]
    qpos[0, 2] -= 1e-3  # a millimetre into the ground
    qpos[1, 2] += 1e-2
    qvel[:, 0] = 0.3
    set_state(env, qpos, qvel)
    outcome = env.mdp.outcome(transition(env, torch.zeros(1, 3)), torch.rand(env.num_envs, env.mdp.outcome_draws))
    assert env.mdp.state["foot_standing"].tolist() == [[True, True], [False, False]]
    torch.testing.assert_close(outcome.rewards["slip"], 0.02 * torch.tensor([-0.2 * 2 * 0.09, 0.0]))


def test_privileged_columns_of_a_robot_on_the_waves() -> None:
    """Velocity by MuJoCo, heights by its rays."""
    env = make(8, ROUGH)
    qpos, qvel = random_state(env)
    set_state(env, qpos, qvel)
    rows = env.privileged().numpy()
    kinds = env.mdp.state["terrain_kind"].tolist()
    assert kinds[:4] == [0, 1, 0, 1]
    for world in range(8):
        model, data = forwarded(env, world)
        moving = velocity_in_heading(model, data)
        ground = partial(ground_height, model, data)
        forward = data.body("pelvis").xmat[[0, 3]] / np.linalg.norm(data.body("pelvis").xmat[[0, 3]])
        left = np.array([-forward[1], forward[0]])
        around = [
            ground(data.qpos[:2] + 0.3 * i * forward + 0.25 * j * left) for i in (-2, -1, 0, 1, 2) for j in (-1, 0, 1)
        ]
        soles = [data.site(f"{side}_sole").xpos for side in ("left", "right")]
        np.testing.assert_allclose(rows[world, :3], moving[:3], atol=1e-4)
        assert rows[world, 3] == pytest.approx(10 * (data.qpos[2] - np.mean(around) - 0.73), abs=1e-3)
        np.testing.assert_allclose(rows[world, 8:10], [10 * (sole[2] - ground(sole[:2])) for sole in soles], atol=1e-3)
        np.testing.assert_allclose(rows[world, 10:], 10 * (np.array(around) - ground(data.qpos[:2])), atol=1e-3)
    assert np.abs(rows[1::2, 10:]).max() > 0.3  # there are hills


def test_the_direction_one_faces_changes_nothing() -> None:
    """The same motion turned by 2 rad and moved: rewards and what is privileged agree."""
    env = make(1)
    qpos, qvel = random_state(env)
    command = torch.tensor([[0.5, 0.1, 0.2]])
    seen = []
    for yaw in (0.0, 2.0):
        turn = np.array([math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)])
        turned_q, turned_v, quat, xy = qpos.clone(), qvel.clone(), np.zeros(4), np.zeros(3)
        mujoco.mju_mulQuat(quat, turn, qpos[0, 3:7].numpy())
        mujoco.mju_rotVecQuat(xy, qvel[0, :3].numpy(), turn)
        turned_q[0, 3:7], turned_v[0, :3] = torch.from_numpy(quat), torch.from_numpy(xy)
        turned_q[0, :2] += 3 * yaw
        set_state(env, turned_q, turned_v)
        rewards = env.mdp.outcome(transition(env, command), torch.rand(env.num_envs, env.mdp.outcome_draws)).rewards
        seen.append(torch.cat((torch.cat(tuple(rewards.values())), env.privileged()[0, :6])))
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("roll_rad", "height_m", "fallen"), [(0.95, 0.7, False), (1.05, 0.7, True), (0.0, 0.35, True)])
def test_falls_are_tilts_and_low_pelvises(roll_rad: float, height_m: float, fallen: bool) -> None:
    env = make()
    qpos = env.sim.qpos.clone()
    qpos[0, 2:7] = torch.tensor([height_m, math.cos(roll_rad / 2), math.sin(roll_rad / 2), 0.0, 0.0])
    set_state(env, qpos, torch.zeros(1, 35))
    outcome = env.mdp.outcome(transition(env, torch.zeros(1, 3)), torch.rand(env.num_envs, env.mdp.outcome_draws))
    assert outcome.terminated.item() == fallen
    assert outcome.rewards["fall"].item() == pytest.approx(-2.0 if fallen else 0.0)
    assert outcome.rewards["alive"].item() == pytest.approx(0.0 if fallen else 0.02)


def test_the_observed_clock_is_the_rewarded_one() -> None:
    env = make(2)
    newest = 2 * env.policy_io.frame_dim
    assert [name for name, _ in env.policy_io.contract.observation_terms][:4] == [
        "base_ang_vel", "projected_gravity", "command", "gait_phase",
    ]  # fmt: skip
    env._inputs["command"][:] = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 0.05]])
    for step in range(1, 8):
        result = env.step(torch.zeros(2, 29))
        angle = 2 * math.pi * step * 0.02 / 0.8
        assert result.obs[0, newest + 9].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert result.obs[0, newest + 10].item() == pytest.approx(math.cos(angle), abs=1e-5)
        assert result.obs[1, newest + 9 : newest + 11].tolist() == [0.0, 0.0]  # so slow a command means to stand


def test_obedience_is_of_the_mean_velocity_and_decides_success() -> None:
    """Hung up in the air, a robot that moves as asked obeys within a second; one that does not never does."""
    config = replace(FLAT, max_episode_steps=200, commands=CommandConfig(interval_steps=(500, 500)))
    env = make(2, config)
    command = torch.tensor([[0.5, 0.0, 0.0]])
    qpos, still = env.sim.qpos.clone(), torch.zeros(2, 35).double()
    qpos[:, 3:7] = torch.tensor([1.0, 0, 0, 0])
    still[0, 0] = 0.5
    mean, obeyed = 0.0, 0.0
    for step in range(1, 201):
        set_state(env, qpos, still)
        outcome = env.mdp.outcome(transition(env, command, step), torch.rand(env.num_envs, env.mdp.outcome_draws))
        mean += (0.5 - mean) * 0.02 / 0.4
        obeyed += math.exp(-((0.5 - mean) ** 2) / 0.25) / 200
    assert outcome.metrics["obedience"].tolist() == pytest.approx([obeyed, math.exp(-1.0)], abs=1e-4)
    assert outcome.at_goal.tolist() == [True, False]
    assert env.mdp.state["last_obedience"].tolist() == pytest.approx([obeyed, math.exp(-1.0)], abs=1e-4)
    levels = env.mdp.state["command_level"].tolist()
    env._start(torch.arange(2))
    assert env.mdp.state["command_level"].tolist() == pytest.approx([min(levels[0] + 0.1, 1), levels[1] - 0.1])
    env._start(torch.arange(2))  # an episode that was broken off judges nobody
    assert env.mdp.state["command_level"].tolist() == pytest.approx([min(levels[0] + 0.1, 1), levels[1] - 0.1])


def test_ground_gets_harder_for_those_who_get_away() -> None:
    env = make(12, ROUGH)
    state = env.mdp.state
    assert state["terrain_kind"].tolist() == [0, 1] * 6
    assert state["terrain_level"].tolist() == [0, 0, 1, 1, 2, 2] * 2
    state["terrain_level"].fill_(1)
    state["last_obedience"].fill_(0.5)
    state["asked_m"].copy_(torch.tensor([4.0, 4.0, 4.0, 0.0] * 3))
    state["walked_m"].copy_(torch.tensor([3.1, 2.5, 1.9, 0.0] * 3))
    state["last_obedience"][8:] = torch.nan
    env._start(torch.arange(12))
    assert state["terrain_level"].tolist() == 2 * [2, 1, 0, 1] + 4 * [1]
    assert state["walked_m"].abs().max() == 0
    assert env.mdp.terrain is not None
    for world in range(12):
        kind, level = int(state["terrain_kind"][world]), int(state["terrain_level"][world])
        start = env.sim.qpos[world, :3].float()
        spots = env.mdp.terrain.spots[kind, level]
        distance = (spots[:, :2] - start[:2]).norm(dim=-1)
        assert distance.min() < 1e-5
        standing = default_qpos(load_model("unitree_g1"), UNITREE_G1)[2]
        assert start[2].item() == pytest.approx(spots[distance.argmin(), 2].item() + standing, abs=1e-5)


def test_a_seeded_reset_forgets_the_levels() -> None:
    env = make(4, ROUGH)
    first = env.reset(5)
    env.mdp.state["command_level"].fill_(0.7)
    env.mdp.state["terrain_level"].fill_(2)
    assert torch.equal(env.reset(5), first)
    assert env.mdp.state["command_level"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_an_interrupted_environment_goes_on_exactly() -> None:
    config = replace(ROUGH, max_episode_steps=12, commands=CommandConfig(interval_steps=(3, 9), heading_share=0.5))
    one, two = make(6, config), make(6, config)
    generator = torch.Generator().manual_seed(1)
    actions = 2 * torch.rand(40, 6, 29, generator=generator) - 1
    for action in actions[:20]:
        one.step(action)
    two.load_state_dict(one.state_dict())
    for action in actions[20:]:
        ours, theirs = one.step(action), two.step(action)
        assert torch.equal(ours.obs, theirs.obs)
        assert torch.equal(ours.reward, theirs.reward)
        assert torch.equal(one.privileged(), two.privileged())
